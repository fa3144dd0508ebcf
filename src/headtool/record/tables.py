"""Every table headtool writes: name, version, columns with unit and meaning, key. The only schema definition.

docs/tables.md is generated from here. Layers and heads count from 0; what is missing is null, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Column:
    """A column. A name with {score} stands for one column a score that was asked for."""

    name: str
    kind: str  # a Polars type
    unit: str
    doc: str


@dataclass(frozen=True)
class Table:
    """A table: the order of its columns, and the key that its rows are sorted by."""

    name: str
    version: int
    doc: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    def resolve(self, scores: Iterable[str]) -> tuple[Column, ...]:
        """The columns for the scores of a run: {score} filled in."""
        resolved: list[Column] = []
        names = list(scores)
        templated = [column for column in self.columns if "{score}" in column.name]
        for column in self.columns:
            if column not in templated:
                resolved.append(column)
        for score in names:
            for column in templated:
                resolved.append(Column(column.name.format(score=score), column.kind, column.unit, column.doc))
        return tuple(resolved)


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
        "combined rank", "rank", "r(out) + lambda_ent r(ent) + lambda_task r(task), r the rank among the heads"
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

LAYER = Column("layer", "Int32", "", "layer, from 0")
HEAD = Column("head", "Int32", "", "query head, from 0")
KEY = ("layer", "head")
STEP = Column("step", "Int64", "", "optimiser steps done")
EPOCH = Column("epoch", "Float64", "", "passes over the training rows done")
TAKEN = ("top_k_share", "n")  # columns of importance that mean something else in the joined table

IMPORTANCE = (
    Column("I", "Float64", "nats", "mean over examples of the loss without the head minus the loss with it"),
    Column("I_se", "Float64", "nats", "standard error of I over new examples; null for one example"),
    Column("I_low", "Float64", "nats", "lower end of the 95% interval of I over new examples of the same source"),
    Column("I_high", "Float64", "nats", "upper end of it"),
    Column("I_data_low", "Float64", "nats", "the same for the exhaustive sweep of these examples: I itself where it was made"),
    Column("I_data_high", "Float64", "nats", "upper end of it"),
    Column("p", "Float64", "1", "p-value of I = 0, two-sided, over new examples; null for one example"),
    Column("differs", "Boolean", "", "does I differ from zero at 5% over all heads together (Holm)"),
    Column("rank", "Int32", "", "rank of I among all heads, 1 the largest"),
    Column("rank_low", "Int32", "", "2.5% of that rank over bootstrap samples of the examples"),
    Column("rank_high", "Int32", "", "97.5% of it"),
    Column("top_k_share", "Float64", "1", "share of bootstrap samples in which the head is among the top k by I"),
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
    Column("U", "Float64", "weight", "sqrt(Uq^2 + Uk^2 + Uv^2 + Uo^2)"),
    Column("Urel", "Float64", "1", "U / (|Wq0| + |Wk0| + |Wv0| + |Wo0|)"),
    Column("Uq", "Float64", "weight", "Frobenius norm of the change of the head's rows of W_Q"),
    Column("Uk", "Float64", "weight", "the same for the rows of W_K of its key/value head, which heads of a group share"),
    Column("Uv", "Float64", "weight", "the same for W_V"),
    Column("Uo", "Float64", "weight", "the same for the head's columns of W_O"),
)  # fmt: skip
PRE_POST = ("the model before fine-tuning (or the only one)", "the model after it")
REPORT = (
    *(Column(f"I_{when}", "Float64", "nats", f"ablation importance I of {model}")
      for when, model in zip(("pre", "post"), PRE_POST, strict=True)),
    *(Column(c.name, c.kind, c.unit, "as in update") for c in UPDATE[:2]),
    *(Column(name, "Float64", unit, "as in gradfisher, of the model before fine-tuning (or the only one)")
      for name, unit in (("G", "nats"), ("F", "nats^2"), ("Ppred", "1"))),
    *(Column(c.name, c.kind, c.unit, "as in update") for c in UPDATE[2:]),
    *(Column(f"{name}_post", "Float64", unit, "as in gradfisher, of the model after fine-tuning")
      for name, unit in (("G", "nats"), ("F", "nats^2"), ("Ppred", "1"))),
    *(Column(f"I_{when}_{name}", kind, unit, f"{name} of importance, of {model}")
      for when, model in zip(("pre", "post"), PRE_POST, strict=True)
      for name, kind, unit in (("low", "Float64", "nats"), ("high", "Float64", "nats"), ("differs", "Boolean", ""),
                               ("rank_low", "Int32", ""), ("rank_high", "Int32", ""), ("top_k_share", "Float64", "1"))),
    *(Column(f"{name}_sd", "Float64", unit, f"standard deviation of {name} over the seeds; where there are several")
      for name, unit in (("I_pre", "nats"), ("I_post", "nats"), ("U", "weight"), ("Urel", "1"))),
    Column("{score}", "Float64", "see methods", "the score of the model before fine-tuning (or the only one)"),
    Column("{score}_post", "Float64", "see methods", "the score of the model after fine-tuning"),
)  # fmt: skip
LABEL = Column("label", "String", "", "label of --compare; 'all' without it")
SEED = Column("seed", "Int64", "", "seed of the runs joined")

TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
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
                Column("combined_low", "Float64", "rank", "2.5% of the bootstrap over examples"),
                Column("combined_high", "Float64", "rank", "97.5% of the bootstrap over examples"),
                Column("top_k_share", "Float64", "1", "share of bootstrap samples in which the head is among the top k"),
            ),
        ),
        Table(
            "heads", 1, "All of a run's tables joined on layer and head; kv_head is the key/value head that the head reads.", KEY,
            (
                LAYER,
                HEAD,
                Column("kv_head", "Int32", "", "key/value head of the head"),
                *(Column(name, "Float64", SCORES["combined"].unit, "as in scores_combined")
                  for name in ("combined", "combined_low", "combined_high", "top_k_share")),
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
            "importance", 1, "What the loss loses without each head (ablation), and how sure that is.", KEY,
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
        Table(
            "report", 1, "What `headtool report` joins, seed by seed; `heads.csv` has the means where there are several seeds.",
            ("label", "seed", *KEY),
            (LABEL, SEED, LAYER, HEAD, *REPORT),
        ),
        Table(
            "statistics", 1, "The statistics of `headtool report`.", ("label", "seed", "statistic"),
            (
                LABEL,
                Column("seed", "Int64", "", "seed of the runs joined; null for the mean over the seeds"),
                Column("statistic", "String", "", "its name in stats.json"),
                Column("value", "Float64", "1", "Spearman's rho, or the share of the top k that two columns have in common"),
                Column("n", "Int64", "heads", "heads for which both columns are known"),
                Column("chance", "Float64", "1", "what independent columns give on average: 0 for rho, k/n for overlap"),
                Column("p", "Float64", "1", "p-value of independence: two-sided for rho, upper tail for overlap"),
                Column("ci_low", "Float64", "1", "2.5% of the bootstrap over heads"),
                Column("ci_high", "Float64", "1", "97.5% of it"),
            ),
        ),
        Table(
            "training", 1, "The course of a fine-tuning: about 500 rows at most, each over the steps since the last.", ("step",),
            (
                STEP,
                EPOCH,
                Column("loss", "Float64", "nats", "mean training loss of the steps since the row before, dropout on"),
                Column("learning_rate", "Float64", "1", "learning rate of the step"),
                Column("grad_norm", "Float64", "nats", "norm of the step's gradient before it is clipped"),
            ),
        ),
        Table(
            "evaluation", 1, "A classifier on the evaluation rows: before training (step 0) and after each epoch.", ("step",),
            (
                STEP,
                EPOCH,
                Column("loss", "Float64", "nats", "mean cross-entropy of the labels, dropout off"),
                Column("loss_se", "Float64", "nats", "standard error of that mean; null for one example"),
                Column("accuracy", "Float64", "1", "share of examples whose label has the largest logit"),
                Column("accuracy_se", "Float64", "1", "standard error of that share; null for one example"),
                Column("f1_macro", "Float64", "1", "mean over the classes that occur of the F1 of each"),
                Column("matthews", "Float64", "1", "Matthews correlation of labels and answers; 0 where either is constant"),
                Column("n", "Int64", "examples", "evaluation examples"),
            ),
        ),
    )
}  # fmt: skip


def build(name: str, columns: Mapping[str, Sequence[Any]], scores: Iterable[str] = ()) -> pl.DataFrame:
    """A frame of the named table from whole columns, in the schema's order, sorted by its key.

    Columns that are not given are left out, except those of the key. Raises ValueError for a column that the
    schema does not know, for NaN or infinity (missing is None), and for columns of unequal length.
    """
    import polars as pl

    table = TABLES[name]
    schema = {column.name: getattr(pl, column.kind)() for column in table.resolve(scores)}
    stray = set(columns) - set(schema)
    if stray:
        raise ValueError(f"table {name} has no column {sorted(stray)}")
    missing = set(table.key) - set(columns)
    if missing:
        raise ValueError(f"table {name} needs the columns {sorted(missing)}")
    for column, values in columns.items():
        if any(isinstance(value, float) and not math.isfinite(value) for value in values):
            raise ValueError(f"table {name}, column {column}: NaN or infinity; missing values are None")
    kept = {column: kind for column, kind in schema.items() if column in columns}
    return pl.DataFrame({column: list(columns[column]) for column in kept}, schema=kept, strict=True).sort(table.key)
