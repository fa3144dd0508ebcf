"""Mixtral: Mistral's attention over a mixture of experts."""

from headtool.models.layout import Layout

NAMES = ("mixtral",)

LAYOUT = Layout(
    blocks="layers",
    attention="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    out="self_attn.o_proj",
)
