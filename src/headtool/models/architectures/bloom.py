"""BLOOM: ALiBi in place of positions; attention that is its own, which returns its weights."""

from headtool.models.layout import Layout

NAMES = ("bloom",)

LAYOUT = Layout(
    blocks="h",
    attention="self_attention",
    qkv="self_attention.query_key_value",
    packing="grouped",
    out="self_attention.dense",
    interface=False,
)
