"""Forward scores: run the model over batches, show the scores what they need, keep sums and nothing else.

A pass is a set of examples and the scores measured on it. Its batches are formed over the whole data and dealt out
in groups; a group's sums are one part on disk. Merging adds the parts in order, in float64, so the table is the same
bit for bit however the groups were shared out among processes and restarts. What is kept does not grow with the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headtool.models.adapter import Adapter
from headtool.models.batches import Encoding, Examples
from headtool.record.files import whole_part, write_part
from headtool.scores.tally import Query, score_batch

MOST_PARTS = 64  # of a pass: what a kill can lose, and how much room the parts take, are both bounded
REPLICATES = 200  # bootstrap samples
SEQUENCES, REPEATED = 16, 50  # of the pattern scores: sequences, and the random tokens that each holds twice
TOKENS_A_BATCH = {"cpu": 2048, "mps": 8192, "cuda": 32768}  # padded, for --batch-size auto


@dataclass(frozen=True)
class Pass:
    """Examples, the scores to measure on them, and where the query is."""

    name: str
    examples: Examples
    batches: Sequence[np.ndarray]
    scores: tuple[str, ...]
    query: Query
    exclude_bos: bool
    seed: int
    phase: str = "forward"

    @property
    def groups(self) -> list[Sequence[np.ndarray]]:
        """The batches of each part."""
        size = -(-len(self.batches) // MOST_PARTS) or 1
        return [self.batches[start : start + size] for start in range(0, len(self.batches), size)]

    def part(self, group: int) -> str:
        return f"{self.name}-{group:04d}.part"

    def work(self, adapter: Adapter, group: int, parts: Path) -> dict[str, int]:
        """Measure one group and write its part. Returns the counts of what was done."""
        return work(adapter, self, group, parts)

    def merge(self, parts: Path) -> dict[str, Measured]:
        """The scores from all parts."""
        return merge(self, parts)


@dataclass(frozen=True)
class Measured:
    """A score over a pass: mean and standard error (layer, head), and the examples that count.

    samples are its bootstrap means (sample, layer, head), drawn (sample,) says which samples drew any that count. even is what
    attention spread evenly over the visible keys scores; None for a score of outputs.
    """

    mean: np.ndarray
    se: np.ndarray | None
    n: int
    samples: np.ndarray
    drawn: np.ndarray
    even: float | None


def work(adapter: Adapter, run: Pass, group: int, parts: Path) -> dict[str, int]:
    """Measure one group of a pass and write its part. Returns the counts of what was done."""
    shape = (len(run.scores), adapter.geometry.layers, adapter.geometry.heads)
    sums, squares, n = np.zeros(shape), np.zeros(shape), np.zeros(len(run.scores), np.int64)
    samples, drawn = np.zeros((REPLICATES, *shape)), np.zeros((REPLICATES, len(run.scores)))
    even = np.zeros(len(run.scores))
    counts = {"examples": 0, "tokens": 0, "attention_flops": 0}
    g = adapter.geometry
    for index in run.groups[group]:
        batch = run.examples.batch(index)
        values, defined, evenly = score_batch(adapter, batch.to(adapter.device), run.scores, run.query, run.exclude_bos)
        weight = np.stack([_poisson(run.seed, int(example)) for example in index], 1)  # (sample, batch)
        for s in range(len(run.scores)):
            kept = np.where(defined[s][:, None, None], values[s], 0.0)  # (batch, layer, head)
            sums[s] += kept.sum(0)
            squares[s] += (kept**2).sum(0)
            n[s] += defined[s].sum()
            even[s] += evenly[s][defined[s]].sum()
            samples[:, s] += np.tensordot(weight, kept, 1)
            drawn[:, s] += weight @ defined[s]
        rows, width = batch.ids.shape
        counts["examples"] += rows
        counts["tokens"] += int(batch.mask.sum())
        counts["attention_flops"] += 4 * rows * g.heads * width**2 * g.head_dim * g.layers
    arrays = {"sums": sums, "squares": squares, "n": n, "samples": samples, "drawn": drawn, "even": even}
    write_part(parts / run.part(group), arrays)
    return counts


def merge(run: Pass, parts: Path) -> dict[str, Measured]:
    """Add up the parts of a pass, in order. Raises HeadtoolError naming a part that is damaged, which is removed."""
    total: dict[str, np.ndarray] = {}
    for group in range(len(run.groups)):
        part = whole_part(parts / run.part(group))
        total = {name: total[name] + part[name] for name in part} if total else part
    return {name: _measured(total, s) for s, name in enumerate(run.scores)}


def _measured(total: Mapping[str, np.ndarray], s: int) -> Measured:
    n = int(total["n"][s])
    mean = total["sums"][s] / max(n, 1)
    spread = np.maximum(total["squares"][s] - n * mean**2, 0)
    se = np.sqrt(spread / (n - 1) / n) if n > 1 else None
    drawn = total["drawn"][:, s]
    even = float(total["even"][s]) / n if n and np.isfinite(total["even"][s]) else None
    return Measured(mean, se, n, total["samples"][:, s] / np.maximum(drawn, 1)[:, None, None], drawn > 0, even)


def _poisson(seed: int, example: int) -> np.ndarray:
    """How often each bootstrap sample draws an example: Poisson(1), from the seed and the example's number alone.

    Source: Chamandy et al. 2012, "Estimating Uncertainty for Massive Data Streams".
    """
    return np.random.Generator(np.random.Philox(key=np.array([seed, example], np.uint64))).poisson(1.0, REPLICATES)


def tokens_a_batch(adapter: Adapter) -> int:
    """How many padded tokens --batch-size auto puts into a batch: by the kind of device, never by what is free."""
    return TOKENS_A_BATCH.get(adapter.runs_on.type, TOKENS_A_BATCH["cuda"])


def repeats_pass(adapter: Adapter, scores: tuple[str, ...], size: int | None, exclude_bos: bool, seed: int) -> Pass:
    """The pass of the pattern scores: random tokens that come twice, after the token that begins a text."""
    tokenizer = adapter.tokenizer
    begin = next((i for i in (tokenizer.bos_token_id, tokenizer.cls_token_id) if i is not None), None)
    special = set(tokenizer.all_special_ids)
    plain = [i for i in range(min(len(tokenizer), adapter.model.config.vocab_size)) if i not in special]
    length = min(REPEATED, (adapter.longest - 1) // 2)
    rng = np.random.default_rng(seed)
    sequences = [rng.choice(plain, length).tolist() for _ in range(SEQUENCES)]
    encodings = (Encoding([*([begin] if begin is not None else []), *tokens, *tokens]) for tokens in sequences)
    examples = Examples(encodings, pad=adapter.pad, types=False)
    return Pass("repeats", examples, examples.plan(size, tokens_a_batch(adapter)), scores, "all", exclude_bos, seed)
