"""What a finished run left, sealed in its manifest: whether it is still as it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headtool.record.files import fingerprint, fingerprints
from headtool.redact import redacted

CLOSING = "summary.txt"  # what a terminal was shown at the end
SAID = ("manifest.json", "config.yaml", "run.log", CLOSING)  # what says whose a directory is and how it went
UNSEALED = (*SAID, "parts")  # of which no fingerprint is kept


def close(path: Path, manifest: dict[str, Any]) -> None:
    """Put into a manifest what the run directory holds, and the hash of all that the manifest says."""
    found = fingerprints(path)
    manifest["files"] = {name: found[name] for name in found if name.split("/")[0] not in UNSEALED}
    manifest["seal"] = _hash(manifest)


def broken(path: Path, manifest: Mapping[str, Any]) -> Path | None:
    """The first file that is not as the run left it, the manifest itself before all others; None where all are."""
    if manifest.get("seal") != _hash(manifest):
        return path / "manifest.json"
    for name, digest in manifest["files"].items():
        file = path / name
        if not file.is_file() or fingerprint(file) != digest:
            return file
    return None


def _hash(manifest: Mapping[str, Any]) -> str:
    said = {name: value for name, value in manifest.items() if name != "seal"}
    return hashlib.sha256(redacted(json.dumps(said, sort_keys=True)).encode()).hexdigest()
