"""Detectors at work on one layer's attention: what they keep at entry, what they find, against what is allowed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import torch

from headtool import folder
from headtool.errors import HeadtoolError
from headtool.faults.asked import DETECTORS
from headtool.models.sites import Edit, Sites, attend, handled, opened, unchanged

if TYPE_CHECKING:
    from headtool.models.adapter import Adapter
    from headtool.models.attention import Call


@dataclass(frozen=True)
class Before:
    """What a detector sees at entry, before anything can have happened: q, k, v as in Sites, and who sees whom.

    mask (batch or 1, 1, query, key) bool or None, where `causal` says whether later positions are hidden.
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    mask: torch.Tensor | None
    causal: bool
    scaling: float | None


def detector(name: str) -> ModuleType:
    """The module of a detector. Raises HeadtoolError for a name that there is not."""
    return folder.load(DETECTORS, name, "detector")


def usable(adapter: Adapter, names: Sequence[str], kv_equal: bool) -> tuple[dict[str, ModuleType], dict[str, str]]:
    """(detectors, those left out with the reason) for a model."""
    capped = getattr(adapter.model.config.get_text_config(), "attn_logit_softcapping", None) is not None
    kept, out = {}, {}
    for name in names:
        module = detector(name)
        if not adapter.layout.interface and (hasattr(module, "entry") or name == "kv-identity"):
            out[name] = "the family computes its attention by itself"
        elif capped and name in ("scores-row", "kv-identity"):
            out[name] = "the family caps its scores"
        elif name == "kv-identity" and not kv_equal:
            out[name] = "K and V differ (see --force-kv-equal)"
        else:
            kept[name] = module
    return kept, out


def guarded(
    call: Call, detectors: Mapping[str, ModuleType], edit: Edit = unchanged
) -> tuple[Sites, dict[str, tuple[torch.Tensor, ...]]]:
    """Attention with its sites, and what each detector found: (batch, head, row) a quantity, NaN as infinity."""
    entries = {name: module for name, module in detectors.items() if hasattr(module, "entry")}
    states = {}
    if entries:
        before = Before(call.query, call.key, call.value, call.mask, call.causal, call.scaling)
        states = {name: module.entry(before) for name, module in entries.items()}
    sites = attend(call, edit)
    return sites, found(detectors, sites, states)


def found(
    detectors: Mapping[str, ModuleType], sites: Sites, states: Mapping[str, object]
) -> dict[str, tuple[torch.Tensor, ...]]:
    """The residuals of detectors on what stands at the sites. Raises ValueError for one that gives more or fewer than it has
    QUANTITIES.
    """
    seen = {name: module.check(states.get(name), sites) for name, module in detectors.items()}
    for name, residuals in seen.items():
        if len(residuals) != len(detectors[name].QUANTITIES):
            what = f"{len(residuals)} residuals for {len(detectors[name].QUANTITIES)} QUANTITIES"
            raise ValueError(f"the detector {name} gives {what}")
    return seen


@contextlib.contextmanager
def watched(
    adapter: Adapter,
    layer: int,
    detectors: Mapping[str, ModuleType],
    look: Callable[[Sites, dict[str, tuple[torch.Tensor, ...]]], None],
    edit: Edit = unchanged,
) -> Iterator[None]:
    """Let detectors work on a layer while the model runs inside; look is shown what stood at its sites, and what they found."""
    if adapter.layout.interface:

        def handle(call: Call) -> torch.Tensor:
            seen, residuals = guarded(call, detectors, edit)
            look(seen, residuals)
            return seen.out.transpose(1, 2).contiguous()

        with handled(adapter.attention(layer), handle):
            yield
    else:
        with opened(adapter, layer, edit, lambda seen: look(seen, found(detectors, seen, {}))):
            yield


def worst(residuals: Sequence[torch.Tensor]) -> torch.Tensor:
    """The largest residual of each quantity and sequence (quantity, batch), float64; NaN counts as infinity."""
    largest = torch.stack([residual.flatten(1).amax(1) for residual in residuals])  # a maximum with a NaN in it is NaN
    return largest.double().nan_to_num(nan=torch.inf, posinf=torch.inf)


@dataclass(frozen=True)
class Limits:
    """What is allowed: (layer, quantity) float64 a detector, in order of its QUANTITIES."""

    limits: Mapping[str, torch.Tensor]

    def ratio(self, name: str, layer: int, residuals: Sequence[torch.Tensor]) -> torch.Tensor:
        """The largest residual over its limit of each sequence (batch,): above 1 is an alarm; on the CPU."""
        sizes, limits = worst(residuals).cpu(), self.limits[name][layer].unsqueeze(1)
        return torch.where(limits == 0, torch.where(sizes > 0, torch.inf, 0.0), sizes / limits).amax(0)


def allowed(module: ModuleType, largest: torch.Tensor) -> torch.Tensor:
    """The limits from the largest residuals on clean data: FACTOR times those."""
    if not bool(torch.isfinite(largest).all()):
        raise HeadtoolError(
            f"the detector {module.NAMES[0]} meets numbers on clean data that are not finite",
            hint="--dtype fp32 or bf16",
        )
    return largest * module.FACTOR
