"""What headtool needs of the machine it runs on, looked at one by one: headtool doctor."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from headtool import __version__
from headtool.completion import PLACES
from headtool.models import layout
from headtool.record.clock import human_bytes
from headtool.redact import redacted

State = Literal["ok", "note", "amiss"]
PYTHON = (3, 11)
LITTLE_MEMORY = 2e9  # bytes, below which a note is due
LITTLE_DISK = 5e9
PLUGINS = ("headtool.commands", "headtool.scores", "headtool.detectors", "headtool.architectures", "headtool.tasks")


@dataclass(frozen=True)
class Finding:
    """What was found of one thing. note: something is missing that headtool does without; amiss: it does not."""

    name: str
    state: State
    found: str
    hint: str = ""


def look(timeout: float, debug: bool = False) -> Iterator[Finding]:
    """Every finding, in order. A check that fails in a way nobody thought of is itself a finding (debug: with a traceback)."""
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("headtool", _headtool), ("python", _python), ("packages", _packages), ("device", _device), ("memory", _memory),
        ("disk", _disk), ("hub", lambda: _hub(timeout)), ("families", _families), ("plug-ins", _plugins),
        ("completion", _completion), ("model", _model),
    )  # fmt: skip
    for name, check in checks:
        try:
            yield check()
        except Exception as error:
            if debug:
                traceback.print_exc()
            said = redacted(" ".join(f"{type(error).__name__}: {error}".split()))[:300]
            yield Finding(name, "amiss", said, "headtool doctor --debug shows where")


def _headtool() -> Finding:
    return Finding("headtool", "ok", f"{__version__} in {Path(__file__).parent}")


def _python() -> Finding:
    state: State = "ok" if sys.version_info >= PYTHON else "amiss"
    hint = "" if state == "ok" else f"Python {'.'.join(map(str, PYTHON))} or newer"
    return Finding("python", state, f"{platform.python_version()}, {platform.platform()}", hint)


def _packages() -> Finding:
    """The packages that headtool's own metadata asks for, against those that are installed."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in metadata.requires("headtool") or ()]
    except metadata.PackageNotFoundError:
        hint = "pip install headtool, where it only lies on PYTHONPATH"
        return Finding("packages", "note", "headtool is not installed, so what it needs is not known", hint)
    found, wrong = [], []
    for each in wanted:
        if each.marker is not None and not each.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            wrong.append(str(each))
            continue
        found.append(f"{each.name} {version}")
        if not each.specifier.contains(version, prereleases=True):
            wrong.append(str(each))
    hint = f"pip install {' '.join(repr(each) for each in wrong)}" if wrong else ""
    return Finding("packages", "amiss" if wrong else "ok", ", ".join(found), hint)


def _device() -> Finding:
    """Where --device auto goes, and the numbers it multiplies in."""
    import torch

    from headtool.models.devices import DTYPES, pick_device, pick_dtype

    where = pick_device("auto")
    works = []
    for name, dtype in DTYPES.items():
        try:
            a = torch.ones(8, 8, dtype=dtype, device=where)
            if bool(((a @ a).float() == 8).all()):
                works.append(name)
        except (RuntimeError, TypeError):
            continue
    told, hint = str(where), ""
    if where.type == "cuda":
        free, total = torch.cuda.mem_get_info(where)
        more = f" (one of {torch.cuda.device_count()})" if torch.cuda.device_count() > 1 else ""
        told += f" {torch.cuda.get_device_name(where)}{more}, {human_bytes(free)} of {human_bytes(total)} free"
    elif where.type == "cpu" and (shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists()):
        hint = "there is an NVIDIA driver, but this torch does not use it: install the build for your CUDA version"
    auto = next(name for name, dtype in DTYPES.items() if dtype == pick_dtype("auto", where))
    state: State = "amiss" if auto not in works else "note" if hint else "ok"
    return Finding("device", state, f"{told}; {', '.join(works)}; auto is {auto}", hint)


