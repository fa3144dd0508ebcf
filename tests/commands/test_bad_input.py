"""Bad input beyond the table of tests/bad_input: what is kept, what is said beside the line, what goes on all the same."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from bad_input.score import GOOD
from headtool.models.locate import BUILT_IN, locate
from shell import call


def rows(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_less_than_one_bad_row_in_a_hundred_is_left_out_and_named(capsys, tmp_path):
    many = rows(tmp_path / "b.jsonl", *[GOOD] * 150, "[1]", *[GOOD] * 5)
    said = call(capsys, "score", "demo", "--data", many, "--scores", "out", "--out", tmp_path / "run")
    assert said.code == 0
    assert f"1 of 156 rows cannot be read and are left out: {many}:151: not an object" in said.err


def test_a_run_that_failed_says_so_in_its_manifest(capsys, tmp_path):
    file = rows(tmp_path / "a.jsonl", {"instruction": "Say something."})
    said = call(capsys, "score", "demo", "--data", file, "--out", tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert said.error.endswith(manifest["error"])


def test_combined_is_made_without_what_is_defined_nowhere(capsys, tmp_path):
    args = ("score", "demo", "--query", "first", "--limit", "4", "-q", "--exclude-bos", "--out", tmp_path / "combined")
    said = call(capsys, *args)
    assert said.code == 0
    assert "'combined' is made without ent, task" in said.err


def test_a_byte_order_mark_is_no_text(capsys, tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(b"\xef\xbb\xbftext\nhello\n")
    assert call(capsys, "score", "demo", "--data", file, "--scores", "out", "-q", "--out", tmp_path / "run").code == 0


def test_a_place_where_no_directory_can_be_made(capsys):
    said = call(capsys, "score", "demo", "--out", "/proc/headtool-run")
    assert said.code == (2 if Path("/proc").exists() else 1)
    assert said.error


def test_a_full_disk(capsys, tmp_path, monkeypatch):
    """A write that fails for want of space: one line, exit 1, no half-written file; then the same call succeeds."""
    import os

    out = tmp_path / "run"
    real, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    args = ("score", "demo", "--scores", "out", "--limit", "8", "-q", "--out", out)
    monkeypatch.setattr(os, "fsync", full)
    said = call(capsys, *args)
    assert said.code == 1
    assert "no space left on the disk" in said.error
    assert not list(out.rglob("*.tmp"))
    monkeypatch.setattr(os, "fsync", real)
    assert call(capsys, *args).code == 0


def test_an_unknown_error_keeps_its_traceback(capsys, monkeypatch):
    import headtool.models.locate

    def bug(model):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(headtool.models.locate, "locate", bug)
    said = call(capsys, "score", "demo")
    assert said.code == 1
    assert "Traceback" in said.err
    assert "this is a bug in headtool" in said.err


def test_debug_shows_the_traceback_of_a_known_error(capsys, monkeypatch, tmp_path):
    args = ("score", "./nothing/here")
    assert "Traceback" in call(capsys, *args, "--debug").err
    file = rows(tmp_path / "a.yaml", "debug: true")
    assert "Traceback" in call(capsys, *args, "--config", file).err
    monkeypatch.setenv("HEADTOOL_DEBUG", "1")
    assert "Traceback" in call(capsys, *args).err
    monkeypatch.setenv("HEADTOOL_DEBUG", "false")
    assert "Traceback" not in call(capsys, *args).err


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_built_in_models_are_small(name):
    total = sum(file.stat().st_size for built in BUILT_IN for file in locate(built).folder.iterdir())
    assert total <= 2_000_000
    assert (locate(name).folder / "model.safetensors").is_file()
