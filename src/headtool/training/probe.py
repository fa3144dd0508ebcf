"""The warm-up: the classifier alone, fitted on frozen features, so that the model before training means something.

The base model runs once over the training rows, dropout off, and leaves one vector an example: the hidden state that
the classifier reads. On those the parameters that were drawn at random, and no others, are fitted to

    mean over examples of the cross-entropy  +  |w|^2 / (2 n)

by L-BFGS over all n examples at once: where they are one layer, logistic regression with scikit-learn's default
penalty. The vectors stay in memory, examples x width x 4 bytes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

from headtool.errors import FAILED, HeadtoolError
from headtool.models.adapter import Adapter
from headtool.training.split import Split, autocast

TOKENS = 4096  # in a padded batch of the feature pass
CHUNK = 4096  # examples at a time through the classifier
ROUNDS = 100  # L-BFGS iterations at most
TOLERANCE = 1e-3  # of the first batch's logits against those of the whole model, relative to their size


@dataclass(frozen=True)
class Fitted:
    """How a warm-up went: the mean cross-entropy on the training rows before and after, and the share right after."""

    loss_before: float
    loss: float
    accuracy: float
    iterations: int


def fit(
    adapter: Adapter,
    fresh: tuple[str, ...],
    split: Split,
    *,
    dtype: torch.dtype,
    advance: Callable[[int], None],
) -> Fitted:
    """Fit the named parameters of a classifier in place, all others frozen, dropout off.

    dtype is what the feature pass is computed in; advance is told of the examples done.
    Raises HeadtoolError where the classifier reads more than one position, or the loss is not finite.
    """
    model = adapter.model.eval()
    features = _features(adapter, split, dtype, advance)
    labels = torch.from_numpy(split.labels).to(adapter.device)
    kept = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    parameters = dict(model.named_parameters())
    try:
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in fresh)
        with _fed(adapter) as head:
            before, _ = _loss(head, features, labels)
            iterations = _descend(head, [parameters[name] for name in fresh], features, labels)
            loss, right = _loss(head, features, labels)
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(kept[name])
            parameter.grad = None
    if not math.isfinite(loss):
        raise HeadtoolError(f"the loss of the warm-up is {loss}", hint="leave --probe out", code=FAILED)
    return Fitted(before, loss, right, iterations)


def _features(adapter: Adapter, split: Split, dtype: torch.dtype, advance: Callable[[int], None]) -> torch.Tensor:
    """The hidden state that the classifier reads: (example, width), in the weights' dtype."""
    model, found = adapter.model, torch.empty(len(split), 0)
    for i, index in enumerate(split.examples.plan(None, TOKENS)):
        given = {name: tensor.to(adapter.device) for name, tensor in split.inputs(index).items() if name != "labels"}
        with torch.no_grad(), autocast(adapter.runs_on, dtype):
            hidden = adapter.base(**given).last_hidden_state
        vectors = _read(adapter, hidden, given).to(adapter.dtype)
        if i == 0:
            found = torch.empty(len(split), vectors.shape[-1], dtype=vectors.dtype, device=vectors.device)
            with torch.no_grad(), autocast(adapter.runs_on, dtype):
                whole = model(**given).logits.float()
            with torch.no_grad(), _fed(adapter) as head:
                apart = head(vectors).float()
            slack = TOLERANCE if dtype not in (torch.bfloat16, torch.float16) else 0.05
            if (whole - apart).abs().max() > slack * whole.abs().max().clamp(min=1e-3):
                hint = "leave --probe out: the classifier is then trained with the model"
                raise HeadtoolError(
                    f"the classifier of '{adapter.located.model_type}' reads more than one hidden state", hint=hint
                )
        found[torch.from_numpy(index)] = vectors
        advance(len(index))
    return found


def _read(adapter: Adapter, hidden: torch.Tensor, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """Where a classifier looks: an encoder's first position or the mean of all, a decoder's last token but padding."""
    mask = given["attention_mask"]
    if getattr(adapter.model.config, "classifier_pooling", "cls") == "mean":
        return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    if not adapter.layout.causal:
        return hidden[:, 0]
    position = torch.arange(hidden.shape[1], device=hidden.device)
    last = (position * (given["input_ids"] != adapter.model.config.pad_token_id)).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


@contextlib.contextmanager
def _fed(adapter: Adapter) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """The classifier as a function of the vectors alone: its model sees sequences of one token, whose state is given."""
    model, base = adapter.model, adapter.base
    vectors = torch.empty(0)
    token = 0 if adapter.pad != 0 else 1  # any but padding

    def stand_in(*args: Any, **given: Any) -> BaseModelOutputWithPoolingAndCrossAttentions:
        hidden, pooler = vectors[:, None], getattr(base, "pooler", None)
        pooled = pooler(hidden) if pooler is not None else None
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=hidden, pooler_output=pooled)

    def head(given: torch.Tensor) -> torch.Tensor:
        nonlocal vectors
        vectors = given
        ids = torch.full((len(given), 1), token, device=given.device)
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits

    own = base.__dict__.get("forward")  # the class's method, unless somebody has put another in its place
    base.forward = stand_in
    try:
        yield head
    finally:
        del base.forward
        if own is not None:
            base.forward = own


def _descend(
    head: Callable[[torch.Tensor], torch.Tensor],
    parameters: list[torch.Tensor],
    features: torch.Tensor,
    labels: torch.Tensor,
) -> int:
    """Minimise the penalised loss; the number of iterations."""
    optimiser = torch.optim.LBFGS(parameters, max_iter=ROUNDS, tolerance_change=1e-7, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        squares = sum(((p * p).sum() for p in parameters if p.dim() > 1), torch.zeros((), device=features.device))
        total = squares / (2 * len(features))
        total.backward()
        total = total.detach()
        for rows, truth in zip(features.split(CHUNK), labels.split(CHUNK), strict=True):
            part = torch.nn.functional.cross_entropy(head(rows), truth, reduction="sum") / len(features)
            part.backward()
            total = total + part.detach()
        return total

    optimiser.step(closure)
    return int(optimiser.state[parameters[0]].get("n_iter", 0))


@torch.no_grad()
def _loss(
    head: Callable[[torch.Tensor], torch.Tensor], features: torch.Tensor, labels: torch.Tensor
) -> tuple[float, float]:
    """The mean cross-entropy in nats, and the share right."""
    total, right = 0.0, 0
    for rows, truth in zip(features.split(CHUNK), labels.split(CHUNK), strict=True):
        logits = head(rows).double()
        total += torch.nn.functional.cross_entropy(logits, truth, reduction="sum").item()
        right += int((logits.argmax(-1) == truth).sum())
    return total / len(features), right / len(features)
