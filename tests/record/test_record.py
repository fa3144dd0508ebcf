"""Tables that keep their schema, files that are whole or absent, parts that know their damage."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headtool.completion import of_list
from headtool.console import Console
from headtool.errors import HeadtoolError, translate
from headtool.options import number_or
from headtool.ranks import Share, share
from headtool.record import tables
from headtool.record.clock import Clock, peak_memory
from headtool.record.files import read_part, whole, write_part

KEYS = {"layer": [1, 0], "head": [0, 0]}


def test_a_table_is_sorted_and_typed():
    frame = tables.build("scores_raw", KEYS | {"out_n": [3, 4], "out_raw": [None, 2.0]}, ["out"])
    assert frame.columns == ["layer", "head", "out_raw", "out_n"]
    assert frame.rows() == [(0, 0, 2.0, 4), (1, 0, None, 3)]
    assert frame.schema["layer"] == pl.Int32


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (KEYS | {"out_rwa": [1.0, 2.0]}, "no column"),
        (KEYS | {"ent_raw": [1.0, 2.0]}, "no column"),
        ({"layer": [0]}, "needs the columns"),
        (KEYS | {"out_raw": [1.0, float("nan")]}, "NaN"),
        (KEYS | {"out_raw": [1.0, float("inf")]}, "NaN"),
    ],
)
def test_a_table_refuses_what_its_schema_does_not_know(columns, says):
    with pytest.raises(ValueError, match=says):
        tables.build("scores_raw", columns, ["out"])


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a"

    def fail_half_way():
        with whole(path) as file:
            file.write(b"half")
            raise RuntimeError

    pytest.raises(RuntimeError, fail_half_way)
    assert list(tmp_path.iterdir()) == []
    with whole(path) as file:
        file.write(b"all")
    assert path.read_bytes() == b"all"
    assert path.stat().st_mode & 0o444


@given(st.data())
def test_a_part_with_any_byte_changed_or_cut_is_none(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("part") / "a.part"
    write_part(path, {"x": np.arange(5.0), "n": np.array([3])})
    assert read_part(path)["x"].tolist() == [0, 1, 2, 3, 4]
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[at:]
    path.write_bytes(content)
    assert read_part(path) is None
    path.unlink()
    assert read_part(path) is None


@given(st.text(max_size=12))
def test_any_text_is_a_number_or_an_error(given_text):
    try:
        found = number_or("auto", given_text, "--batch-size")
    except HeadtoolError:
        return
    assert given_text == "auto" if found is None else found >= 1


def test_a_shell_without_completion_gets_one_line(tmp_path):
    for flag in ("--show-completion", "--install-completion"):
        command = ["sh", "-c", f"{sys.executable} -m headtool {flag}; exit $?"]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"HOME": str(tmp_path)}
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            f"headtool: error: {flag}: there is no completion for this shell\n  hint: call it from one of bash, zsh, fish\n"
        )


def test_completion_of_lists():
    assert of_list(("out", "ent", "ent_rel"), "out,e") == ["out,ent", "out,ent_rel"]
    assert of_list(("out", "ent", "ent_rel"), "ent,ent") == ["ent,ent_rel"]


def test_shares_are_a_partition(monkeypatch):
    for count in (1, 2, 5):
        owned = [unit for i in range(count) for unit in range(23) if Share(i, count).owns(unit)]
        assert sorted(owned) == list(range(23))
    assert share("2/3") == Share(1, 3)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert share(None) == Share(1, 2, launched=True)
    with pytest.raises(HeadtoolError, match="two ways"):
        share("1/2")


def test_foreign_errors_are_one_line():
    class GatedRepoError(Exception):
        pass

    wrapped = OSError("something else")
    wrapped.__cause__ = GatedRepoError("403")
    assert "gated" in str(translate(wrapped))
    assert translate(OSError(28, "No space left on device")).code == 1
    assert translate(KeyError("x")) is None
    assert str(translate(BrokenPipeError())) == ""
    assert "out of memory" in str(translate(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")))


def test_the_clock_counts():
    clock = Clock()
    for _ in range(2):
        with clock.phase("forward"):
            clock.count(tokens=5)
    assert clock.counts == {"tokens": 10}
    assert clock.rate("tokens", "forward") > 0
    assert clock.rate("tokens", "other") is None
    assert peak_memory() > 10_000_000


def test_the_console_keeps_stdout_for_the_result(capsys, tmp_path):
    console = Console(log=tmp_path / "run.log")
    console.note("a note")
    console.warn("a warning")
    with console.progress("work", 3) as advance:
        advance(3)
    console.result("result", {})
    said = capsys.readouterr()
    assert said.out == "result\n"
    assert said.err == "headtool: a note\nheadtool: warning: a warning\n"
    assert (tmp_path / "run.log").read_text().count("\n") == 2
    quiet = Console(quiet=True)
    quiet.note("a note")
    quiet.warn("a warning")
    assert capsys.readouterr().err == "headtool: warning: a warning\n"
