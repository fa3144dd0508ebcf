"""Phi-3 and Phi-4: q, k and v fused, all q heads before all k heads before all v heads."""

from headtool.models.layout import Layout

NAMES = ("phi3",)

LAYOUT = Layout(
    blocks="layers",
    attention="self_attn",
    qkv="self_attn.qkv_proj",
    packing="concat",
    out="self_attn.o_proj",
)
