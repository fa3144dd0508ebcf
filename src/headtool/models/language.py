"""Open a decoder with its language model head to be trained, and see what that head is: a linear map, scaled, capped."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch

from headtool.errors import HeadtoolError
from headtool.models import checkpoint, layout
from headtool.models.adapter import Adapter, adapt
from headtool.models.devices import pick_device, threads_for
from headtool.models.locate import Located
from headtool.models.open import CLASSES, kind_of, load, quiet_libraries, read
from headtool.ranks import free_cores

TOLERANCE = 1e-3  # of the head's own logits against our reading of it, relative to the largest


@dataclass(frozen=True)
class Head:
    """What a language model head does to the last hidden state z: cap(factor (W z + b)), cap(x) = c tanh(x / c) or x."""

    weight: torch.Tensor  # (vocabulary, width)
    bias: torch.Tensor | None
    factor: float
    cap: float | None
    tied: bool  # is the weight that of the embedding?


def open_language_model(
    located: Located,
    *,
    device: str = "auto",
    double: bool = False,
    family: str | None = None,
    threads: int = 0,
    weights: bool = True,
) -> Adapter:
    """Open a decoder with its head in float32 (or float64), with the library's own attention, ready to be trained.

    weights=False builds it on the meta device: shapes for a plan.

    Raises HeadtoolError for a model that is no decoder or has no language model head, for files that are missing, cut
    or pickles, and where weights of the model are missing.
    """
    plan = layout.find(located.model_type, family)
    kind = kind_of(located)
    if not plan.causal or kind != "causal":
        what = "has no language model head" if plan.causal else "is an encoder: it predicts no next token"
        hint = "give a decoder that was saved with its head, a ...ForCausalLM in config.json, or 'demo'"
        raise HeadtoolError(f"{located.label} {what}", hint=hint)
    for file in checkpoint.weight_files(located.folder):
        checkpoint.header(file)
    torch.set_num_threads(threads or free_cores())
    where = pick_device(device)
    how: dict[str, Any] = {"dtype": torch.float64 if double else torch.float32}
    with quiet_libraries():
        config, tokenizer = read(located.folder)
        if not weights:
            with torch.device("meta"):
                model = CLASSES[kind].from_config(config, **how)
        else:
            model = load(located, config, kind, how)
            model.to(where)
    model.eval()
    torch.set_num_threads(threads or threads_for(sum(p.numel() for p in model.parameters())))
    return adapt(model, copy.deepcopy(tokenizer), located, plan, kind, where)


@torch.no_grad()
def head_of(model: Any, *, check: bool = True) -> Head:
    """The head of a causal LM. Raises HeadtoolError where it is more than a scaled and capped linear map.

    Granite divides its logits, Cohere multiplies them, Gemma 2 caps them: these are read off the configuration, and the
    result is compared with the model's own logits on a few tokens.
    """
    config, output = model.config.get_text_config(), model.get_output_embeddings()
    divided, multiplied = getattr(config, "logits_scaling", None), getattr(config, "logit_scale", None)
    factor = (1 / divided if divided else 1.0) * (multiplied or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    tied = output.weight is model.get_input_embeddings().weight
    head = Head(output.weight, getattr(output, "bias", None), float(factor), cap, tied)
    if check and output.weight.device.type != "meta":
        ids = (torch.arange(8, device=output.weight.device)[None] * 7919) % config.vocab_size
        given = {} if model.config.model_type == "bloom" else {"use_cache": False}
        own = model(input_ids=ids, **given).logits[0].double()
        logits = (
            factor
            * torch.nn.functional.linear(
                model.base_model(input_ids=ids, **given)[0][0], output.weight, head.bias
            ).double()
        )
        if cap:
            logits = cap * torch.tanh(logits / cap)
        if not bool((own - logits).abs().max() <= TOLERANCE * own.abs().max().clamp(min=1e-6)):
            hint = "the causal model takes heads that are a matrix, a bias, a factor and a soft cap"
            raise HeadtoolError(f"the head of '{model.config.model_type}' is no linear map", hint=hint)
    return head


def add_row(model: Any, row: int, like: list[int]) -> bool:
    """Give a token its row in the embedding and in the head: the mean of the rows of others. Was the table enlarged?

    A tied head stays tied. Tables with rows to spare (Qwen2.5 has 271 more than tokens) keep their size.
    """
    table = model.get_input_embeddings()
    enlarged = row >= table.weight.shape[0]
    if enlarged:
        with quiet_libraries():
            model.resize_token_embeddings(row + 1, mean_resizing=False)
    output = model.get_output_embeddings()
    with torch.no_grad():
        for module in {id(m): m for m in (model.get_input_embeddings(), output)}.values():
            rows = module.weight[like] if like else module.weight[:row]
            module.weight[row] = rows.mean(0)
            if getattr(module, "bias", None) is not None:
                module.bias[row] = (module.bias[like] if like else module.bias[:row]).mean()
    return enlarged
