"""Trials on one sequence: faults injected where they stand, what they do to the loss, and which detectors see them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import torch

from headtool.faults import bounds, compare, guard
from headtool.faults.bits import INTEGERS, stored
from headtool.faults.fault import BY_KEY, Fault, check_index, editing
from headtool.models import sites
from headtool.models.batches import Batch
from headtool.models.sites import Sites
from headtool.models.suffix import Suffix

if TYPE_CHECKING:
    from headtool.models.adapter import Adapter

OUTCOMES = ("none", "benign", "harmful", "nonfinite")
ROWS = {"cpu": 4608}  # positions in a resumed pass, those of all variants together
ROWS_GPU = 32768


@dataclass(frozen=True)
class Setup:
    """What the trials of a run share."""

    adapter: Adapter
    cut: bool  # may positions before a fault be left out?
    detectors: Mapping[str, ModuleType]
    limits: guard.Limits
    reference: Literal["self", "golden", "none"] = "self"  # of the softmax bounds
    method: str = "s@w"
    tolerance: float | None = None
    permanent: bool = False

    @property
    def rows(self) -> int:
        return ROWS.get(self.adapter.runs_on.type, ROWS_GPU)


@dataclass
class Result:
    """What one fault did. ratios: the largest residual over its limit, a detector; bound: see headtool.faults.bounds."""

    fault: Fault
    masked: bool
    before: tuple[int, float]  # bits, value
    after: tuple[int, float]
    loss_base: float
    loss_diff: float = 0.0
    nonfinite: bool = False
    logit_max_abs: float = 0.0
    logit_kl: float = 0.0
    top1_changed: float = 0.0  # share of the positions read
    ratios: dict[str, float] | None = None
    corrected: bool | None = None  # is what a recomputation gives accepted? None where nothing was seen
    bound: dict[str, float] | None = None


@dataclass
class _Struck:
    """Faults at one site for the same heads and rows, struck together: what their copies of the layer put out."""

    results: list[Result]
    heads: range
    rows: range
    out: torch.Tensor  # (variant, head, row, head_dim)
    changed: torch.Tensor  # the same shape, bool: is it not, bit for bit, what it is without the fault?


def run(setup: Setup, recorded: Suffix, faults: Sequence[Fault]) -> list[Result]:
    """The results of faults in one layer of one sequence, in their order."""
    for fault in faults:
        check_index(fault, setup.adapter.geometry, recorded.length)
    base = base_loss(setup, recorded)
    struck = [_strike(setup, recorded, some, base) for some in _alike(setup, recorded, faults)]
    _follow(setup, recorded, struck)
    by_fault = {id(result.fault): result for group in struck for result in group.results}
    return [by_fault[id(fault)] for fault in faults]


def base_loss(setup: Setup, recorded: Suffix) -> float:
    """The loss of the clean sequence in nats, the mean over the positions read, in float64."""
    return float(compare.each_loss(setup.adapter, recorded.batch, recorded.output).mean())


def _alike(setup: Setup, recorded: Suffix, faults: Sequence[Fault]) -> Iterator[list[Fault]]:
    """Faults that can be struck together: one site, the same heads and rows."""
    g, causal = setup.adapter.geometry, setup.adapter.layout.causal

    def key(fault: Fault) -> tuple[Any, ...]:
        return fault.site, fault.heads(g).start, fault.rows(recorded.length, causal).start

    for _, some in itertools.groupby(sorted(faults, key=key), key=key):
        yield list(some)


def _strike(setup: Setup, recorded: Suffix, faults: list[Fault], base: float) -> _Struck:
    adapter, one = setup.adapter, faults[0]
    g = adapter.geometry
    heads, rows = one.heads(g), one.rows(recorded.length, adapter.layout.causal)
    copies: list[Fault | None] = [None, *faults]
    if adapter.layout.interface:
        kv_heads = range(heads.start // g.group, (heads.stop - 1) // g.group + 1)
        call = recorded.part(one.layer, heads, rows, len(copies))
        seen, residuals = guard.guarded(call, setup.detectors, editing(copies, heads, kv_heads, rows))
        inner = seen
    else:
        every = editing(copies, range(g.heads), range(g.heads), range(recorded.length))
        seen = recorded.own(one.layer, len(copies), every)
        residuals = guard.found(setup.detectors, seen, {})
        inner = _within(seen, heads, rows)
        kv_heads = heads
    patterns = inner.out.contiguous().view(INTEGERS[inner.out.element_size()])
    results = []
    ratios = {name: setup.limits.ratio(name, one.layer, found).tolist() for name, found in residuals.items()}
    bound = _bounds(setup, inner, heads, rows)
    site = getattr(inner, one.site)
    for copy, fault in enumerate(faults, 1):
        head = fault.head - (kv_heads.start if fault.site in ("k", "v") else heads.start)
        row = fault.row - (0 if fault.site in ("k", "v") else rows.start)
        ratio = {name: values[copy] for name, values in ratios.items()}
        caught = any(value > 1 for value in ratio.values())
        clean = all(values[0] <= 1 for values in ratios.values())
        results.append(
            Result(
                fault,
                masked=fault.site in BY_KEY and not bool(inner.visible[0, 0, row, fault.column]),
                before=stored(site[0, head, row, fault.column]),
                after=stored(site[copy, head, row, fault.column]),
                loss_base=base,
                ratios=ratio,
                corrected=(clean and not setup.permanent) if caught else None,
                bound=None if bound is None else {name: values[copy] for name, values in bound.items()},
            )
        )
    return _Struck(results, heads, rows, inner.out[1:], (patterns != patterns[:1])[1:])


def _within(seen: Sites, heads: range, rows: range) -> Sites:
    """The same sites for some heads and query rows (every head its own key and value)."""
    some, at = slice(heads.start, heads.stop), slice(rows.start, rows.stop)
    return replace(
        seen, q=seen.q[:, some, at], k=seen.k[:, some], v=seen.v[:, some], scores=seen.scores[:, some, at],
        weights=seen.weights[:, some, at], out=seen.out[:, some, at], visible=seen.visible[:, :, at],
    )  # fmt: skip


def _bounds(setup: Setup, seen: Sites, heads: range, rows: range) -> dict[str, list[float]] | None:
    """Of each copy, the bounds at the row where epsilon is nearest to, or farthest outside, of them."""
    if setup.reference == "none":
        return None
    golden = None
    if setup.reference == "golden":
        golden = replace(seen, scores=seen.scores[:1])
    found = bounds.of_sites(seen, setup.method, golden, setup.tolerance)
    margin = found.margin.nan_to_num(nan=torch.inf, neginf=-torch.inf).flatten(1)
    at = margin.argmin(1, keepdim=True)
    count = found.margin.shape[2]
    columns = {"row": (at[:, 0] % count + rows.start).tolist(), "head": (at[:, 0] // count + heads.start).tolist()}
    for name in ("n", "epsilon", "lower1", "middle", "upper1", "upper2", "margin"):
        values = getattr(found, name).expand_as(found.margin).flatten(1)
        columns[name] = values.gather(1, at)[:, 0].tolist()
    columns["margin_clean"] = [float(margin[0].min())] * len(margin)
    return columns


def _follow(setup: Setup, recorded: Suffix, struck: list[_Struck]) -> None:
    """Run the model on from what the layer puts out, where it is not what it was; fill the results in."""
    adapter = setup.adapter
    causal = adapter.layout.causal
    layer = struck[0].results[0].fault.layer
    clean = recorded.clean.heads[layer].unflatten(-1, (adapter.geometry.heads, adapter.geometry.head_dim))
    alive: list[tuple[_Struck, int]] = [
        (group, i) for group in struck for i in range(len(group.results)) if bool(group.changed[i].any())
    ]
    alive.sort(key=lambda each: each[0].rows.start)
    positions = len(recorded.read)
    done = 0
    while done < len(alive):
        start = alive[done][0].rows.start if causal and recorded.cut else 0
        most = max(2, setup.rows // (recorded.length - start)) - 1
        some = alive[done : done + most]
        done += len(some)
        rows = range(min(g.rows.start for g, _ in some), max(g.rows.stop for g, _ in some))
        z = clean[:, rows.start : rows.stop].repeat(len(some) + 1, 1, 1, 1)
        for variant, (group, i) in enumerate(some, 1):
            inside = slice(group.rows.start - rows.start, group.rows.stop - rows.start)
            part = z[variant, inside, group.heads.start : group.heads.stop].transpose(0, 1)  # (head, row, head_dim)
            part.copy_(torch.where(group.changed[i], group.out[i], part))
        output, batch = recorded.resume(layer, z.flatten(-2), rows)
        found = compare.change(adapter, batch, output)
        for variant, (group, i) in enumerate(some):
            result = group.results[i]
            loss = float(found.loss[variant])
            result.nonfinite = not bool(found.finite[variant]) or loss != loss or abs(loss) == float("inf")
            result.loss_diff = loss / positions
            result.logit_max_abs = float(found.logit[variant])
            result.logit_kl = float(found.kl[variant]) / positions
            result.top1_changed = float(found.top1[variant]) / positions


@torch.inference_mode()
def plain(adapter: Adapter, batch: Batch, fault: Fault) -> tuple[float, float]:
    """(loss without the fault, with it) in nats, the naive way: the whole model twice, the fault's layer in the open.

    The loss with the fault is NaN where what the last layer gives is not finite at every position, be it read or not.
    """
    g, length = adapter.geometry, batch.ids.shape[1]
    edit = editing([fault], range(g.heads), range(g.kv_heads), range(length))
    told = []
    for change in (sites.unchanged, edit):
        with sites.opened(adapter, fault.layer, change):
            output = adapter.forward(batch)
        loss = float(compare.each_loss(adapter, batch, output).mean())
        told.append(loss if bool(torch.isfinite(output[0]).all()) else float("nan"))
    return told[0], told[1]
