"""The tables of headtool inspect-weights."""

from __future__ import annotations

from headtool.record.tables.columns import HEAD, KEY, LAYER, Column, Table

NAME = Column("param_name", "String", "", "name in the checkpoint; of one expert of a fused tensor, name[e]")
LAYER_INDEX = Column("layer_index", "Int32", "", "layer, from 0; null outside the layers")
BLOCK_TYPES = (
    "embedding", "position_embedding", "q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    "mlp", "moe_gate", "moe_expert", "norm", "bias", "output", "other",
)  # fmt: skip
BLOCK = Column("block_type", "String", "", ", ".join(BLOCK_TYPES))
SHAPE = Column("shape", "String", "", "as stored, such as 896x4864")
SPECTRAL = (
    Column("spectral_norm", "Float64", "weight", "largest singular value s_1"),
    Column("stable_rank", "Float64", "1", "(fro_norm / s_1)^2"),
    Column("effective_rank", "Float64", "1", "exp of the entropy of s / sum of s"),
)
FOUND = (
    Column("rank", "Int32", "", "singular values above s_1 max(rows, cols) 2^-23, or above --rank-tol times s_1"),
    Column("rank_resolved", "Int32", "", "those that are also above the rounding of the stored type: a lower bound"),
)
PARTS = {"q": "W_Q", "k": "W_K (of its key/value head)", "v": "W_V (of its key/value head)", "o": "W_O"}
CIRCUITS = {"qk": "the QK circuit W_Q^T W_K", "ov": "the OV circuit W_O W_V"}
FRO = ("fro_norm", "Float64", "weight", "Frobenius norm")

