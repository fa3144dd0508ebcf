"""Which run is what, and everything they know of a head in one row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from headtool.console import Console
from headtool.errors import HeadtoolError
from headtool.record import tables
from headtool.reporting.source import Source, titled

# Suffix of the joined column -> column of importance.
INTERVALS = {"low": "I_low", "high": "I_high"} | {n: n for n in ("differs", "rank_low", "rank_high", "top_k_share")}
SPREAD = ("I_pre", "I_post", "U", "Urel")  # columns whose spread over seeds is told
ALL = "all"  # the label of a report without --compare


@dataclass(frozen=True, eq=False)
class Pair:
    """The runs of one seed: of the model before fine-tuning (or the only one), and of the model after it.

    tables: importance_pre, importance_post, gradfisher_pre, update, as far as there are runs for them.
    heads: one row a head, the columns of the table "report" without label and seed.
    """

    seed: int
    pre: tuple[Source, ...]
    post: tuple[Source, ...]
    tables: dict[str, pl.DataFrame]
    heads: pl.DataFrame
    scores: tuple[str, ...]

    @property
    def sources(self) -> tuple[Source, ...]:
        return self.pre + self.post


@dataclass(frozen=True, eq=False)
class Group:
    """What is reported under one label: pairs by seed, and their mean, one row a head."""

    label: str
    pairs: tuple[Pair, ...]
    heads: pl.DataFrame

    @property
    def title(self) -> str:
        return titled([pair.sources[0] for pair in self.pairs])

    @property
    def scores(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(score for pair in self.pairs for score in pair.scores))


def distinct(sources: Iterable[Source], console: Console) -> list[Source]:
    """The runs, each once: by directory, and by identity where one was copied."""
    kept: dict[object, Source] = {}
    for source in sources:
        key = str(source.manifest.get("identity") or source.path.resolve())
        if key in kept:
            console.note(f"{source.path} is the same run as {kept[key].path} and counts once")
        else:
            kept[key] = source
    return list(kept.values())


def check_one_model(sources: Sequence[Source]) -> None:
    """Raise HeadtoolError (exit 2) where runs are of models of different shape."""
    first = sources[0]
    for other in sources[1:]:
        if other.shape != first.shape:
            told = [f"{s.path} is of {s.label} ({s.family}, {s.layers} x {s.heads} heads)" for s in (first, other)]
            raise HeadtoolError(f"runs of different models: {', '.join(told)}", hint="one report is about one model")


def group(label: str, sources: Sequence[Source], console: Console, offered: Sequence[Source] = ()) -> Group:
    """The runs of one label, paired by model hash and joined seed by seed; of those offered, the ones that fit a pair.

    A run with --init is post; its pre are the runs of the model that --init names, of the same seed where there
    are such. A run without --init of a post model is joined to it. Raises HeadtoolError (exit 2) where two models
    have one seed.
    """
    posts: dict[tuple[int, str, str], list[Source]] = {}
    for source in sources:
        if source.init is not None:
            posts.setdefault((source.seed, source.init, source.model), []).append(source)
    found: list[tuple[int, list[Source], list[Source]]] = []
    used: set[Source] = set()
    for (seed, init, model), post in posts.items():
        others = [s for s in (*sources, *offered) if s not in post]
        pre = _of_model(others, init, seed)
        plain = _of_model([s for s in others if not s.post], model, seed) if model != init else []
        used.update(pre, post, plain)
        found.append((seed, pre, post + plain))
        if not pre:
            console.note(f"{post[0].path}: the runs of its model before fine-tuning are not among those given")
    alone: dict[tuple[int, str], list[Source]] = {}
    for source in sources:
        if source not in used:
            alone.setdefault((source.seed, source.model), []).append(source)
    found += [(seed, pre, []) for (seed, _), pre in alone.items()]
    _refuse_two_models(found)
    pairs = tuple(_pair(*each, console) for each in sorted(found, key=lambda each: each[0]))
    scores = dict.fromkeys(score for pair in pairs for score in pair.scores)
    return Group(label, pairs, _mean([pair.heads for pair in pairs], scores))


def _of_model(sources: Sequence[Source], model: str, seed: int) -> list[Source]:
    """The runs of a model: those of the seed, else those of the lowest seed there is."""
    fitting = [source for source in sources if source.model == model]
    seeds = {source.seed for source in fitting}
    taken = seed if seed in seeds else min(seeds, default=seed)
    return [source for source in fitting if source.seed == taken]


def _refuse_two_models(found: Sequence[tuple[int, list[Source], list[Source]]]) -> None:
    seen: dict[int, Path] = {}
    for seed, pre, post in found:
        path = (post or pre)[0].path
        if seed in seen:
            raise HeadtoolError(
                f"runs of different models, both of seed {seed}: {seen[seed]} and {path}",
                hint="score the one after fine-tuning with --init of the one before it; --compare LABEL=RUN,RUN sets two methods "
                "side by side; several seeds need a --seed of their own",
            )
        seen[seed] = path


def _pair(seed: int, pre: list[Source], post: list[Source], console: Console) -> Pair:
    """One seed's runs joined on layer and head. Where two runs know the same, the one given first is taken."""
    kept: dict[str, pl.DataFrame] = {}
    columns: dict[str, pl.Series] = {}
    scores: dict[str, None] = {}
    origin: dict[str, Path] = {}

    def first(name: str, values: pl.Series | pl.DataFrame, source: Source, into: dict) -> None:
        if name not in into:
            into[name], origin[name] = values, source.path
        elif not into[name].equals(values):
            console.warn(f"{name} is in {origin[name]} and, with other values, in {source.path}: the first is taken")

    of_rows = {source.rows: source.path for source in (*pre, *post) if source.rows is not None}
    if len(of_rows) > 1:
        one, other = list(of_rows.values())[:2]
        console.warn(f"{one} and {other} are scores of different rows (--data, --task, --field, --limit or --subset)")
    of_query = {source.query: source.path for source in (*pre, *post) if source.query is not None}
    if len(of_query) > 1:
        told = " and ".join(f"{path} of {query}" for query, path in list(of_query.items())[:2])
        console.warn(f"scores of attention and outputs stand side by side that are read elsewhere: {told}")
    for when, sources in (("pre", pre), ("post", post)):
        for source in sources:
            for name in ("importance", "gradfisher"):
                if name in source.tables:
                    first(f"{name}_{when}", source.tables[name], source, kept)
            if when == "post" and "update" in source.tables:
                first("update", source.tables["update"], source, kept)
            for score, values in _scores(source):
                scores[score] = None
                first(score if when == "pre" else f"{score}_post", values, source, columns)
    for when in ("pre", "post"):
        if (frame := kept.get(f"importance_{when}")) is not None:
            columns[f"I_{when}"] = frame["I"]
            columns |= {f"I_{when}_{name}": frame[c] for name, c in INTERVALS.items() if c in frame.columns}
        if (frame := kept.get(f"gradfisher_{when}")) is not None:
            columns |= {name if when == "pre" else f"{name}_post": frame[name] for name in ("G", "F", "Ppred")}
    if (frame := kept.get("update")) is not None:
        columns |= {name: frame[name] for name in ("U", "Urel", "Uq", "Uk", "Uv", "Uo")}
    shape = (pre or post)[0]
    keys = pl.DataFrame(
        [(layer, head) for layer in range(shape.layers) for head in range(shape.heads)], schema=["layer", "head"],
        orient="row",
    )  # fmt: skip
    heads = _in_order(keys.with_columns(values.alias(name) for name, values in columns.items()), scores)
    return Pair(seed, tuple(pre), tuple(post), kept, heads, tuple(scores))


