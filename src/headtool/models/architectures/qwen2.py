"""Qwen2 and Qwen2.5: Llama with biases on q, k and v."""

from headtool.models.layout import Layout

NAMES = ("qwen2", "qwen2_moe")

LAYOUT = Layout(
    blocks="layers",
    attention="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    out="self_attn.o_proj",
)
