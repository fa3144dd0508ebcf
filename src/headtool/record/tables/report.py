"""The tables of headtool report."""

from __future__ import annotations

from headtool.record.tables.columns import HEAD, KEY, LAYER, Column, Table
from headtool.record.tables.score import UPDATE

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


TABLES = (
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
)  # fmt: skip
