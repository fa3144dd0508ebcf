"""A download that is killed: what stands under a file's name is the whole file, and the same call fetches the rest."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hub import COMMIT, REPOSITORY, serve
from shell import spawn

KILLS = 40 if os.environ.get("TORTURE") == "1" else 2
SECONDS = 2.0  # what a download takes, its imports included


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Weights in several of the library's blocks of 10 MB, and small files."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "model.safetensors").write_bytes(random.Random(0).randbytes(45_000_000))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text(json.dumps({"of": name}) * 1000)
    return folder


@pytest.mark.parametrize("into", ["models", None], ids=["folder", "cache"])
def test_kill_9(model, tmp_path, into):
    """As soon as bytes have arrived, and at random moments."""
    args = ["download", REPOSITORY, *(["--out", into] if into else [])]
    dice, caught = random.Random(into), 0
    with serve(model) as hub:
        env = hub.environment(tmp_path / "home")
        for turn in range(KILLS):
            process = subprocess.Popen(
                [sys.executable, "-m", "headtool", *args], cwd=tmp_path, env=os.environ | env,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            end = time.monotonic() + dice.uniform(0, SECONDS)
            while process.poll() is None and (time.monotonic() < end if turn else not half_way(tmp_path)):
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            caught += process.wait() == -signal.SIGKILL
            for file in model.iterdir():
                for found in tmp_path.rglob(file.name):
                    assert found.read_bytes() == file.read_bytes()
        assert caught
        done = spawn(*args, cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / done.stdout.strip()
    assert all((folder / file.name).read_bytes() == file.read_bytes() for file in model.iterdir())
    if into:
        record = json.loads((folder / "manifest.json").read_text())
        sizes = {file.name: file.stat().st_size for file in model.iterdir()}
        assert record == {"id": REPOSITORY, "commit": COMMIT, "files": sizes}
        assert not half_way(tmp_path)  # the hub's cache is its library's to tidy


def half_way(folder: Path) -> list[Path]:
    """What the library has begun to write."""
    found = []
    for path in folder.rglob("*.incomplete"):
        with contextlib.suppress(FileNotFoundError):  # it is renamed as soon as it is whole
            if path.stat().st_size:
                found.append(path)
    return found
