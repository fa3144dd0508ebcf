"""A run's manifest: what determines a result, what it was made with, and how it is read back."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from headtool import __version__

# Arguments that say how a run is done or told, not what comes out of it, and those whose content is hashed instead.
HOW = frozenset(
    "out force dry_run json quiet verbose debug threads shard config save_steps report_to".split()  # noqa: SIM905
    + "model data train eval init compare calibration path diff".split()  # noqa: SIM905
)
OF_ONE_CALL = frozenset("out force dry_run json quiet verbose debug shard config".split())  # noqa: SIM905 - not of config.yaml
CONTENT = (
    "weights_sha256",
    "init_sha256",
    "data",
    "train",
    "eval",
    "weights",
    "other",
    "calibration",
)  # of the inputs: models and rows, wherever they stand
SHOWN = 4  # flags that a hint names
VERSIONS = ("torch", "transformers", "tokenizers", "polars", "numpy", "matplotlib", "scipy")


def begin(command: str, arguments: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a run that starts. Its identity is the hash of all that determines the result."""
    settled = {name: _plain(value) for name, value in arguments.items()}
    decisive = {name: value for name, value in settled.items() if name not in _how(command)}
    content = {name: inputs[name] for name in CONTENT if name in inputs}
    made_of = {"command": command, "version": __version__, "arguments": decisive, "inputs": content}
    return {
        "headtool": __version__,
        "command": command,
        "status": "running",
        "identity": hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest(),
        "arguments": settled,
        "inputs": dict(inputs),
        "started": now(),
    }


def _how(command: str) -> frozenset[str]:
    return HOW | {"runs"} if command == "report" else HOW


def apart(held: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """What two runs of one command differ in, as the beginning of a hint; nothing where their manifests do not say."""
    if held.get("command") != asked["command"] or not isinstance(held.get("arguments"), dict):
        return ""
    then, now_asked = held["arguments"], asked["arguments"]
    flags = [
        f"--{name.replace('_', '-')}"
        for name in now_asked
        if name not in _how(asked["command"]) and then.get(name) != now_asked[name]
    ]
    more = f" and {len(flags) - SHOWN} more" if len(flags) > SHOWN else ""
    return f"it differs in {', '.join(flags[:SHOWN])}{more}; " if flags else ""


def read(file: Path) -> dict[str, Any]:
    """A manifest as it was written. Raises OSError where there is none, ValueError where it is none."""
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(manifest, dict):
        raise ValueError("not an object")
    return manifest


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    return str(value)


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "executable": Path(sys.executable).name,
    }
    for name in VERSIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def commit() -> str | None:
    """The commit of the folder the command was run in, if it is under git."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        return asked.stdout.strip()
    return None
