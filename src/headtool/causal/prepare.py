"""What a causal training needs before its first step: rows as tokens, the settings, the plan."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from headtool import options as opt
from headtool.causal import sources
from headtool.causal.course import Data
from headtool.causal.rows import Rows
from headtool.causal.settings import Settings
from headtool.causal.tokens import NumberTokenizer, median_and_spread
from headtool.errors import HeadtoolError

if TYPE_CHECKING:
    from headtool.causal.sources import Sources
    from headtool.models.adapter import Adapter
    from headtool.record.run import Run
    from headtool.training.loop import Recipe


def read(
    run: Run, adapter: Adapter, reader: NumberTokenizer, sides: Sources, ask: SimpleNamespace
) -> tuple[Data, Settings]:
    """Both sides of the data as tokens, and the settings, regression units included.

    Raises HeadtoolError for rows without a number.
    """
    subset = opt.number_or("all", ask.subset, "--subset")
    found = sources.read(
        sides, limit=ask.limit, subset=subset, subset_seed=ask.subset_seed, seed=ask.seed, made=ask.examples
    )
    if (ask.negatives or 0) > adapter.vocabulary:
        hint = "leave it out: all of them are negatives"
        raise HeadtoolError(f"--negatives {ask.negatives}: the model knows {adapter.vocabulary} tokens", hint=hint)
    longest = min(ask.max_length, adapter.longest)
    train = Rows(found.train, reader, longest, adapter.pad)
    evaluation = {name: Rows(rows, reader, longest, adapter.pad) for name, rows in found.evaluation.items()}
    for note in found.notes:
        run.console.note(note)
    for name, rows in {"training": train, **evaluation}.items():
        if rows.cut:
            run.console.note(f"{name}: {rows.cut} of {len(rows)} rows are cut to {longest} tokens")
        if rows.spoilt:
            run.console.warn(f"{name}: {rows.spoilt} rows hold the token {reader.token} and are left out")
    for name, rows in {"the training rows": train, **evaluation}.items():
        if not len(rows.targets):
            raise HeadtoolError(
                f"there is no number in {name}",
                hint="name the field of a number with --value-field, or give texts with numbers",
            )
    centre, unit = median_and_spread(train.targets) if ask.standardize else (0.0, 1.0)
    settings = Settings(
        head=ask.head, distribution=ask.distribution, causal_dim=ask.causal_dim, threshold=ask.threshold,
        reg_weight=ask.reg_weight, gate_alpha=ask.gate_alpha, gamma0=ask.gamma0, b_noise=ask.b_noise,
        number_encoding=ask.number_encoding, ovr_reduction=ask.ovr_reduction, negatives=ask.negatives,
        centre=centre, unit=unit,
    )  # fmt: skip
    evaluated = {name: _facts(rows) for name, rows in evaluation.items()}
    run.manifest["data"] = {"centre": centre, "unit": unit, "train": _facts(train), "eval": evaluated}
    return Data(train, evaluation, reader), settings


def _facts(rows: Rows) -> dict[str, int]:
    return {"examples": len(rows), "tokens": rows.tokens, "numbers": len(rows.targets), "cut": rows.cut}


def plan(run: Run, adapter: Adapter, data: Data, configurations: Any, recipe: Recipe) -> dict[str, Any]:
    """What the run would do."""
    _, steps = recipe.steps(len(data.train))
    weights = adapter.parameters * adapter.dtype.itemsize
    widest = recipe.batch_size * int(data.train.lengths.max())
    activations = widest * adapter.geometry.width * adapter.geometry.layers * 34 * adapter.dtype.itemsize // 2
    return {
        "configurations": list(configurations), "steps": steps * len(configurations),
        "train_examples": len(data.train), "eval_examples": {name: len(rows) for name, rows in data.evaluation.items()},
        "tokens": round(data.train.tokens * recipe.epochs) * len(configurations), "parameters": adapter.parameters,
        "model_bytes": weights, "memory_bytes": 4 * weights + activations,
    }  # fmt: skip
