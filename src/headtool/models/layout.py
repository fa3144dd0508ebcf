"""Where the parts of a family stand: module paths and the packing of Q, K and V. Facts only; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headtool import folder
from headtool.errors import HeadtoolError, unknown

ARCHITECTURES = "headtool.models.architectures"


@dataclass(frozen=True)
class Layout:
    """The layout of a model family.

    Paths: blocks is relative to the base model (the model without its task head), the others to a block.
    Either query, key and value are separate modules, or qkv is one module whose rows are packed as

        concat   all q heads, all k heads, all v heads (GPT-2, Phi-3, ModernBERT)
        grouped  for each kv head: its q heads, its k, its v (GPT-NeoX, BLOOM, Falcon; one q head a group without GQA)

    transposed: the weight is (in, out) as in GPT-2's Conv1D, not (out, in).
    interface: the module named by attention calls transformers' AttentionInterface. Where it does not, its own
    forward returns the attention weights when it is asked for output_attentions.
    ffn: the modules of the feed-forward part, which work position by position, in the order they are run.
    positions_from_ids: absolute positions are derived from the input ids by the model itself (RoBERTa).
    """

    blocks: str
    attention: str
    out: str
    query: str | None = None
    key: str | None = None
    value: str | None = None
    qkv: str | None = None
    ffn: tuple[str, ...] = ("mlp",)
    packing: Literal["separate", "concat", "grouped"] = "separate"
    transposed: bool = False
    causal: bool = True
    interface: bool = True
    positions_from_ids: bool = False


# Families that cannot be read faithfully, and why.
REFUSED = {
    "albert": "all of its layers are one shared layer, so a (layer, head) is not a part of the model",
    "xlnet": "its projections are raw parameters with a head axis, and its two streams share them",
    "funnel": "its layers pool the sequence, so positions do not line up between layers",
    "t5": "encoder-decoder models have two stacks and cross-attention, which a (layer, head) table does not name",
    "mt5": "encoder-decoder models have two stacks and cross-attention, which a (layer, head) table does not name",
    "bart": "encoder-decoder models have two stacks and cross-attention, which a (layer, head) table does not name",
    "mbart": "encoder-decoder models have two stacks and cross-attention, which a (layer, head) table does not name",
    "gemma3": "it is the multimodal wrapper; open its language model, saved as gemma3_text",
    "gemma3n_text": "its layers share keys and values with other layers",
    "mamba": "it has no attention heads",
    "mamba2": "it has no softmax attention heads",
    "rwkv": "it has no softmax attention heads",
    "reformer": "its attention hashes keys into buckets, so there is no row over all visible keys",
    "big_bird": "its sparse attention has random blocks, so rows are not over all visible keys",
    "longformer": "its global attention has projections of its own, so a head is not one set of q, k and v",
    "deepseek_v2": "its latent attention packs keys and values into a shared latent that has no per-head slices",
    "deepseek_v3": "its latent attention packs keys and values into a shared latent that has no per-head slices",
}


def families() -> tuple[str, ...]:
    """The model types that headtool reads."""
    return folder.names(ARCHITECTURES)


def find(model_type: str, family: str | None = None) -> Layout:
    """The layout for a model type, or for the family that the user says it belongs to.

    Raises HeadtoolError for a family that is refused (with the reason) or not known.
    """
    wanted = model_type if family is None else family
    if family is None and model_type in REFUSED:
        raise HeadtoolError(
            f"models of type '{model_type}' are not supported: {REFUSED[model_type]}",
            hint=f"families: {', '.join(families())}",
        )
    try:
        return folder.load(ARCHITECTURES, wanted, "family").LAYOUT
    except HeadtoolError as error:
        if family is not None:
            raise unknown("family", family, families()) from error
        raise HeadtoolError(
            f"models of type '{model_type}' are not known to headtool",
            hint=f"if it is laid out like a known family, say so with --family; the families are {', '.join(families())}",
        ) from error