def _scores(source: Source) -> Iterable[tuple[str, pl.Series]]:
    """The forward scores of a run, by name: combined first, as measured (not normalised)."""
    if "scores_combined" in source.tables:
        yield "combined", source.tables["scores_combined"]["combined"]
    if "scores_raw" in source.tables:
        frame = source.tables["scores_raw"]
        for column in frame.columns:
            if column.endswith("_raw"):
                yield column.removesuffix("_raw"), frame[column]


def _in_order(frame: pl.DataFrame, scores: Iterable[str]) -> pl.DataFrame:
    """The columns in the order and with the types of the schema; layer and head first."""
    types = {
        column.name: getattr(pl, column.kind)
        for column in tables.TABLES["report"].resolve({"score": scores})
        if column.name in frame.columns
    }
    return frame.select(pl.col(name).cast(kind) for name, kind in types.items())


def _mean(frames: Sequence[pl.DataFrame], scores: Iterable[str]) -> pl.DataFrame:
    """The mean over seeds of every number, and the sample standard deviation of some. One seed is itself.

    Intervals and ranks over examples belong to one seed and have no mean.
    """
    if len(frames) == 1:
        return frames[0]
    everything = pl.concat(frames, how="diagonal")
    of_one_seed = {f"I_{when}_{name}" for when in ("pre", "post") for name in INTERVALS}
    numbers = [name for name in everything.columns if name not in ("layer", "head", *of_one_seed)]
    spread = [pl.col(name).std().alias(f"{name}_sd") for name in SPREAD if name in numbers]
    mean = everything.group_by("layer", "head").agg(pl.col(numbers).mean(), *spread).sort("layer", "head")
    return _in_order(mean, scores)
