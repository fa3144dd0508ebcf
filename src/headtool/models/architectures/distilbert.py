"""DistilBERT: BERT's attention under other names, no token types."""

from headtool.models.layout import Layout

NAMES = ("distilbert",)

LAYOUT = Layout(
    blocks="transformer.layer",
    attention="attention",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    out="attention.out_lin",
    ffn=("ffn",),
    causal=False,
)
