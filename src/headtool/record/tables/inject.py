"""The tables of headtool inject."""

from __future__ import annotations

from headtool.record.tables.columns import HEAD, LAYER, Column, Table

FAULT = Column("fault_id", "String", "", "hash of what the fault is: phase, place, pattern, seed")
SITE = Column("site", "String", "", "q, k, v, scores, weights or out")
SEQUENCE = Column("sequence", "Int32", "", "number of the sequence in the table sequences")
DETECTOR = Column("detector", "String", "", "detector; 'all' is any of those asked for, 'bounds:self' an inequality")
BIT = Column("bit", "Int32", "", "bit, from 0, the least of the mantissa; -1 where the pattern has none")
TRIALS = (
    FAULT,
    Column("phase", "String", "", "forward, or backward: the gradient at the site during a training step"),
    LAYER,
    Column("head", "Int32", "", "head, from 0: the key/value head for k and v, which its whole group reads"),
    SITE,
    SEQUENCE,
    Column("row", "Int32", "", "position: the query's, for k and v the key's"),
    Column("column", "Int32", "", "component of head_dim; for scores and weights the key's position"),
    Column("masked", "Boolean", "", "is it the score or weight of a key that the query may not see?"),
    Column("pattern", "String", "", "what the fault does to the number"),
    BIT,
    Column("field", "String", "", "sign, exponent or mantissa: where the bit stands; null without a bit"),
    Column("before", "Float64", "", "the number before; null if it is not finite"),
    Column("after", "Float64", "", "the number after; null if it is not finite"),
    Column("before_bits", "String", "", "its bits before, hexadecimal"),
    Column("after_bits", "String", "", "its bits after, hexadecimal"),
    Column("loss_base", "Float64", "nats", "loss of the sequence without the fault; backward: of the batch, at first"),
    Column("hit", "Int32", "", "numbers that are hit: so many columns from column on"),
    Column("loss_injected", "Float64", "nats", "loss with it; null if it is not finite"),
    Column("loss_diff", "Float64", "nats", "the difference to a clean copy in the same batch; backward: at the last step"),
    Column("loss_rel", "Float64", "1", "loss_diff over |loss without the fault| (backward: the last)"),
    Column("nonfinite", "Boolean", "", "is a logit, or what the last layer gives anywhere, not finite?"),
    Column("logit_max_abs", "Float64", "", "largest change of a logit at the positions that the loss reads"),
    Column("logit_kl", "Float64", "nats", "KL(clean || faulty) of the predicted distribution, mean over those positions"),
    Column("top1_changed", "Float64", "1", "share of those positions whose most likely token or class is another"),
    Column("outcome", "String", "", "none: loss bit-equal; benign; harmful: above --harm and --harm-floor; nonfinite"),
    Column("{detector}_ratio", "Float64", "1", "largest residual over its limit; above 1 is an alarm (1e308: infinite)"),
    Column("detected", "Boolean", "", "did any detector raise an alarm?"),
    Column("detected_by", "String", "", "those that did, separated by spaces"),
    Column("corrected", "Boolean", "", "was what a recomputation gave accepted? null without an alarm"),
    Column("bounds_violated", "Boolean", "", "is epsilon of some row outside its bounds (--bounds, --epsilon)?"),
    Column("seed", "Int64", "", "seed that drew the element"),
    Column("grad_norm_ratio", "Float64", "1", "backward: norm of the gradient with the fault over that without"),
    Column("grad_rel_error", "Float64", "1", "backward: norm of the gradients' difference over that without"),
    Column("loss_after_{steps}", "Float64", "nats", "backward: loss of the batch after so many steps"),
    Column("clean_after_{steps}", "Float64", "nats", "backward: the same without the fault"),
)  # fmt: skip
ROW = (
    Column("n_keys", "Int32", "", "visible keys of the row; a sink counts as one"),
    Column("epsilon", "Float64", "1", "(a* - sum w a) / s"),
    *(Column(name, "Float64", "1", "bound; see methods") for name in ("lower1", "middle", "upper1", "upper2")),
    Column(
        "margin",
        "Float64",
        "1",
        "how far epsilon is inside its bounds, tolerance included; null: not finite",
    ),
    Column("violated", "Boolean", "", "is the margin negative, or not a number?"),
)

