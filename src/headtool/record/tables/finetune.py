"""The tables of headtool finetune."""

from __future__ import annotations

from headtool.record.tables.columns import Column, Table

STEP = Column("step", "Int64", "", "optimiser steps done")
EPOCH = Column("epoch", "Float64", "", "passes over the training rows done")
TABLES = (
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
)  # fmt: skip
