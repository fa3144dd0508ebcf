"""gpt-oss: each head has a learned sink, a logit that takes part in the softmax and has no value."""

from headtool.models.layout import Layout

NAMES = ("gpt_oss",)

LAYOUT = Layout(
    blocks="layers",
    attention="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    out="self_attn.o_proj",
    ffn=(),  # its mlp returns the router's scores as well
)
