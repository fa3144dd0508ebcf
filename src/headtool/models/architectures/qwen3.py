"""Qwen3: query and key norms, a head_dim of its own."""

from headtool.models.layout import Layout

NAMES = ("qwen3", "qwen3_moe")

LAYOUT = Layout(
    blocks="layers",
    attention="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    out="self_attn.o_proj",
)
