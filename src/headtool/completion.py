"""What TAB offers for flags and arguments."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from headtool import folder

# Where a shell looks for headtool's script: where --install-completion puts it, and where a system's packages do.
PLACES = {
    "bash": ("~/.bash_completions/headtool.sh", "/usr/share/bash-completion/completions/headtool"),
    "zsh": ("~/.zfunc/_headtool", "/usr/share/zsh/site-functions/_headtool"),
    "fish": ("~/.config/fish/completions/headtool.fish", "/usr/share/fish/vendor_completions.d/headtool.fish"),
}


def mended(shell: str, script: str) -> str:
    """Typer's script for a shell, with what it lacks."""
    if shell == "bash":
        # No space after a folder: it may go on.
        lacking = "    [[ ${COMPREPLY[*]} == */ ]] && compopt -o nospace\n"
        return script if lacking in script else script.replace("    return 0", f"{lacking}    return 0")
    if shell == "zsh":
        # Found in fpath it is run as the function itself, at the first TAB: it has to answer that one, too.
        lacking = 'if [[ "${funcstack[1]}" == _headtool ]]; then _headtool_completion; fi'
        return script if lacking in script else f"{script.strip()}\n\n{lacking}\n"
    return script


def mend() -> None:
    """Mend the scripts that --install-completion has left; one that cannot be read or written stays as it is."""
    for shell, (place, _) in PLACES.items():
        path = Path(place).expanduser()
        with contextlib.suppress(OSError, UnicodeDecodeError):
            script = path.read_text(encoding="utf-8")
            if (better := mended(shell, script)) != script:
                path.write_text(better, encoding="utf-8")


def of_list(choices: tuple[str, ...], incomplete: str) -> list[str]:
    """Complete the last item of a comma-separated list."""
    head, comma, last = incomplete.rpartition(",")
    taken = head.split(",")
    return [f"{head}{comma}{name}" for name in choices if name.startswith(last) and name not in taken]


def complete_scores(incomplete: str) -> list[str]:
    return of_list(folder.offered("headtool.scores"), incomplete)


def complete_tasks(incomplete: str) -> list[str]:
    return [name for name in folder.names("headtool.tasks") if name.startswith(incomplete)]


def complete_families(incomplete: str) -> list[str]:
    return [name for name in folder.names("headtool.models.architectures") if name.startswith(incomplete)]


def complete_models(incomplete: str) -> list[str]:
    """The built-in models, then folders that hold a config.json and the folders on the way to them."""
    from headtool.models.locate import BUILT_IN

    return [name for name in BUILT_IN if name.startswith(incomplete)] + _folders(incomplete, "config.json")


def complete_decoders(incomplete: str) -> list[str]:
    """The same without the built-in encoder."""
    return [name for name in complete_models(incomplete) if name != "demo-encoder"]


def complete_class_tasks(incomplete: str) -> list[str]:
    """The tasks, and shapes of rows, whose examples have a class."""
    from headtool.tasks import splits

    return [name for name in splits.with_classes() if name.startswith(incomplete)]


def complete_made(incomplete: str) -> list[str]:
    """The made data sets of causal-train, as a list."""
    from headtool.causal import synthetic

    return of_list(tuple(synthetic.SETS), incomplete)


def complete_runs(incomplete: str) -> list[str]:
    """Finished runs of any command, and the folders on the way to them."""
    return _runs(incomplete, None)


def complete_scored(incomplete: str) -> list[str]:
    """Finished runs of score, and the folders on the way to them."""
    return _runs(incomplete, "score")


def complete_causal(incomplete: str) -> list[str]:
    """Finished runs of causal-train, and the folders on the way to them."""
    return _runs(incomplete, "causal-train")


def newest_scored(most: int = 3) -> list[str]:
    """The newest finished runs of score in the folder that runs go to by default, newest first."""
    found = [run for run in complete_scored(f"runs{os.sep}") if not run.endswith(os.sep)]
    return sorted(found, key=lambda run: (Path(run) / "manifest.json").stat().st_mtime, reverse=True)[:most]


def _runs(incomplete: str, command: str | None) -> list[str]:
    def fits(folder: Path) -> bool:
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            return bool(command in (None, manifest["command"]) and manifest["status"] == "done")
        except (OSError, ValueError, RecursionError, TypeError, KeyError):
            return False

    return _folders(incomplete, "manifest.json", fits)


def _folders(incomplete: str, holds: str, fits: Callable[[Path], bool] = lambda _: True) -> list[str]:
    """The folders that go on from what is typed; one that does not hold the file is on the way to others."""
    typed = Path(incomplete)
    above, start = (typed, "") if incomplete.endswith(("/", os.sep)) else (typed.parent, typed.name)
    try:
        found = sorted(p for p in above.iterdir() if p.is_dir() and p.name.startswith(start))
    except OSError:
        found = []
    visible = [p for p in found if start.startswith(".") or not p.name.startswith(".")]
    ends = {p: (p / holds).is_file() for p in visible}
    return [str(p) if end else f"{p}{os.sep}" for p, end in ends.items() if not end or fits(p)]
