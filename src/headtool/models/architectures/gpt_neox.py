"""GPT-NeoX and Pythia: q, k and v fused head by head; attention and MLP in parallel."""

from headtool.models.layout import Layout

NAMES = ("gpt_neox",)

LAYOUT = Layout(
    blocks="layers",
    attention="attention",
    qkv="attention.query_key_value",
    packing="grouped",
    out="attention.dense",
)
