"""GPT-2: q, k and v fused in a Conv1D, whose weight is (in, out); learned absolute positions."""

from headtool.models.layout import Layout

NAMES = ("gpt2",)

LAYOUT = Layout(
    blocks="h",
    attention="attn",
    qkv="attn.c_attn",
    packing="concat",
    transposed=True,
    out="attn.c_proj",
)
