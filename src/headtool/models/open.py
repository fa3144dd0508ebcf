"""Open a model for reading its heads: load it, verify its layout, refuse what cannot be seen faithfully."""

from __future__ import annotations

import contextlib
import inspect
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
import transformers

from headtool.errors import HeadtoolError
from headtool.models import attention, checkpoint, heads, layout
from headtool.models.batches import Batch
from headtool.models.locate import Located
from headtool.models.verify import verify

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
CLASSES = {
    "causal": transformers.AutoModelForCausalLM,
    "masked": transformers.AutoModelForMaskedLM,
    "classifier": transformers.AutoModelForSequenceClassification,
    "headless": transformers.AutoModel,
}
Kind = Literal["causal", "masked", "classifier", "headless"]


@dataclass(frozen=True)
class Adapter:
    """A model of any family seen through one interface: layers, heads, sites."""

    model: Any  # a transformers model: its attributes are its family's
    tokenizer: Any
    located: Located
    layout: layout.Layout
    geometry: heads.Geometry
    kind: Kind

    @cached_property
    def base(self) -> Any:
        """The model without its task head: what the forward scores run."""
        return self.model.base_model

    @cached_property
    def accepts(self) -> frozenset[str]:
        """The arguments that the base model takes."""
        return frozenset(inspect.signature(self.base.forward).parameters)

    @property
    def device(self) -> torch.device:
        """Where the ids go: the device of the embedding."""
        return self.base.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def longest(self) -> int:
        """The most tokens that tokenizer and model allow in a sequence (RoBERTa keeps pad_id + 1 positions for itself)."""
        limit = getattr(self.model.config, "max_position_embeddings", None) or 10**9
        if self.layout.positions_from_ids:
            limit -= self.model.config.pad_token_id + 1
        return int(min(limit, getattr(self.tokenizer, "model_max_length", None) or 10**9))

    @property
    def has_types(self) -> bool:
        """Does the model tell a second text by its token types?"""
        return (getattr(self.model.config, "type_vocab_size", 0) or 0) > 1

    @property
    def pad(self) -> int:
        """The id that fills a batch up; masked, so any valid id serves."""
        return next(i for i in (self.tokenizer.pad_token_id, self.model.config.pad_token_id, 0) if i is not None)

    def block(self, layer: int) -> Any:
        return heads.submodule(self.base, self.layout.blocks)[layer]

    def attention(self, layer: int) -> Any:
        """The module that computes a layer's attention."""
        return heads.submodule(self.block(layer), self.layout.attention)

    def out(self, layer: int) -> Any:
        """A layer's output projection: its input is the heads' outputs side by side."""
        return heads.submodule(self.block(layer), self.layout.out)

    def out_weight(self, layer: int) -> torch.Tensor:
        """W_O by head: (head, head_dim, width), a view. Raises HeadtoolError where it is quantised."""
        weight = heads.matrix(self.out(layer), self.layout)
        return weight.T.unflatten(0, (self.geometry.heads, self.geometry.head_dim))

    def forward(self, batch: Batch, **more: Any) -> Any:
        """Run the base model on a batch, padded on either side."""
        given: dict[str, Any] = {"input_ids": batch.ids, "attention_mask": batch.mask, **more}
        if batch.types is not None and "token_type_ids" in self.accepts:
            given["token_type_ids"] = batch.types
        padded_left = bool((batch.mask[:, 0] == 0).any())
        if padded_left and "position_ids" in self.accepts and not self.layout.positions_from_ids:
            given["position_ids"] = (batch.mask.cumsum(1) - 1).clamp(min=0)
        if "use_cache" in self.accepts:
            given["use_cache"] = False
        return self.base(**given)


def open_model(
    located: Located,
    *,
    device: str = "auto",
    dtype: str = "auto",
    family: str | None = None,
    threads: int = 0,
    weights: bool = True,
) -> Adapter:
    """Open a located model in eval mode, and verify that its heads are where its layout says.

    weights=False builds the model without its weights, on the meta device: shapes for a plan, nothing to run.

    Raises HeadtoolError for a family that is not known or refused, files that are missing, cut or pickles, a device
    that is not there, and a model that fails the check.
    """
    plan = layout.find(located.model_type, family)
    for file in checkpoint.weight_files(located.folder):
        checkpoint.header(file)
    torch.set_num_threads(threads or free_cores())
    where = pick_device(device)
    kind = _kind(located)
    with quiet_libraries():
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(located.folder)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise HeadtoolError(f"{located.folder}: there is no tokenizer that can be read", hint=reason) from error
        if not tokenizer.is_fast:
            raise HeadtoolError(
                f"{located.folder}: its tokenizer gives no character offsets", hint="save it with a tokenizer.json"
            )
        how = {"dtype": pick_dtype(dtype, where), "attn_implementation": attention.NAME if plan.interface else "eager"}
        if not weights:
            with torch.device("meta"):
                config = transformers.AutoConfig.from_pretrained(located.folder)
                model = CLASSES[kind].from_config(config, **how)
            return adapt(model, tokenizer, located, plan, kind)
        model = CLASSES[kind].from_pretrained(located.folder, use_safetensors=True, **how)
    model.to(where).eval().requires_grad_(False)
    adapter = adapt(model, tokenizer, located, plan, kind)
    with quiet_libraries():
        verify(adapter)
    return adapter


def adapt(model: Any, tokenizer: Any, located: Located, plan: layout.Layout, kind: Kind) -> Adapter:
    """An adapter over a loaded model: its geometry is read from its weights. Raises HeadtoolError where they do not fit."""
    config = model.config
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "add_cross_attention", False):
        raise HeadtoolError("models with cross-attention are not supported", hint="see docs/families.md")
    blocks = heads.submodule(model.base_model, plan.blocks)
    geometry = heads.measure(blocks, plan, config.num_attention_heads, config.hidden_size)
    return Adapter(model, tokenizer, located, plan, geometry, kind)


def _kind(located: Located) -> Kind:
    """What task head the checkpoint was saved with."""
    names = " ".join(located.config.get("architectures") or [])
    if "ForSequenceClassification" in names:
        return "classifier"
    if "MaskedLM" in names or "ForPreTraining" in names:
        return "masked"
    if "ForCausalLM" in names or "LMHeadModel" in names:
        return "causal"
    return "headless"


def pick_device(device: str) -> torch.device:
    """Auto is the GPU if there is one. Raises HeadtoolError for a device that is not there."""
    if device == "auto":
        local = os.environ.get("LOCAL_RANK", "0")
        return torch.device(
            f"cuda:{local}" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        wanted = torch.device(device)
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise HeadtoolError(f"--device {device}: it is not there", hint=f"there is {', '.join(there)}") from error
    if wanted.type == "meta":
        raise HeadtoolError("--device meta: nothing can be computed there", hint="cpu, cuda or mps")
    return wanted


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Auto is fp32 on a CPU, and on a GPU bf16, else fp16."""
    if dtype != "auto":
        return DTYPES[dtype]
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float16


def free_cores() -> int:
    """The cores that this process may use: its affinity, and the quota of its control group."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        cores = min(cores, max(1, int(quota) // int(period)))  # "max" is no number: no quota
    return cores


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the bars and advice of the libraries beneath: what matters of it is checked here and said in our words."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
