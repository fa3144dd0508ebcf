"""A model of any family seen through one interface: layers, heads, sites."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch

from headtool.errors import HeadtoolError
from headtool.models import heads, layout
from headtool.models.batches import Batch
from headtool.models.locate import Located

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
    runs_on: torch.device  # where it runs, or would run: a model opened without weights is nowhere
    drawn: bool = False  # was its task head drawn at random?

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
        """Where the ids go: the device of the embedding, or, of one that is not in memory, where it is run."""
        return heads.runs_on(self.base.get_input_embeddings())

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def vocabulary(self) -> int:
        """The token ids that the model knows: 0 up to this."""
        return int(self.base.get_input_embeddings().weight.shape[0])

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

    def facts(self) -> dict[str, Any]:
        """What a manifest says of the model."""
        g = self.geometry
        return {
            "label": self.located.label, "id": self.located.model_id, "revision": self.located.revision,
            "model_type": self.located.model_type, "kind": self.kind, "parameters": self.parameters,
            "layers": g.layers, "heads": g.heads, "kv_heads": g.kv_heads, "head_dim": g.head_dim, "width": g.width,
            "dtype": str(self.dtype).removeprefix("torch."), "device": str(self.device),
            "bytes": self.parameters * self.dtype.itemsize,
        }  # fmt: skip

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
        with heads.in_memory(self.out(layer)):
            weight = heads.matrix(self.out(layer), self.layout)
        return weight.T.unflatten(0, (self.geometry.heads, self.geometry.head_dim))

    def out_bias(self, layer: int) -> torch.Tensor | None:
        """The bias of a layer's output projection: (width,), or None."""
        with heads.in_memory(self.out(layer)):
            return getattr(self.out(layer), "bias", None)

    def forward(self, batch: Batch, **more: Any) -> Any:
        """Run the base model on a batch, padded on either side.

        A causal model is told nothing of padding on the right: no valid position can see it, and without a mask the
        fused kernels do half the work.
        """
        given: dict[str, Any] = {"input_ids": batch.ids, **more}
        padded_left = bool((batch.mask[:, 0] == 0).any())
        if padded_left or not self.layout.causal:
            given["attention_mask"] = batch.mask
        if batch.types is not None and "token_type_ids" in self.accepts:
            given["token_type_ids"] = batch.types
        if padded_left and "position_ids" in self.accepts and not self.layout.positions_from_ids:
            given["position_ids"] = (batch.mask.cumsum(1) - 1).clamp(min=0)
        if "use_cache" in self.accepts:
            given["use_cache"] = False
        return self.base(**given)


def adapt(
    model: Any,
    tokenizer: Any,
    located: Located,
    plan: layout.Layout,
    kind: Kind,
    where: torch.device,
    drawn: bool = False,
) -> Adapter:
    """An adapter over a loaded model: its geometry is read from its weights. Raises HeadtoolError where they do not fit."""
    config = model.config
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "add_cross_attention", False):
        raise HeadtoolError("models with cross-attention are not supported", hint="see docs/families.md")
    blocks = heads.submodule(model.base_model, plan.blocks)
    geometry = heads.measure(blocks, plan, config.num_attention_heads, config.hidden_size)
    return Adapter(model, tokenizer, located, plan, geometry, kind, where, drawn)
