"""ModernBERT: rotary positions, q, k and v fused, sliding windows in two layers of three."""

from headtool.models.layout import Layout

NAMES = ("modernbert",)

LAYOUT = Layout(
    blocks="layers",
    attention="attn",
    qkv="attn.Wqkv",
    packing="concat",
    out="attn.Wo",
    causal=False,
)
