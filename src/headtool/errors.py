"""What can go wrong, said in one line: HeadtoolError, and the ONE table that translates foreign errors."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

FAILED = 1
IMPOSSIBLE = 2
INTERRUPTED = 130
TERMINATED = 143
UNHEARD = 141  # as SIGPIPE has it: the reader of what was printed has gone away


class HeadtoolError(Exception):
    """An error that the user can do something about: one line, a hint, an exit code (1 it failed, 2 impossible)."""

    def __init__(self, message: str, *, hint: str = "", code: int = IMPOSSIBLE) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code
        if hint:
            self.add_note(f"hint: {hint}")  # where Python shows the error


class Terminated(BaseException):
    """SIGTERM: like KeyboardInterrupt no error, and nothing that should be caught on the way out."""


def unknown(kind: str, name: str, known: Iterable[str]) -> HeadtoolError:
    """An unknown name, with the nearest known one and the whole list."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    meant = f"did you mean '{close[0]}'? " if close else ""
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    return HeadtoolError(f"there is no {kind} named '{name}'", hint=f"{meant}The {plural} are {', '.join(names)}.")


# (exception class name, part of its text) -> (message, hint, code); the first that fits is taken. {e} is the text's
# first line. Names rather than classes: nothing heavy is imported to say that something heavy failed.
FOREIGN: tuple[tuple[str, str, str, str, int], ...] = (
    ("BrokenPipeError", "", "", "", 141),  # | head: the reader has seen enough, and there is nothing to say
    ("GatedRepoError", "", "this model is gated: access has not been granted", "accept its terms on the hub, then set HF_TOKEN", 2),
    ("RevisionNotFoundError", "", "the hub has no such revision", "check the part after '@'", 2),
    ("RepositoryNotFoundError", "", "the hub has no such repository (or it is private)", "check the name; for a private one set HF_TOKEN", 2),
    ("HFValidationError", "", "the hub has no names like this one", "a hub id is NAME or OWNER/NAME", 2),
    ("DatasetNotFoundError", "", "data set not found: {e}", "give a file, or a data set id that the hub has", 2),
    ("OfflineModeIsEnabled", "", "HF_HUB_OFFLINE is set and the files are not in the cache", "unset it, or give a local folder", 1),
    ("LocalEntryNotFoundError", "traffic has been disabled", "HF_HUB_OFFLINE is set and the files are not in the cache", "unset it, or give a local folder", 1),
    ("LocalEntryNotFoundError", "", "the hub cannot be reached and the files are not in the cache", "check the network or HF_ENDPOINT, or give a local folder", 1),
    ("ConnectError", "", "the hub cannot be reached", "check the network or HF_ENDPOINT, or give a local folder", 1),
    ("ConnectionError", "OfflineMode", "HF_HUB_OFFLINE is set and the rows are not in the cache", "unset it, or give a file of rows", 1),
    ("ConnectionError", "", "the hub cannot be reached", "check the network or HF_ENDPOINT, or give a local folder", 1),
    ("HFValidationError", "", "no hub id: {e}", "for example Qwen/Qwen3-0.6B", 2),
    ("OSError", "Consistency check failed", "a file arrived cut short", "run the same command again: what is whole is kept", 1),
    ("HfHubHTTPError", "", "the hub answers with an error: {e}", "try again later, or another HF_ENDPOINT", 1),
    ("TransportError", "", "the transfer broke off: {e}", "run the same command again: what is whole is kept", 1),
    ("RuntimeError", "gloo", "another process of this run was lost", "the same command goes on where it stopped", 1),
    ("DistBackendError", "", "the processes of this run cannot exchange what they must: {e}", "NCCL_DEBUG=WARN says more; the same command goes on where it stopped", 1),
    ("DistNetworkError", "", "the processes of this run do not reach each other: {e}", "check the address and the port that torchrun was given", 1),
    ("DistStoreError", "", "the processes of this run did not meet: {e}", "the same command goes on where it stopped", 1),
    ("OutOfMemoryError", "", "the device is out of memory", "a smaller --batch-size or --max-length, or --dtype bf16", 1),
    ("RuntimeError", "can't allocate memory", "the machine is out of memory", "a smaller --batch-size or --max-length", 1),
    ("RuntimeError", "not enough memory", "the machine is out of memory", "a smaller --batch-size or --max-length", 1),
    ("MemoryError", "", "the machine is out of memory", "a smaller --batch-size or --max-length", 1),
    ("NotImplementedError", "copy out of meta tensor", "this family reads weights that --device-map has put on the disk", "more for the devices: --max-memory", 2),
    ("SafetensorError", "No space left", "no space left on the disk", "free some, then run the same command again: finished parts are kept", 1),
    ("RuntimeError", "PytorchStreamWriter failed writing", "a checkpoint cannot be written: the disk may be full", "free some, then run the same command again: finished parts are kept", 1),
    ("RuntimeError", "unexpected pos", "a checkpoint cannot be written: the disk may be full", "free some, then run the same command again: finished parts are kept", 1),
    ("SafetensorError", "", "a weight file cannot be read: {e}", "download it again", 2),
)  # fmt: skip

OS_ERRORS = {
    errno.ENOSPC: (
        "no space left on the disk",
        "free some, then run the same command again: finished parts are kept",
        1,
    ),
    errno.EDQUOT: (
        "the disk quota is used up",
        "free some, then run the same command again: finished parts are kept",
        1,
    ),
    errno.EACCES: ("permission denied: {path}", "check the path, or choose another place", 2),
    errno.EPERM: ("not permitted: {path}", "check the path, or choose another place", 2),
    errno.EROFS: ("read-only file system: {path}", "check the path, or choose another place", 2),
    errno.ENOTDIR: ("not a directory: {path}", "check the path, or choose another place", 2),
    errno.ELOOP: ("a link that leads back to itself: {path}", "check the path, or choose another place", 2),
    errno.ENAMETOOLONG: ("the name is too long: {path}", "check the path, or choose another place", 2),
}


def translate(error: BaseException) -> HeadtoolError | None:
    """The one-line form of an error, or None for one that is nobody's fault but ours (keep its traceback)."""
    if isinstance(error, HeadtoolError):
        return error
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:  # libraries wrap the telling error in others
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    for each in seen:
        names = {c.__name__ for c in type(each).__mro__}
        text = str(each)
        for name, part, message, hint, code in FOREIGN:
            if name in names and part in text:
                return HeadtoolError(
                    message.format(e=text.strip().splitlines()[0] if text.strip() else name), hint=hint, code=code
                )
        if isinstance(each, OSError) and each.errno in OS_ERRORS:
            message, hint, code = OS_ERRORS[each.errno]
            return HeadtoolError(message.format(path=each.filename), hint=hint, code=code)
        if isinstance(each, OSError) and "No space left" in text:  # some libraries keep the text and lose the number
            message, hint, code = OS_ERRORS[errno.ENOSPC]
            return HeadtoolError(message, hint=hint, code=code)
    return None
