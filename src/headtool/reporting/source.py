"""A finished run, read and checked: its manifest, and those of its tables that a report joins."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from headtool.errors import HeadtoolError
from headtool.record.files import sha256

READ = ("importance", "gradfisher", "update", "scores_raw", "scores_combined")  # the tables a report is made of
NEEDED = {
    "importance": ("I",),
    "gradfisher": ("G", "F", "Ppred"),
    "update": ("U", "Urel", "Uq", "Uk", "Uv", "Uo"),
    "scores_combined": ("combined",),
}
CHECKPOINTS = ("/ckpt_init", "/ckpt_final")  # what the label of a model within a run ends in
GIVE = "give run directories, as 'headtool score' prints them"


@dataclass(frozen=True, eq=False)
class Source:
    """A run of a model, and of what it was fine-tuned from where the run knows that (--init)."""

    path: Path
    manifest: Mapping[str, Any]
    tables: Mapping[str, pl.DataFrame]
    seed: int
    model: str  # hash of the model's files
    init: str | None  # hash of the files of --init
    label: str
    family: str
    layers: int
    heads: int

    @property
    def post(self) -> bool:
        return self.init is not None

    @property
    def title(self) -> str:
        """The model by name; a checkpoint of a run by its run."""
        return next((self.label.removesuffix(end) for end in CHECKPOINTS if self.label.endswith(end)), self.label)

    @property
    def rows(self) -> str | None:
        """What identifies the rows that its scores are of; None where they are of none."""
        data = self.manifest.get("data")
        kept = data.get("rows_sha256") if isinstance(data, dict) else None
        told = kept, self.manifest["inputs"].get("data"), self.manifest["arguments"].get("field")
        return json.dumps(told, sort_keys=True) if kept is not None else None

    @property
    def query(self) -> str | None:
        """At which queries its forward scores were read, and of which keys; None where it has none on rows."""
        data = self.manifest.get("data")
        at = data.get("query") if isinstance(data, dict) else None
        bos = " --exclude-bos" if self.manifest["arguments"].get("exclude_bos") else ""
        return f"--query {at}{bos}" if at is not None else None

    @property
    def shape(self) -> tuple[str, int, int]:
        return self.family, self.layers, self.heads

    def facts(self) -> dict[str, Any]:
        """What identifies the content that a report takes from the run, wherever it stands."""
        hashes = {name: self.manifest["tables"][name]["sha256"] for name in self.tables}
        return {"seed": self.seed, "model": self.model, "init": self.init, "tables": hashes}


def titled(sources: Sequence[Source]) -> str:
    """What a report of these is called: the first by name, and how many others there are."""
    titles = list(dict.fromkeys(source.title for source in sources))
    return titles[0] + (f" and {len(titles) - 1} more" if len(titles) > 1 else "")


def read(path: Path) -> Source:
    """Read a finished run. Raises HeadtoolError (exit 2) where it is none, or where its tables are not what it wrote."""
    manifest = _manifest(path)
    status = manifest.get("status")
    if status != "done":
        why = f" ({manifest['error']})" if status == "failed" and manifest.get("error") else ""
        told = "it was interrupted, or is at work" if status == "running" else f"its status is {status!r}{why}"
        raise HeadtoolError(
            f"{path}: the run is not finished: {told}",
            hint=_finishes(path, manifest),
        )
    try:
        facts, inputs, arguments = manifest["model"], manifest["inputs"], manifest["arguments"]
        layers, heads, family = int(facts["layers"]), int(facts["heads"]), str(facts["model_type"])
        seed, model, label = int(arguments["seed"]), str(inputs["weights_sha256"]), str(facts["label"])
        listed = {name: (str(t["sha256"]), int(t["rows"])) for name, t in manifest.get("tables", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _headless(path, manifest) from error
    init = inputs.get("init_sha256")
    if init is None and arguments.get("init") is not None:
        raise HeadtoolError(f"{path}: it has --init, but not its hash", hint="run it again with --force")
    tables = {name: _table(path, name, listed[name][0], layers, heads) for name in READ if name in listed}
    if not tables:
        raise _headless(path, manifest)
    return Source(path, manifest, tables, seed, model, init, label, family, layers, heads)


def _finishes(path: Path, manifest: Mapping[str, Any]) -> str:
    """The command that goes on with an unfinished run, as far as its manifest tells."""
    arguments = manifest.get("arguments")
    model = arguments.get("model") if isinstance(arguments, dict) else None
    if not model or manifest.get("command") != "score" or not (path / "config.yaml").is_file():
        return "leave it out, or finish it by the same command again"
    told = shlex.join(["headtool", "score", str(model), "--config", f"{path}/config.yaml", "--out", str(path)])
    return f"leave it out, or finish it: {told}"


def _headless(path: Path, manifest: dict[str, Any]) -> HeadtoolError:
    """The error of a run that has no table of heads."""
    command = manifest.get("command")
    if command is None:
        return HeadtoolError(f"{path}: no run: its manifest names no command", hint=GIVE)
    lacks = " that has no table of heads" if command == "score" else ", not of 'score'"
    if command == "finetune":
        hint = f"score a checkpoint of it, and report that: headtool score {path}/ckpt_final"
    else:
        hint = f"a report is made of runs of 'headtool score': of its tables {', '.join(READ)}"
    return HeadtoolError(f"{path}: a run of '{command}'{lacks}", hint=hint)


def _manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        what = "is no directory" if path.exists() else "there is no such run directory"
        raise HeadtoolError(f"{path}: {what}", hint=GIVE)
    file = path / "manifest.json"
    if not file.is_file():
        raise HeadtoolError(f"{path}: no run directory: there is no manifest.json", hint=GIVE)
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise HeadtoolError(f"{file}: not JSON", hint="make the run again with --force") from error
    if not isinstance(manifest, dict):
        raise HeadtoolError(f"{file}: no manifest of a run", hint=GIVE)
    return manifest


def _table(path: Path, name: str, digest: str, layers: int, heads: int) -> pl.DataFrame:
    """A table of a run, one row a head. Raises HeadtoolError where it is not what the manifest says."""
    file = path / "tables" / f"{name}.parquet"
    again = "make the run again with --force"
    if not file.is_file():
        raise HeadtoolError(f"{file}: the table is missing", hint=again)
    if sha256(file) != digest:
        raise HeadtoolError(f"{file}: the table is damaged or was changed since the run", hint=again)
    try:
        frame = pl.read_parquet(file).with_columns(pl.col("layer", "head").cast(pl.Int32)).sort("layer", "head")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise HeadtoolError(f"{file}: the table cannot be read", hint=again) from error
    missing = [column for column in NEEDED.get(name, ()) if column not in frame.columns]
    if missing:
        raise HeadtoolError(f"{file}: the table has no column {missing[0]}", hint=again)
    if frame.height != layers * heads or frame.select("layer", "head").rows() != [
        (layer, head) for layer in range(layers) for head in range(heads)
    ]:
        raise HeadtoolError(f"{file}: its rows are not the {layers} x {heads} heads of the model", hint=again)
    return frame
