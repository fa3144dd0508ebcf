"""The GLUE tasks by name, from the hub: where their rows are, and what their classes are called."""

from __future__ import annotations

NAMES = ("mnli", "qnli", "rte", "wnli", "mrpc", "qqp", "stsb", "sst2", "cola")
REPOSITORY = "nyu-mll/glue"
# In the order of the class numbers in the rows. stsb has none: its label is a number from 0 to 5.
CLASSES = {
    "mnli": ("entailment", "neutral", "contradiction"),
    "qnli": ("entailment", "not_entailment"),
    "rte": ("entailment", "not_entailment"),
    "wnli": ("not_entailment", "entailment"),
    "mrpc": ("not_equivalent", "equivalent"),
    "qqp": ("not_duplicate", "duplicate"),
    "sst2": ("negative", "positive"),
    "cola": ("unacceptable", "acceptable"),
}


def source(name: str, training: bool = False) -> str:
    """Where a task's rows are: a hub data set, its configuration and split, as --data takes it."""
    split = "train" if training else "validation_matched" if name == "mnli" else "validation"
    return f"{REPOSITORY}:{name}:{split}"
