"""OPT: queries are scaled before the attention function, which gets a scaling of 1; learned positions."""

from headtool.models.layout import Layout

NAMES = ("opt",)

LAYOUT = Layout(
    blocks="decoder.layers",
    attention="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    out="self_attn.out_proj",
    ffn=("fc1", "fc2"),
)
