"""DeBERTa-v2 and v3: content and relative position in separate terms; attention that is its own."""

from headtool.models.layout import Layout

NAMES = ("deberta-v2",)

LAYOUT = Layout(
    blocks="encoder.layer",
    attention="attention.self",
    query="attention.self.query_proj",
    key="attention.self.key_proj",
    value="attention.self.value_proj",
    out="attention.output.dense",
    ffn=("intermediate", "output"),
    causal=False,
    interface=False,
)
