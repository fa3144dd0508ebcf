"""Gemma and Gemma 2: Gemma 2 caps its scores softly and alternates sliding windows."""

from headtool.models.layout import Layout

NAMES = ("gemma", "gemma2")

LAYOUT = Layout(
    blocks="layers",
    attention="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    out="self_attn.o_proj",
)
