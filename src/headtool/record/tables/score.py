"""The tables of headtool score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headtool.record.tables.columns import HEAD, KEY, LAYER, Column, Table


@dataclass(frozen=True)
class Score:
    """A number a head, as docs and figures name it."""

    title: str
    unit: str
    doc: str


SCORES: Mapping[str, Score] = {
    "out": Score("output norm", "activation", "mean L2 norm of the head's output at the query"),
    "resid": Score(
        "residual norm", "activation", "mean L2 norm of what the head adds to the residual stream at the query"
    ),
    "ent": Score("negative entropy", "nats", "mean negative entropy of the attention row; higher is more concentrated"),
    "ent_rel": Score(
        "relative negative entropy",
        "1",
        "negative entropy over the log of the number of visible keys: 0 one key, -1 uniform",
    ),
    "task": Score("task attention", "1/token", "mean attention to a token of the task span"),
    "combined": Score(
        "combined ranks, large is high",
        "rank",
        "r(out) + lambda_ent r(ent) + lambda_task r(task), r the rank among the heads",
    ),
    "previous": Score("previous token", "1", "share of attention to the token before, on repeated random tokens"),
    "first": Score("first token", "1", "share of attention to the first token, on repeated random tokens"),
    "duplicate": Score(
        "duplicate token", "1", "share of attention to an earlier copy of the token, on repeated random tokens"
    ),
    "induction": Score(
        "induction", "1", "share of attention to the token after an earlier copy, on repeated random tokens"
    ),
    "ablation": Score("ablation importance I", "nats", "loss without the head minus loss with it, mean over examples"),
    "gradient": Score(
        "gradient importance G", "nats", "mean over examples of the size of the loss gradient of the head's gate"
    ),
    "fisher": Score("Fisher F", "nats^2", "mean over examples of the square of the loss gradient of the head's gate"),
    "update": Score(
        "relative update Urel", "1", "how far fine-tuning moved the head's weights, over their size before"
    ),
}

TAKEN = ("top_k_share", "n")  # columns of importance that mean something else in the joined table


IMPORTANCE = (
    Column("I", "Float64", "nats", "mean over examples of the loss without the head minus the loss with it"),
    Column("I_se", "Float64", "nats", "standard error of I over new examples; null for one example"),
    Column("I_low", "Float64", "nats", "lower end of the 95% interval of I over new examples; null for one example"),
    Column("I_high", "Float64", "nats", "upper end of it"),
    Column("I_data_low", "Float64", "nats", "the same for the exhaustive sweep of these examples: I itself where it was made"),
    Column("I_data_high", "Float64", "nats", "upper end of it"),
    Column("p", "Float64", "1", "p-value of I = 0, two-sided, over new examples; null for one example"),
    Column("differs", "Boolean", "", "does I differ from zero at 5% over all heads together (Holm)"),
    Column("rank", "Int32", "", "rank of I among all heads, 1 the largest"),
    Column("rank_low", "Int32", "", "2.5% of that rank over bootstrap samples of the examples; null for one example"),
    Column("rank_high", "Int32", "", "97.5% of it"),
    Column("top_k_share", "Float64", "1", "share of bootstrap samples with the head among the top k by I; null for one example"),
    Column("loss_base", "Float64", "nats", "mean loss with all heads"),
    Column("loss_ablate", "Float64", "nats", "mean loss without the head: loss_base + I"),
    Column("accuracy_base", "Float64", "1", "share right with all heads: of examples, or of the tokens that are predicted"),
    Column("accuracy_ablate", "Float64", "1", "share right without the head; over the examples swept, where not all were"),
    Column("n", "Int64", "examples", "examples whose loss is known"),
    Column("n_exact", "Int64", "examples", "examples on which the head was ablated"),
)  # fmt: skip
GRADFISHER = (
    Column("G", "Float64", "nats", "mean over examples of |dL/dg|, g the gate that multiplies the head's output"),
    Column("G_se", "Float64", "nats", "standard error of G; null for one example"),
    Column("F", "Float64", "nats^2", "mean over examples of (dL/dg)^2"),
    Column("F_se", "Float64", "nats^2", "standard error of F; null for one example"),
    Column("Ppred", "Float64", "1", "G^2 / (F + eps), eps 1e-6 of the mean of F over heads; 0 where F is 0"),
    Column("first_order", "Float64", "nats", "mean over examples of -dL/dg: I to first order"),
)  # fmt: skip
UPDATE = (
    Column("U", "Float64", "weight", "size of the change of the head's weights: sqrt(Uq^2 + Uk^2 + Uv^2 + Uo^2)"),
    Column("Urel", "Float64", "1", "U over the size of the weights before: U / (|Wq0| + |Wk0| + |Wv0| + |Wo0|)"),
    Column("Uq", "Float64", "weight", "Frobenius norm of the change of the head's rows of W_Q"),
    Column("Uk", "Float64", "weight", "the same for the rows of W_K of its key/value head, which heads of a group share"),
    Column("Uv", "Float64", "weight", "the same for W_V"),
    Column("Uo", "Float64", "weight", "the same for the head's columns of W_O"),
)  # fmt: skip

TABLES = (
    Table(
        "scores_raw", 1, "The scores as measured: mean over examples, its standard error, the examples that count.", KEY,
        (
            LAYER,
            HEAD,
            Column("{score}_raw", "Float64", "see methods", "mean over examples"),
            Column("{score}_se", "Float64", "see methods", "standard error of that mean; null for one example"),
            Column("{score}_n", "Int64", "examples", "examples for which the score is defined"),
        ),
    ),
    Table(
        "scores_norm", 1, "The scores normalised over the heads of each layer (--norm).", KEY,
        (LAYER, HEAD, Column("{score}_norm", "Float64", "1", "z-score, or percentile in (0, 1]")),
    ),
    Table(
        "scores_combined", 1, "The ranks of out, ent and task fused, with what the choice of examples does to them.", KEY,
        (
            LAYER,
            HEAD,
            Column("combined", "Float64", "rank", "r(out) + lambda_ent r(ent) + lambda_task r(task)"),
            Column("combined_low", "Float64", "rank", "2.5% of the bootstrap over examples; null for one example"),
            Column("combined_high", "Float64", "rank", "97.5% of the bootstrap over examples"),
            Column("top_k_share", "Float64", "1", "share of bootstrap samples with the head in the top k; null for one example"),
        ),
    ),
    Table(
        "heads", 1, "All of a run's tables joined on layer and head; kv_head is the key/value head that the head reads.", KEY,
        (
            LAYER,
            HEAD,
            Column("kv_head", "Int32", "", "key/value head of the head"),
            *(Column(name, "Float64", SCORES["combined"].unit, "as in scores_combined")
              for name in ("combined", "combined_low", "combined_high")),
            Column("top_k_share", "Float64", "1", "as in scores_combined"),
            Column("{score}_raw", "Float64", "see methods", "as in scores_raw"),
            Column("{score}_se", "Float64", "see methods", "as in scores_raw"),
            Column("{score}_n", "Int64", "examples", "as in scores_raw"),
            Column("{score}_norm", "Float64", "1", "as in scores_norm"),
            *(Column(c.name, c.kind, c.unit, "as in importance") for c in IMPORTANCE if c.name not in TAKEN),
            *(Column(c.name, c.kind, c.unit, "as in gradfisher") for c in GRADFISHER),
            *(Column(c.name, c.kind, c.unit, "as in update") for c in UPDATE),
        ),
    ),
    Table(
        "importance", 1, "How much the loss rises without each head (ablation), and how sure that is.", KEY,
        (LAYER, HEAD, *IMPORTANCE),
    ),
    Table(
        "losses", 1, "The loss of every example without each head; layer and head are -1 for the loss with all heads.",
        ("layer", "head", "example"),
        (
            LAYER,
            HEAD,
            Column("example", "Int64", "", "number of the row among the readable rows of the data, from 0"),
            Column("loss", "Float32", "nats", "mean cross-entropy over the example's predicted tokens, or of its label"),
            Column("right", "Float32", "1", "1 right, 0 wrong; the share of right tokens where several are predicted"),
        ),
    ),
    Table(
        "gradfisher", 1, "Gradients of the loss by each head's gate, example by example.", KEY,
        (LAYER, HEAD, *GRADFISHER, Column("n", "Int64", "examples", "examples whose loss is known")),
    ),
    Table(
        "update", 1, "How far each head's weights moved between two checkpoints.", KEY, (LAYER, HEAD, *UPDATE),
    ),
)  # fmt: skip
