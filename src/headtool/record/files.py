"""Files that are there whole or not at all, and parts that know whether they were damaged."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from headtool.errors import FAILED, HeadtoolError

if TYPE_CHECKING:
    import numpy as np

MAGIC = b"headtool part 1\n"
BLOCK = 1 << 20
READ_WHOLE = 1 << 30  # bytes of a file that are read to know it again; of a larger one, evenly spaced blocks
BLOCKS = 256


@contextlib.contextmanager
def whole(path: Path, *, flush: bool = True) -> Iterator[BinaryIO]:
    """Write a file under a temporary name beside its own, and give it its name once it is complete and on disk.

    flush=False leaves the last step to the system: for files that would be known as damaged after a power cut.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all (UTF-8)."""
    with whole(path) as file:
        file.write(text.encode())


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(path: Path) -> str:
    """The SHA-256 of a file's size and content; of more than 1 GiB, of 256 evenly spaced blocks of 1 MiB."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}\n".encode())
    with path.open("rb") as file:
        for start in range(0, size, BLOCK if size <= READ_WHOLE else size // BLOCKS):
            file.seek(start)
            digest.update(file.read(BLOCK))
    return digest.hexdigest()


def fingerprints(folder: Path) -> dict[str, str]:
    """The fingerprint of every file below a folder, by its path from there; hidden ones are left out."""
    found = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return {p.as_posix(): fingerprint(folder / p) for p in found if not any(x.startswith(".") for x in p.parts)}


def write_sealed(path: Path, content: Any) -> None:
    """Write JSON with its SHA-256 before it, whole or not at all."""
    text = json.dumps(content, allow_nan=False)
    write_text(path, f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")


def read_sealed(path: Path) -> Any | None:
    """What write_sealed wrote, or None where the file is absent, cut short or damaged."""
    try:
        digest, _, text = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    return json.loads(text) if hashlib.sha256(text).hexdigest().encode() == digest else None


def write_part(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as one part: a magic line, the SHA-256 of the rest, the arrays (npz)."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    payload = buffer.getvalue()
    with whole(path, flush=False) as file:
        file.write(MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


def read_part(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a part, or None where it is absent, cut short or damaged."""
    import numpy as np

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    start = len(MAGIC) + 65
    payload = data[start:]
    if data[:start] != MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n":
        return None
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile):  # not what write_part wrote: a pickle, say
        return None


def whole_part(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a part that must be there. Raises HeadtoolError where it is damaged, having removed it."""
    part = read_part(path)
    if part is None:
        path.unlink(missing_ok=True)
        raise HeadtoolError(f"{path} was damaged and is removed", hint="the same command makes it again", code=FAILED)
    return part


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
