"""Gemma 3, the language model: query and key norms, five sliding layers to one full."""

from headtool.models.layout import Layout

NAMES = ("gemma3_text",)

LAYOUT = Layout(
    blocks="layers",
    attention="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    out="self_attn.o_proj",
)
