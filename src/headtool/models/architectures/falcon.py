"""Falcon: one key/value head, or groups of them; attention that is its own, which returns its weights."""

from headtool.models.layout import Layout

NAMES = ("falcon",)

LAYOUT = Layout(
    blocks="h",
    attention="self_attention",
    qkv="self_attention.query_key_value",
    packing="grouped",
    out="self_attention.dense",
    interface=False,
)
