"""Which passes over which examples a run of scores is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headtool import options as opt
from headtool.errors import HeadtoolError
from headtool.models.batches import Examples
from headtool.scores import idle, measure, tally
from headtool.scores.ablation import Ablation, bytes_of, rows_of
from headtool.scores.gradient import FirstOrder, Gradient
from headtool.tasks import labels, load
from headtool.tasks.example import Markers
from headtool.tasks.targets import TOLD, Targets, loss_of

if TYPE_CHECKING:
    from headtool.models.adapter import Adapter
    from headtool.record.run import Run

ON_ROWS = ("output", "rows")  # what forward scores need of the data
LOSSES = ("ablation", "gradient")  # what needs a loss
BACKWARD = 8_000_000_000  # bytes that a batch's backward pass may keep, about


class Pass(Protocol):
    """A piece of a run: groups of work, each of which leaves a part, and what the parts come to."""

    @property
    def name(self) -> str: ...
    @property
    def phase(self) -> str: ...
    @property
    def examples(self) -> Examples: ...
    @property
    def batches(self) -> Sequence[Any]: ...
    @property
    def groups(self) -> Sequence[Any]: ...
    def part(self, group: int) -> str: ...
    def work(self, adapter: Adapter, group: int, parts: Path) -> dict[str, int]: ...
    def merge(self, parts: Path) -> Any: ...


@dataclass
class Plan:
    """The passes of a run, and what the manifest says of the data."""

    passes: list[Pass] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    swept: Ablation | None = None  # the ablation sweep: one of the passes, or with first made in rounds after them
    first: FirstOrder | None = None


def choose(run: Run, names: Sequence[str], causal: bool, ask: SimpleNamespace) -> load.Chosen | None:
    """The rows that --data and --task name; None where no score needs any."""
    if not any(need in (*ON_ROWS, *LOSSES) for need in idle.needs(names).values()):
        return None
    if ask.data is None and ask.task is None:
        run.console.note("neither --data nor --task: the built-in task 'demo'")
    subset = opt.number_or("all", ask.subset, "--subset")
    chosen = load.choose(
        data=ask.data, task=ask.task, encoder=not causal, fields=ask.field or (),
        markers=Markers(ask.question_marker, ask.choices_marker), limit=ask.limit, subset=subset, subset_seed=ask.subset_seed,
    )  # fmt: skip
    for note in chosen.notes:
        run.console.note(note)
    return chosen


def build(run: Run, adapter: Adapter, names: Sequence[str], chosen: load.Chosen | None, ask: SimpleNamespace) -> Plan:
    """The passes over the data for forward scores, ablation and gradients, and over repeated tokens for patterns."""
    plan, by_need = Plan(), idle.needs(names)
    on_data = [name for name, need in by_need.items() if need in ON_ROWS]
    on_repeats = tuple(name for name, need in by_need.items() if need == "repeats")
    size = opt.number_or("auto", ask.batch_size, "--batch-size")
    if chosen is not None:
        longest = min(ask.max_length, adapter.longest)
        plan.facts = {
            "name": chosen.name, "shape": chosen.shape.NAMES[0], "rows": chosen.readable, "max_length": longest,
            "subset": chosen.kept.tolist(),
        }  # fmt: skip
    if chosen is not None and on_data:
        plan.passes.append(_forward(run, adapter, on_data, chosen, ask, plan.facts))
    if "first" in on_repeats and ask.exclude_bos:
        run.console.warn("'first' is 0 for every head: --exclude-bos takes the first token out of the rows")
    if on_repeats:
        plan.passes.append(measure.repeats_pass(adapter, on_repeats, size, ask.exclude_bos, ask.seed))
    if chosen is not None and set(LOSSES) & set(by_need.values()):
        examples = _with_targets(run, adapter, chosen, ask, plan.facts)
        if "ablation" in by_need.values():
            longest = int(examples.lengths.max())
            budget = rows_of(adapter, opt.memory(ask.memory), longest)
            if budget < longest:
                what = f"--memory {ask.memory} is less than a pass over the longest sequence is reckoned to take"
                run.console.warn(f"{what}: one head at a time there")
            plan.swept = Ablation(adapter, examples, ask.ablate, budget, ask.seed)
            if ask.ablate_error is None and ask.ablate_budget is None:
                plan.passes.append(plan.swept)
            else:
                plan.first = FirstOrder(examples, _backward(adapter, examples, size), plan.swept.reference)
                plan.passes.append(plan.first)
        if "gradient" in by_need.values():
            plan.passes.append(Gradient(examples, _backward(adapter, examples, size)))
    if not plan.passes and "weights" not in by_need.values():
        hint = "name others with --scores, or the span with --question-marker"
        raise HeadtoolError("no score is left to measure", hint=hint)
    return plan


def _forward(
    run: Run, adapter: Adapter, names: list[str], chosen: load.Chosen, ask: SimpleNamespace, facts: dict[str, Any]
) -> Pass:
    """The pass of the forward scores on data."""
    console = run.console
    encodings = load.encode(chosen.examples(), adapter.tokenizer, facts["max_length"])
    examples = _checked(run, adapter, Examples(encodings, pad=adapter.pad, types=adapter.has_types), ask, facts)
    if "task" in names:
        if chosen.shape.SPANS or chosen.markers != Markers():
            if not examples.with_span:
                raise load.no_span(chosen.name, cut=examples.cut == len(examples))
            console.note(f"the task span was found in {examples.with_span} of {len(examples)} examples")
        else:
            names = [name for name in names if name != "task"]
            also = ", and its term in 'combined'" if "combined" in ask.scores else ""
            console.warn(f"rows of {chosen.name} have no task span: 'task' is left out{also}")
    if not names:
        hint = "name others with --scores, or the span with --question-marker"
        raise HeadtoolError("no score is left to measure", hint=hint)
    query: tally.Query = ask.query if ask.query != "auto" else "last" if adapter.layout.causal else "first"
    if query == "first" and adapter.layout.causal and set(names) - {"out", "resid"}:
        run.console.warn(
            "--query first: a decoder's first position sees itself alone, whatever its attention would choose"
        )
    size = opt.number_or("auto", ask.batch_size, "--batch-size")
    facts |= {
        "examples": len(examples), "with_span": examples.with_span, "tokens": examples.tokens, "query": query,
    }  # fmt: skip
    batches = examples.plan(size, measure.tokens_a_batch(adapter))
    return measure.Pass("data", examples, batches, tuple(names), query, ask.exclude_bos, ask.seed)


def _backward(adapter: Adapter, examples: Examples, size: int | None) -> list[np.ndarray]:
    """The batches of a backward pass, which holds what every layer computed."""
    each = adapter.geometry.layers * bytes_of(adapter, int(examples.lengths.max()))
    return examples.plan(size, min(measure.tokens_a_batch(adapter) // 2, max(1, BACKWARD // each)))


def _with_targets(
    run: Run, adapter: Adapter, chosen: load.Chosen, ask: SimpleNamespace, facts: dict[str, Any]
) -> Examples:
    """The examples with what their loss expects."""
    answered = next((example.answer is not None for example in chosen.examples()), False)
    loss = loss_of(adapter.kind, answered)
    classes = None
    if loss == "label":
        names = [str(name) for _, name in sorted(adapter.model.config.id2label.items())]
        classes = labels.numbers(labels.read(chosen), names)
    targets = Targets(chosen.examples(), adapter.tokenizer, facts["max_length"], loss, seed=ask.seed, classes=classes)
    examples = Examples(targets, pad=adapter.pad, types=adapter.has_types)
    run.console.note(f"the loss is {TOLD[loss]}")
    if targets.left_out:
        run.console.note(f"{targets.left_out} examples are too short to have a loss, and are left out of it")
    if not len(examples):
        raise HeadtoolError(f"{chosen.name}: no example has a loss", hint="longer texts, or a larger --max-length")
    examples = _checked(run, adapter, examples, ask, facts)
    facts |= {"loss": loss, "loss_examples": len(examples), "loss_tokens": examples.tokens}
    facts["loss_rows"] = chosen.kept[targets.used].tolist()
    facts.setdefault("examples", len(examples))
    facts.setdefault("tokens", examples.tokens)
    return examples


def _checked(run: Run, adapter: Adapter, examples: Examples, ask: SimpleNamespace, facts: dict[str, Any]) -> Examples:
    """Examples that the model can read; what was cut is said once."""
    if examples.cut and "cut" not in facts:
        facts["cut"], longest = examples.cut, facts["max_length"]
        why = "--max-length" if longest == ask.max_length else "all that the model has room for"
        run.console.note(f"{examples.cut} of {len(examples)} examples are cut to {longest} tokens ({why})")
    if examples.largest >= adapter.vocabulary:
        hint = "the tokenizer is another model's"
        raise HeadtoolError(
            f"the tokenizer gives token {examples.largest}, the model knows {adapter.vocabulary}", hint=hint
        )
    return examples
