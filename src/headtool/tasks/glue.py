"""The GLUE tasks by name, from the hub: their validation rows."""

from __future__ import annotations

NAMES = ("mnli", "qnli", "rte", "wnli", "mrpc", "qqp", "stsb", "sst2", "cola")
REPOSITORY = "nyu-mll/glue"


def source(name: str) -> str:
    """Where a task's rows are: a hub data set, its configuration and split, as --data takes it."""
    return f"{REPOSITORY}:{name}:{'validation_matched' if name == 'mnli' else 'validation'}"