def _memory() -> Finding:
    import psutil

    from headtool.ranks import free_cores

    memory = psutil.virtual_memory()
    little = memory.available < LITTLE_MEMORY
    told = (
        f"{human_bytes(memory.available)} of {human_bytes(memory.total)} free, {free_cores()} of {os.cpu_count()} cores"
    )
    return Finding(
        "memory", "note" if little else "ok", told, "a small model, --memory, --dtype bf16" if little else ""
    )


def _disk() -> Finding:
    """Room for runs in the current folder, and for models in the hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    there = next(path for path in (cache, *cache.parents) if path.exists())
    here = shutil.disk_usage(Path.cwd()).free
    for_models = shutil.disk_usage(there).free
    told = f"{human_bytes(here)} free here, {human_bytes(for_models)} for the hub's cache {cache}"
    if not os.access(Path.cwd(), os.W_OK):
        return Finding("disk", "amiss", f"{told}; no right to write in {Path.cwd()}", "--out DIR, or another folder")
    little = min(here, for_models) < LITTLE_DISK
    return Finding(
        "disk", "note" if little else "ok", told, "free some, or set HF_HOME to another disk" if little else ""
    )


def _hub(timeout: float) -> Finding:
    """Does the hub answer? Its token is looked for, and never shown."""
    import urllib.error
    import urllib.request

    from huggingface_hub import constants, get_token

    token = "a token is set" if get_token() else "no token"
    address = redacted(constants.ENDPOINT)
    local = "give local folders, or what is in the cache"
    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "note", f"offline: HF_HUB_OFFLINE is set; {token}", f"unset it, or {local}")
    begun = time.perf_counter()
    try:
        with urllib.request.urlopen(f"{constants.ENDPOINT}/api/models?limit=1", timeout=timeout):
            pass
    except (OSError, ValueError) as error:  # urllib's errors are OSErrors; a bad address is a ValueError
        reason = redacted(str(getattr(error, "reason", error)))
        return Finding(
            "hub", "note", f"{address} cannot be reached ({reason}); {token}", f"check HF_ENDPOINT, or {local}"
        )
    return Finding("hub", "ok", f"{address} answers in {time.perf_counter() - begun:.1f} s; {token}")


def _families() -> Finding:
    names = layout.families()
    return Finding("families", "ok", f"{len(names)}: {', '.join(names)}")


def _plugins() -> Finding:
    """Everything that other packages add, each imported once."""
    found, broken = [], []
    for group in PLUGINS:
        for entry in metadata.entry_points(group=group):
            try:
                entry.load()
                found.append(f"{entry.name} ({entry.value})")
            except Exception as error:
                broken.append(f"{entry.name} ({entry.value}): {' '.join(str(error).split())[:100]}")
    if broken:
        return Finding(
            "plug-ins", "note", f"cannot be loaded: {'; '.join(broken)}", "update or uninstall their package"
        )
    return Finding("plug-ins", "ok", ", ".join(found) or "none")


def _completion() -> Finding:
    shell = Path(os.environ.get("SHELL", "")).name or _parent()
    if shell not in PLACES:
        return Finding("completion", "ok", f"TAB is for bash, zsh and fish; this is {shell or 'no shell'}")
    for place in map(Path, PLACES[shell]):
        if place.expanduser().is_file():
            return Finding("completion", "ok", f"{shell}: {place}")
    return Finding("completion", "note", f"{shell}: not installed", "headtool --install-completion, then a new shell")


def _parent() -> str:
    """The shell that started this process, where the environment names none, as in many containers."""
    try:
        import shellingham  # comes with Typer, which needs it for the same
    except ImportError:
        return ""
    try:
        return str(shellingham.detect_shell()[0])
    except shellingham.ShellDetectionFailure:
        return ""


def _model() -> Finding:
    """The built-in model, opened and checked as every model is."""
    from headtool.models.locate import locate
    from headtool.models.open import open_model

    begun = time.perf_counter()
    adapter = open_model(locate("demo"))
    g = adapter.geometry
    seconds = time.perf_counter() - begun
    return Finding(
        "model", "ok", f"demo opens in {seconds:.1f} s, its {g.layers} x {g.heads} heads are where they should be"
    )
