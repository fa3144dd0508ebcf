"""OLMo 2 and 3: norms over all heads of q and k together, after the projection."""

from headtool.models.layout import Layout

NAMES = ("olmo2", "olmo3")

LAYOUT = Layout(
    blocks="layers",
    attention="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    out="self_attn.o_proj",
)
