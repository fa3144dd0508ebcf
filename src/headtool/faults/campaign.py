"""Which trials a run is made of: every cell given, or a sample of cells in rounds; and how they are dealt out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from headtool import options as opt
from headtool.errors import HeadtoolError
from headtool.faults import asked, bits
from headtool.faults.fault import SHARED, Fault, shape_of
from headtool.faults.intervals import leveugle
from headtool.models.heads import Geometry
from headtool.models.sites import SITES

Element = tuple[str, int, int, int, int, int]  # site, layer, sequence, head, row, column
ATTEMPTS = 1000  # to draw an element that was not drawn yet
CHUNK = {"forward": 128, "backward": 4}  # faults a part


@dataclass(frozen=True)
class Campaign:
    """The cells of a run: (site, layer, bit, seed), and from which elements each cell's is drawn.

    lengths: of the sequences under test, by their number. layers is None for one layer drawn by each seed and site.
    """

    geometry: Geometry
    dtype: torch.dtype
    phase: str
    sites: tuple[str, ...]
    layers: tuple[int, ...] | None
    heads: tuple[int, ...]
    bit_numbers: tuple[int, ...]
    seeds: tuple[int, ...]
    pattern: bits.Pattern
    lengths: dict[int, int]

    @property
    def strata(self) -> int:
        """How many (site, layer, bit) there are."""
        layers = 1 if self.layers is None else len(self.layers)
        return len(self.sites) * layers * len(self.bit_numbers)

    @cached_property
    def population(self) -> int:
        """How many faults there are to choose from."""
        total, layers = 0, range(self.geometry.layers) if self.layers is None else self.layers
        for site in self.sites:
            for length in self.lengths.values():
                _, rows, columns = shape_of(site, self.geometry, length)
                total += len(self._heads(site)) * rows * (columns - min(self.pattern.width, columns) + 1)
        return total * len(layers) * len(self.bit_numbers)

    def enough(self, margin: float, confidence: float) -> int:
        """How many trials a margin of error asks for, in whole rounds of one a stratum."""
        wanted = leveugle(self.population, margin, confidence)
        return -(-wanted // self.strata) * self.strata

    def sweep(self) -> list[Fault]:
        """One trial a cell; its element is drawn by the seed, the same for all bits."""
        return [fault for seed in self.seeds for fault in self.draw(seed, ())]

    def round(self, number: int, taken: set[Element]) -> list[Fault]:
        """One trial a stratum, the rounds of a sample taking the seeds in turn: of elements that were not taken yet, which
        are now. A site and layer where that finds none any more is left out.
        """
        return self.draw(self.seeds[number % len(self.seeds)], (number,), taken)

    def every(self) -> list[Fault]:
        """Every fault there is: what a sample of that many comes to."""
        found, layers = [], range(self.geometry.layers) if self.layers is None else self.layers
        for site, layer, (sequence, length) in itertools.product(self.sites, layers, self.lengths.items()):
            _, rows, columns = shape_of(site, self.geometry, length)
            width = min(self.pattern.width, columns)
            for head, row, column in itertools.product(self._heads(site), range(rows), range(columns - width + 1)):
                found += self._strike(self.seeds[0], (), (site, layer, sequence, head, row, column), width)
        return found

    def draw(self, seed: int, more: tuple[int, ...], taken: set[Element] | None = None) -> list[Fault]:
        """One element a site and layer, hit at every bit."""
        found = []
        for site in self.sites:
            for layer in self.layers or (self._layer(seed, site, more),):
                for attempt in range(ATTEMPTS):
                    again = (attempt,) if attempt else ()
                    rng = np.random.default_rng([seed, SITES.index(site), layer, *more, *again])
                    sequence = int(rng.choice(list(self.lengths)))
                    head = int(rng.choice(self._heads(site)))
                    _, rows, columns = shape_of(site, self.geometry, self.lengths[sequence])
                    width = min(self.pattern.width, columns)
                    row, column = int(rng.integers(rows)), int(rng.integers(columns - width + 1))
                    element = (site, layer, sequence, head, row, column)
                    if taken is None or element not in taken:
                        found += self._strike(seed, more, element, width)
                        if taken is not None:
                            taken.add(element)
                        break
        return found

    def _strike(self, seed: int, more: tuple[int, ...], element: Element, width: int) -> list[Fault]:
        """The faults at one element. What is drawn of a bit's pattern does not depend on which other bits are asked for."""
        found = []
        for bit in self.bit_numbers:
            rng = np.random.default_rng([seed, SITES.index(element[0]), element[1], bit + 1, *more])
            keep, flip = bits.masks(self.pattern, bit, self.dtype, rng)
            place = (self.phase, *element)
            found.append(Fault(*place, self.pattern.name, bit, keep, flip, seed, width))
        return found

    def _layer(self, seed: int, site: str, more: tuple[int, ...]) -> int:
        rng = np.random.default_rng([seed, len(SITES) + SITES.index(site), *more])
        return int(rng.integers(self.geometry.layers))

    def _heads(self, site: str) -> list[int]:
        return sorted({self.geometry.kv_head(head) if site in SHARED else head for head in self.heads})


