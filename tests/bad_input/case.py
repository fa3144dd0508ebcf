"""A call that cannot succeed, the one line that says why, and the scenes in which it is made."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headtool.models.locate import locate

Scene = Callable[[], None]  # sets something up in the current folder
Break = Callable[[Path], None]  # does something to a model folder


@dataclass(frozen=True)
class Case:
    """`headtool COMMAND` in a folder where the scene is set says LINE and leaves with the code.

    "..." in the line stands for words that are another library's. keeps: the run directory is left, for it may go on.
    stdin: what stands on it; absent: a package that is not installed; hub: there is one, that of tests/hub.py.
    """

    command: str
    line: str
    given: str
    scene: tuple[Scene, ...]
    code: int
    hint: str
    env: Mapping[str, str] = field(default_factory=dict)
    keeps: bool = False
    stdin: str = ""
    absent: str = ""
    hub: bool = False

    @property
    def words(self) -> list[str]:
        return shlex.split(self.command)

    def fits(self, said: str) -> bool:
        """Is this the line?"""
        pattern = ".*".join(re.escape(piece) for piece in self.line.split("..."))
        return re.fullmatch(f"headtool: error: {pattern}", said) is not None


def case(
    command: str,
    line: str,
    given: str = "",
    *scene: Scene,
    code: int = 2,
    hint: str = "",
    env: Mapping[str, str] | None = None,
    keeps: bool = False,
    stdin: str = "",
    absent: str = "",
    hub: bool = False,
) -> Case:
    return Case(command, line, given, scene, code, hint, env or {}, keeps, stdin, absent, hub)


# -- scenes ---------------------------------------------------------------------------------------------------------


def file(name: str, *lines: object, raw: bytes | None = None) -> Scene:
    """A file of lines (objects as JSON), or of these bytes."""

    def make() -> None:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        path.write_bytes(text.encode() if raw is None else raw)

    return make


def link(name: str, to: str) -> Scene:
    """A symbolic link."""
    return lambda: Path(name).symlink_to(to)


def folder(name: str) -> Scene:
    return lambda: Path(name).mkdir(parents=True)


def model(*breaks: Break, of: str = "demo", name: str = "model") -> Scene:
    """A copy of a built-in model, to which something is done."""

    def make() -> None:
        shutil.copytree(locate(of).folder, name)
        for each in breaks:
            each(Path(name))

    return make


def without(pattern: str) -> Break:
    def remove(at: Path) -> None:
        for found in at.glob(pattern):
            found.unlink()

    return remove


def write(name: str, content: object) -> Break:
    text = content if isinstance(content, str) else json.dumps(content)
    return lambda at: (at / name).write_text(text) and None


def config(**changes: object) -> Break:
    """Other values in config.json."""

    def change(at: Path) -> None:
        known = json.loads((at / "config.json").read_text())
        (at / "config.json").write_text(json.dumps(known | changes))

    return change


def content(name: str, change: Callable[[bytes], bytes]) -> Break:
    """Other bytes in a file."""
    return lambda at: (at / name).write_bytes(change((at / name).read_bytes())) and None


def weights(change: Callable[[dict], None]) -> Break:
    """Other tensors in model.safetensors."""

    def make(at: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(at / "model.safetensors")
        change(tensors)
        save_file(tensors, at / "model.safetensors", metadata={"format": "pt"})

    return make


def header(change: Callable[[dict], object]) -> Break:
    """Other entries in the header of model.safetensors, over the same data."""

    def make(at: Path) -> None:
        old = (at / "model.safetensors").read_bytes()
        length = int.from_bytes(old[:8], "little")
        entries = json.loads(old[8 : 8 + length])
        change(entries)
        text = json.dumps(entries).encode()
        (at / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + old[8 + length :])

    return make
