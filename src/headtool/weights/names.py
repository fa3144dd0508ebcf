"""What a parameter is, told by its name: its layer, its block type, its expert; with the family's layout or without."""

from __future__ import annotations

import re
from dataclasses import dataclass

from headtool.models.heads import projection
from headtool.models.layout import Layout

# Block lists as the common code bases call them; the first that is followed by a number names the layer.
LAYERS = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block|encoder_layers|decoder_layers)\.(\d+)\.")
EXPERT = re.compile(r"(?:^|\.)experts\.(\d+)\.")
# (pattern, block type), the first that fits is taken. A pattern is searched in the name without .weight.
BY_NAME: tuple[tuple[str, str], ...] = (
    (r"[Nn]orm|(^|\.)ln_?(\d+|f|\w)?(\.|$)|(^|[._])ln(\.|_|$)", "norm"),
    (r"experts|shared_expert(?!_gate)", "moe_expert"),
    (r"(^|\.)(router|shared_expert_gate)(\.|$)|(mlp|moe|block_sparse_moe|feed_forward)\.gate(\.|$)", "moe_gate"),
    (r"position_embed|embed_positions|(^|\.)(wpe|rel_embeddings|pos_emb\w*)(\.|$)|relative_attention_bias", "position_embedding"),
    (r"word_embeddings|embed_tokens|(^|\.)(wte|embed_in|tok_embeddings|embedding|tok_embed|shared)(\.|$)", "embedding"),
    (r"token_type_embeddings", "embedding"),
    (r"lm_head|embed_out|predictions|vocab_|output_layer|(^|\.)decoder$", "output"),
    (r"(^|\.)(classifier|score|qa_outputs|pre_classifier|pooler|head)(\.|$)", "output"),
    (r"query_key_value|(^|\.)(qkv_proj|c_attn|Wqkv|qkv|in_proj)(\.|$)", "qkv_proj"),
    (r"(^|\.)(q_proj|query_proj|query|q_lin|wq|q)(\.|$)", "q_proj"),
    (r"(^|\.)(k_proj|key_proj|key|k_lin|wk|k)(\.|$)", "k_proj"),
    (r"(^|\.)(v_proj|value_proj|value|v_lin|wv|v)(\.|$)", "v_proj"),
    (r"(^|\.)(o_proj|out_lin|wo)(\.|$)|att\w*(\.self)?\.(dense|output\.dense|c_proj|Wo|out_proj|o)(\.|$)|out_proj", "o_proj"),
    (r"gate_up_proj|(mlp|ffn|feed_forward)\.Wi(\.|$)", "mlp"),
    (r"(^|\.)(gate_proj|w1)(\.|$)", "gate_proj"),
    (r"(^|\.)(up_proj|w3|fc1|lin1|c_fc|dense_h_to_4h|intermediate\.dense)(\.|$)", "up_proj"),
    (r"(^|\.)(down_proj|w2|fc2|lin2|dense_4h_to_h|output\.dense)(\.|$)|mlp\.(c_proj|Wo)(\.|$)", "down_proj"),
    (r"(^|\.)(mlp|ffn|feed_forward)\.", "mlp"),
)  # fmt: skip
PATTERNS = tuple((re.compile(pattern), kind) for pattern, kind in BY_NAME)
# What a quantiser leaves beside its codes: not weights themselves.
COMPANION = re.compile(
    r"(qweight|qzeros|scales|g_idx|SCB|weight_format|absmax|quant_map|nested_\w+|quant_state\S*|weight_scale\w*|"
    r"weight_zero_point|weight_packed|weight_shape|input_scale|\w+_blocks|\w+_scales)$"
)


@dataclass(frozen=True)
class Name:
    """What a parameter's name says: layer and expert from 0 (None: of no layer, no expert), and its block type."""

    layer: int | None
    block_type: str
    expert: int | None


def classify(name: str, layout: Layout | None) -> Name:
    """The layer, block type and expert of a parameter.

    With a layout the attention projections are where it says; everything else goes by name. A bias is of type
    "bias", but those of norms are norms. Names that nothing fits are "other".
    """
    expert = EXPERT.search(name)
    layer, inside = None, None
    if layout is not None and (found := _in_block(layout).search(name)):
        layer, inside = int(found[1]), found[2]
    elif found := LAYERS.search(name):
        layer = int(found[1])
    kind = _by_layout(inside, layout) if inside is not None and layout is not None else None
    stem = re.sub(r"\.(weight|bias|gamma|beta)$", "", name)
    kind = kind or next((kind for pattern, kind in PATTERNS if pattern.search(stem)), "other")
    if kind != "norm" and re.search(r"(^|[._])(q_|v_)?bias$", name):
        kind = "bias"
    return Name(layer, kind, int(expert[1]) if expert else None)


def attention_tensors(names: list[str], layout: Layout) -> dict[int, dict[str, str]]:
    """For each layer the names of the weights of q, k, v (or of what fuses them) and o: layer -> part -> name."""
    paths = {part: projection(layout, part) for part in ("q", "k", "v")} | {"o": layout.out}
    found: dict[int, dict[str, str]] = {}
    for name in names:
        if at := _in_block(layout).search(name):
            for part, path in paths.items():
                if at[2] == f"{path}.weight":
                    found.setdefault(int(at[1]), {})[part] = name
    return found


def canonical(name: str, layout: Layout | None) -> str:
    """The name without what a task head puts before the base model, so that two checkpoints of one model meet."""
    found = _in_block(layout).search(name) if layout is not None else LAYERS.search(name)
    if found is None:
        return re.sub(r"^(model|transformer|bert|roberta|distilbert|deberta|electra|gpt_neox|base_model)\.", "", name)
    return name[found.start() :].lstrip(".")


def _in_block(layout: Layout) -> re.Pattern[str]:
    return re.compile(rf"(?:^|\.){re.escape(layout.blocks)}\.(\d+)\.(.+)$")


def _by_layout(inside: str, layout: Layout) -> str | None:
    stem = inside.rpartition(".")[0]
    parts = {layout.query: "q_proj", layout.key: "k_proj", layout.value: "v_proj", layout.qkv: "qkv_proj"}
    return (parts | {layout.out: "o_proj"}).get(stem)