TABLES = (
    Table(
        "inspect.parameters", 1,
        "One row a tensor, and one an expert where a tensor holds several. Statistics are over the finite values.",
        ("param_name",),
        (
            Column("model_path", "String", "", "folder or file read, or the hub id"),
            Column("model_id", "String", "", "as given on the command line, without its revision"),
            Column("revision", "String", "", "commit on the hub; null for local files"),
            NAME,
            LAYER_INDEX,
            BLOCK,
            Column("expert", "Int32", "", "expert, from 0; null outside experts"),
            SHAPE,
            Column("rows", "Int64", "", "rows of the matrix it is read as: the first dimension"),
            Column("cols", "Int64", "", "columns: the product of the others; null for a vector"),
            Column("n_params", "Int64", "", "elements"),
            Column("dtype", "String", "", "stored type, as safetensors names it"),
            Column("quantisation", "String", "", "method, where the stored values are codes or the scales of codes; else null"),
            Column("mean", "Float64", "weight", "mean"),
            Column("std", "Float64", "weight", "standard deviation of the population"),
            Column("var", "Float64", "weight^2", "variance of the population"),
            Column("min", "Float64", "weight", "smallest"),
            Column("max", "Float64", "weight", "largest"),
            Column("abs_max", "Float64", "weight", "largest size"),
            Column("kurtosis", "Float64", "1", "m4 / m2^2 - 3: 0 for a normal distribution; null for a constant"),
            Column("sparsity", "Float64", "1", "share of |x| <= --zero-eps"),
            Column("n_nan", "Int64", "", "NaN"),
            Column("n_inf", "Int64", "", "infinities"),
            Column("fro_norm", "Float64", "weight", "root of the sum of squares"),
            *FOUND,
            *SPECTRAL,
            Column("rank_90", "Int32", "", "fewest singular values that hold 90% of the sum of s^2"),
            Column("rank_99", "Int32", "", "the same for 99%"),
            Column("condition", "Float64", "1", "s_1 / s_min; null where s_min is 0 to the method's precision"),
            Column("alpha", "Float64", "1", "exponent of a power law fitted to the tail of s^2 (--alpha)"),
            Column("rank_method", "String", "", "gram32, gram64, svd, or skipped: and why"),
            Column("tied_to", "String", "", "parameter that the configuration ties it to"),
            Column("duplicate_of", "String", "", "first parameter of the same type, shape and bytes"),
            Column("created_at", "String", "", "when the run began (UTC)"),
        ),
    ),
    Table(
        "inspect.heads", 1, "Slices of the projections by head (of W_O the head's columns), and the circuits they form.", KEY,
        (
            LAYER,
            HEAD,
            Column("kv_head", "Int32", "", "key/value head of the head"),
            *(Column(f"{part}_{name}", kind, unit, f"{doc} of its slice of {what}")
              for part, what in PARTS.items()
              for name, kind, unit, doc in (FRO, *((c.name, c.kind, c.unit, c.doc) for c in SPECTRAL),
                                            ("rank_90", "Int32", "", "fewest s that hold 90% of the sum of s^2"))),
            *(Column(f"{circuit}_{name}", kind, unit, f"{doc} of {what}")
              for circuit, what in CIRCUITS.items()
              for name, kind, unit, doc in (FRO, *((c.name, c.kind, c.unit, c.doc) for c in SPECTRAL))),
        ),
    ),
    Table(
        "inspect.diff", 1, "Two checkpoints tensor by tensor: a is the one inspected, b that of --diff.", ("param_name",),
        (
            NAME,
            LAYER_INDEX,
            BLOCK,
            Column("status", "String", "", "same (every byte), changed, only a, only b, other shape, quantised"),
            SHAPE,
            Column("shape_b", "String", "", "shape in b"),
            Column("dtype", "String", "", "stored type in a"),
            Column("dtype_b", "String", "", "stored type in b"),
            Column("fro_norm", "Float64", "weight", "Frobenius norm of a"),
            Column("fro_norm_b", "Float64", "weight", "that of b"),
            Column("fro_distance", "Float64", "weight", "Frobenius norm of b - a"),
            Column("relative_distance", "Float64", "1", "fro_distance / fro_norm"),
            Column("cosine", "Float64", "1", "<a, b> / (|a| |b|)"),
            Column("max_change", "Float64", "weight", "largest |b - a|"),
            Column("n_changed", "Int64", "", "elements that differ"),
            *(Column(c.name, c.kind, c.unit, f"of b - a: {c.doc}") for c in (*FOUND, *SPECTRAL)),
            Column("rank_method", "String", "", "as in parameters"),
        ),
    ),
    Table(
        "inspect.heads_diff", 1, "How far each head's weights are apart in the two checkpoints.", KEY,
        (
            LAYER,
            HEAD,
            *(Column(name, "Float64", unit, "as in update")
              for name, unit in (("U", "weight"), ("Urel", "1"), *((f"U{x}", "weight") for x in "qkvo"))),
        ),
    ),
    Table(
        "inspect.clusters", 1, "Clusters of the rows of the word embedding.", ("cluster",),
        (
            Column("cluster", "Int32", "", "cluster, from 0, the largest first"),
            Column("size", "Int64", "tokens", "tokens in it"),
            Column("share", "Float64", "1", "size over the vocabulary"),
            Column("mean_distance", "Float64", "1", "mean distance of its tokens to its centre, standardised"),
            Column("silhouette", "Float64", "1", "mean silhouette of a seeded sample of its tokens; null for one cluster"),
            Column("representatives", "String", "", "the 10 tokens nearest to its centre, as a JSON list"),
        ),
    ),
    Table(
        "inspect.tokens", 1, "The cluster of every token.", ("token_id",),
        (
            Column("token_id", "Int64", "", "row of the embedding"),
            Column("token", "String", "", "token as the tokenizer writes it; null where it has none"),
            Column("cluster", "Int32", "", "its cluster"),
            Column("distance", "Float64", "1", "distance to the centre of its cluster, standardised"),
        ),
    ),
    Table(
        "inspect.elbow", 1, "How good each number of clusters is.", ("k",),
        (
            Column("k", "Int32", "", "clusters"),
            Column("inertia", "Float64", "1", "mean squared distance to the nearest centre, on the sample"),
            Column("silhouette", "Float64", "1", "mean silhouette on the sample; null for one cluster"),
            Column("calinski_harabasz", "Float64", "1", "Calinski-Harabasz index on the sample; null for one cluster"),
            Column("chord_distance", "Float64", "1", "height of the chord over the inertia curve, both axes from 0 to 1"),
            Column("chosen", "Boolean", "", "was this number taken"),
        ),
    ),
)  # fmt: skip
