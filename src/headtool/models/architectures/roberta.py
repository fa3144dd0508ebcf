"""RoBERTa and its relatives: BERT's layers, positions that the model counts from the input ids itself."""

from headtool.models.layout import Layout

NAMES = ("roberta", "xlm-roberta", "camembert")

LAYOUT = Layout(
    blocks="encoder.layer",
    attention="attention.self",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    out="attention.output.dense",
    ffn=("intermediate", "output"),
    causal=False,
    positions_from_ids=True,
)