TABLES = (
    Table("trials", 1, "One fault a row: where it struck, what it did, what caught it.", ("fault_id",), TRIALS),
    Table(
        "sequences", 1, "The sequences under test and those that calibrated the detectors.", ("sequence",),
        (
            SEQUENCE,
            Column("part", "String", "", "calibration or trial"),
            Column("tokens", "String", "", "input ids, a JSON list"),
            Column("source_row", "Int64", "", "readable row of the data (from 0) in which it begins"),
            Column("length", "Int32", "tokens", "its length"),
            Column("loss", "Float64", "nats", "loss without a fault"),
        ),
    ),
    Table(
        "summary", 1, "Rates by site, layer and bit; -1: all layers or bits; 'scores:hidden': of keys that are not visible.",
        ("site", "layer", "bit"),
        (
            SITE, LAYER, BIT,
            Column("n", "Int64", "trials", "trials"),
            Column("elements", "Int64", "", "different elements among them; the bits of one element are a cluster"),
            Column("harmful", "Int64", "trials", "trials that are harmful or not finite"),
            Column("harmful_rate", "Float64", "1", "their share"),
            Column("harmful_low", "Float64", "1", "lower end of its 95% interval (Wilson, for clustered trials)"),
            Column("harmful_high", "Float64", "1", "upper end of it"),
            Column("nonfinite", "Int64", "trials", "those that are not finite"),
            Column("caught", "Int64", "trials", "harmful ones that a detector caught"),
            Column("caught_rate", "Float64", "1", "their share of the harmful; null without any"),
            Column("caught_low", "Float64", "1", "lower end of its interval"),
            Column("caught_high", "Float64", "1", "upper end of it"),
            Column("needless", "Int64", "trials", "alarms at faults that did no harm"),
        ),
    ),
    Table(
        "detectors", 1, "What each detector caught, and how often it cried without cause.", ("detector",),
        (
            DETECTOR,
            Column("harmful", "Int64", "trials", "harmful or not finite trials"),
            Column("caught", "Int64", "trials", "those it caught"),
            Column("caught_rate", "Float64", "1", "their share"),
            Column("caught_low", "Float64", "1", "lower end of its interval"),
            Column("caught_high", "Float64", "1", "upper end of it"),
            Column("harmless", "Int64", "trials", "the other trials"),
            Column("needless", "Int64", "trials", "those at which it raised an alarm"),
            Column("clean", "Int64", "", "layers of clean sequences that the calibration did not see"),
            Column("false_positives", "Int64", "", "those at which it raised an alarm"),
            Column("false_positive_high", "Float64", "1", "95% upper bound of their share, layers as independent; 3/n for none"),
            Column("clean_sequences", "Int64", "", "those sequences"),
            Column("flagged_sequences", "Int64", "", "those with an alarm in any layer"),
            Column("flagged_high", "Float64", "1", "95% upper bound of their share"),
        ),
    ),
    Table(
        "bounds", 1, "The softmax bounds: a row a head of every clean sequence, and each fault's row nearest to violation.",
        ("kind", "fault_id", "sequence", "layer", "head", "row"),
        (
            Column("kind", "String", "", "clean or injected"),
            FAULT, SEQUENCE, LAYER, HEAD,
            Column("row", "Int32", "", "query position"),
            *ROW,
            Column("reference", "String", "", "self: bounds of the scores of the same run; golden: of the clean run"),
            Column("method", "String", "", "where epsilon is from: s@w, q@o or comb"),
            Column("margin_clean", "Float64", "1", "injected: the least margin of the rows it reaches, without the fault"),
        ),
    ),
    Table(
        "kv_check", 1, "Are keys and values the same?", ("layer",),
        (
            LAYER,
            Column("kv_equal", "Boolean", "", "are k and v the same, to the dtype's precision, on clean sequences?"),
            Column("k_shape", "String", "", "(kv_head, position, head_dim)"),
            Column("v_shape", "String", "", "(kv_head, position, head_dim)"),
            Column("largest_difference", "Float64", "1", "largest |k - v| over the largest |v|; null for unlike shapes"),
        ),
    ),
    Table(
        "performance", 1, "Times, memory and operations of a batch, over --runs repetitions.", ("metric",),
        (
            Column("metric", "String", "", "what was measured; docs/inject.md lists them"),
            Column("unit", "String", "", "its unit"),
            Column("mean", "Float64", "", "mean over the runs"),
            Column("std", "Float64", "", "standard deviation over the runs; null for one"),
            *(Column(name, "Float64", "", f"{name} over the runs") for name in ("min", "max", "median")),
            Column("runs", "Int64", "", "repetitions; 1 for what does not vary"),
        ),
    ),
)  # fmt: skip
