"""Llama and models built like it: grouped-query attention, rotary positions."""

from headtool.models.layout import Layout

NAMES = ("llama", "granite", "smollm3")

LAYOUT = Layout(
    blocks="layers",
    attention="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    out="self_attn.o_proj",
)