def settle(
    geometry: Geometry,
    dtype: torch.dtype,
    lengths: dict[int, int],
    *,
    phase: str,
    sites: str,
    layers: str,
    heads: str,
    bits_asked: str,
    seeds: str,
    pattern: bits.Pattern,
) -> Campaign:
    """A campaign from what is asked for. Raises HeadtoolError for a site, layer, head or bit that there is not."""
    asked_sites = asked.sites(sites)
    asked_layers: tuple[int, ...] | None = {"first": (0,), "all": tuple(range(geometry.layers)), "random": None}.get(
        layers, ()
    )
    if asked_layers == ():
        asked_layers = _within(layers, "--layers", geometry.layers)
    asked_heads = tuple(range(geometry.heads)) if heads == "all" else _within(heads, "--heads", geometry.heads)
    if not pattern.has_bit:
        if bits_asked != "all":
            raise HeadtoolError(f"--bits {bits_asked}: the pattern {pattern.name} has no bit", hint="leave out --bits")
        asked_bits = [-1]
    else:
        asked_bits = list(range(bits.bits_of(dtype))) if bits_asked == "all" else opt.numbers(bits_asked, "--bits")
        asked.check_bits(asked_bits, str(dtype).removeprefix("torch."), bits.bits_of(dtype))
    narrowest = min(shape_of(site, geometry, length)[2] for site in asked_sites for length in lengths.values())
    if pattern.kind == "burst" and pattern.count > max(narrowest, bits.BURST):
        raise HeadtoolError(f"--pattern burst:{pattern.count}: a row has {narrowest} numbers", hint="a smaller burst")
    for bit in asked_bits[:1]:
        bits.masks(
            pattern, bit, dtype, np.random.default_rng(0)
        )  # more bits than there are: said before anything is run
    return Campaign(
        geometry, dtype, phase, asked_sites, asked_layers, asked_heads, tuple(asked_bits),
        tuple(opt.numbers(seeds, "--seeds")), pattern, lengths,
    )  # fmt: skip


def _within(text: str, what: str, count: int) -> tuple[int, ...]:
    found = opt.numbers(text, what)
    if found[-1] >= count:
        raise HeadtoolError(f"{what} {found[-1]}: the model has {count}", hint="they count from 0")
    return tuple(found)


def deal(faults: Sequence[Fault]) -> list[list[int]]:
    """The faults (by place) of each part: of one sequence, layer by layer, so that what is recorded serves many."""
    order = sorted(range(len(faults)), key=lambda i: (faults[i].sequence, faults[i].layer, i))
    parts: list[list[int]] = []
    for i in order:
        if not parts or len(parts[-1]) >= CHUNK[faults[i].phase] or faults[parts[-1][0]].sequence != faults[i].sequence:
            parts.append([])
        parts[-1].append(i)
    return parts
