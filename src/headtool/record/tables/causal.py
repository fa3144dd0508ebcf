"""The tables of headtool causal-train."""

from __future__ import annotations

from headtool.record.tables.columns import Column, Table

CONFIG = Column(
    "config",
    "String",
    "",
    "the configuration: docs/causal-train.md; median and softmax_l1 are the baselines",
)
DATASET = Column("dataset", "String", "", "the evaluation set")
TABLES = (
    Table(
        "results", 1, "What every configuration came to on every evaluation set.", ("config", "dataset", "metric"),
        (
            CONFIG,
            DATASET,
            Column("metric", "String", "", "its name in docs/methods.md"),
            Column("value", "Float64", "see methods", "null where it is not defined, as an error over no number"),
        ),
    ),
    Table(
        "causal.training", 1, "The course of each configuration, each row over the steps since the last.",
        ("config", "step"),
        (
            CONFIG,
            Column("step", "Int64", "", "optimiser steps done"),
            Column("epoch", "Float64", "", "passes over the training rows done"),
            Column("loss", "Float64", "nats", "mean total loss, loss_cls + lambda loss_reg"),
            Column("loss_cls", "Float64", "nats", "mean loss of tokens"),
            Column("loss_reg", "Float64", "nats", "mean gated loss of numbers; of softmax_l1 the absolute error in units"),
            Column("loc_u", "Float64", "1", "mean absolute loc of U"),
            Column("scale_u", "Float64", "1", "mean scale of U, noise included"),
            Column("sum_p", "Float64", "1", "mean over some positions of the sum of P over the vocabulary; 1 is a distribution"),
            Column("accuracy_ovr", "Float64", "1", "share of some positions whose token has the largest P"),
            Column("accuracy_softmax", "Float64", "1", "share of some positions whose token has the largest loc"),
            Column("learning_rate", "Float64", "1", "learning rate of the step"),
            Column("grad_norm", "Float64", "nats", "norm of the step's gradient before it is clipped"),
        ),
    ),
    Table(
        "predictions", 1, "Every number of the evaluation sets and what was said of it.",
        ("config", "dataset", "example", "position"),
        (
            CONFIG,
            DATASET,
            Column("example", "Int64", "", "row among those of the set, from 0"),
            Column("position", "Int64", "", "token of the row, from 0"),
            Column("value", "Float64", "", "the number that stands there"),
            Column("median", "Float64", "", "the number predicted"),
            Column("low", "Float64", "", "lower end of the 95% interval"),
            Column("high", "Float64", "", "upper end of it"),
            Column("scale", "Float64", "", "scale (Cauchy) or standard deviation (normal); null for the baselines"),
            Column("p_number", "Float64", "1", "probability that the token is a number"),
            Column("answered", "Boolean", "", "is a number the most likely token there"),
        ),
    ),
)  # fmt: skip
