"""A model from the hub: a small server on this machine speaks the hub's endpoints."""

from __future__ import annotations

import json

import pytest

from hub import COMMIT, REPOSITORY, serve
from shell import spawn


@pytest.fixture
def hub(tmp_path):
    """What tells a process of the server, and of an empty cache."""
    with serve() as running:
        yield running.environment(tmp_path / "home")


def score(model, cwd, env):
    return spawn("score", model, "--scores", "out", "--limit", "4", "-q", cwd=cwd, **env)


def test_a_model_is_fetched_once_and_found_offline(hub, tmp_path):
    first = score(f"{REPOSITORY}@{COMMIT}", tmp_path, hub)
    assert first.returncode == 0, first.stderr
    run = tmp_path / first.stdout.strip()
    inputs = json.loads((run / "manifest.json").read_text())["inputs"]
    assert (inputs["model"], inputs["revision"]) == (REPOSITORY, COMMIT)
    offline = score(REPOSITORY, tmp_path, hub | {"HF_HUB_OFFLINE": "1"})
    assert offline.returncode == 1  # the branch "main" was never asked for, only the commit
    offline = score(f"{REPOSITORY}@{COMMIT}", tmp_path, hub | {"HF_HUB_OFFLINE": "1"})
    assert (offline.returncode, offline.stdout) == (0, first.stdout)


@pytest.mark.parametrize(
    ("model", "code", "says"),
    [
        ("someone/gated", 2, "this model is gated"),
        ("someone/nothing", 2, "the hub has no such repository"),
        (f"{REPOSITORY}@nonsense", 2, "the hub has no such revision"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub, tmp_path, model, code, says):
    done = score(model, tmp_path, hub)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 2
    assert says in done.stderr
    assert "hint: " in done.stderr
    assert not (tmp_path / "runs").exists()
