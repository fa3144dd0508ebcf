"""BERT and ELECTRA: learned absolute positions, both directions."""

from headtool.models.layout import Layout

NAMES = ("bert", "electra")

LAYOUT = Layout(
    blocks="encoder.layer",
    attention="attention.self",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    out="attention.output.dense",
    ffn=("intermediate", "output"),
    causal=False,
)
