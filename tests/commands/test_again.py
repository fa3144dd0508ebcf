"""A run done once more: from its own config.yaml, and what it says then."""

from __future__ import annotations

import builtins
import errno
import io

import pytest
import yaml
from rich.console import Console as Rich
from rich.text import Text

import headtool
from headtool.console import Aligned, Console, Fitted, plain
from headtool.faults import asked
from headtool.record import run as record
from headtool.record.manifest import OF_ONE_CALL
from shell import call

CALLS = {
    "score": "demo --scores out,induction --limit 6 --field text=text --data rows.jsonl",
    "inject": "demo --sites v --bits 30,31 --seeds 1 --sequences 2 --calibrate 2 --runs 2 --dtype fp32 --limit 8",
    "finetune": "demo-encoder --task demo --limit 16 --subset 8 --epochs 1",
    "causal-train": "demo --task addition --examples 16 --epochs 1 --no-baselines",
    "inspect-weights": "demo --spectrum none --no-figures",
}


@pytest.mark.parametrize("command", CALLS)
def test_its_own_configuration_names_the_same_run(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"text": "One and two."}\n' * 8)
    model, *flags = CALLS[command].split()
    first = call(capsys, command, model, *flags, "--out", "run", "-q")
    assert first.code == 0, first.err
    assert not OF_ONE_CALL & set(yaml.safe_load((tmp_path / "run" / "config.yaml").read_text()))
    again = call(capsys, command, model, "--config", "run/config.yaml", "--out", "run")
    assert (again.code, again.out) == (0, "run\n")
    assert again.err.startswith("headtool: done already; --force does it again\n")
    assert again.err.endswith((tmp_path / "run" / "summary.txt").read_text())
    assert f" {command}  {model}  " in again.err


V_ALONE = "demo --sites v --bits 31 --layers first --seeds 1".split()  # noqa: SIM905


def test_calibration_is_of_a_run_by_its_content(tmp_path, capsys):
    more = (*V_ALONE, "--sequences", "6", "--runs", "1", "-q")
    assert call(capsys, "inject", *more, "--calibrate", "6", "--out", tmp_path / "first").code == 0
    given = ("--calibration", tmp_path / "first" / "calibration.json", "--out", tmp_path / "run")
    assert call(capsys, "inject", *more, *given).code == 0
    again = call(capsys, "inject", "demo", "--config", tmp_path / "run" / "config.yaml", "--out", tmp_path / "run")
    assert (again.code, "done already" in again.err) == (0, True)


def test_how_often_costs_are_measured_is_part_of_an_injection(tmp_path, capsys):
    more = (*V_ALONE, "--sequences", "1", "--out", tmp_path / "run")
    assert call(capsys, "inject", *more, "--runs", "2", "-q").code == 0
    other = call(capsys, "inject", *more, "--runs", "3")
    assert (other.code, "it differs in --runs" in other.err) == (2, True)


def test_a_run_is_done_though_its_words_could_not_be_kept(tmp_path, capsys, monkeypatch):
    real = record.write_text

    def full(path, text):
        if path.name == "summary.txt":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, text)

    monkeypatch.setattr(record, "write_text", full)
    said = call(capsys, "score", "demo", "--scores", "induction", "--out", tmp_path / "run")
    assert (said.code, said.out) == (0, f"{tmp_path / 'run'}\n")
    again = call(capsys, "score", "demo", "--scores", "induction", "--out", tmp_path / "run")
    assert (again.code, again.err) == (0, "headtool: done already; --force does it again\n")


def test_words_are_kept_in_a_notebook_too(monkeypatch):
    class ZMQInteractiveShell:
        pass

    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    assert plain(Text("a " * 90, style="bold")) == f"{('a ' * 90).rstrip()}\n"


def test_a_line_goes_on_below_what_its_name_stands_above(capsys):
    out = io.StringIO()
    path = "a-long-name/of-a-file/that-is-not-broken.parquet"
    lines = Aligned([" left     one.parquet  two.parquet  three.parquet", f" page     {path}"])
    Rich(file=out, width=40, color_system=None).print(lines, crop=False)
    wanted = [" left     one.parquet  two.parquet", "          three.parquet", " page", f"          {path}"]
    assert out.getvalue().splitlines() == wanted
    Console().say("as it stands\n")
    assert capsys.readouterr().err == "as it stands\n"


def test_all_sites():
    assert asked.sites(" all ") == asked.SITES


def test_a_narrow_terminal_cuts_no_number():
    out = io.StringIO()
    table = Fitted(("head", "mean", "interval"), [["a", "12.345", "[1.25, 2.5]"], ["bcd", "1.5", "[0.25, 0.5]"]])
    Rich(file=out, width=20, color_system=None).print(table, crop=False)
    first, *rows = out.getvalue().splitlines()
    assert first.split() == ["head", "mean"]
    assert [row.split() for row in rows[:2]] == [["a", "12.345"], ["bcd", "1.5"]]
    assert (
        " ".join(" ".join(rows[2:]).split())
        == "no room for interval: in a wider terminal, in summary.txt, in the tables"
    )
    assert plain(table).splitlines()[1].split() == ["a", "12.345", "[1.25,", "2.5]"]


def test_warnings_stand_before_the_words(tmp_path, capsys):
    flags = ("demo-encoder", "--scores", "update", "--init", "demo-encoder", "--out", tmp_path / "run")
    assert call(capsys, "score", *flags, "-q").code == 0
    again = call(capsys, "score", *flags)
    assert "headtool: warning: U is 0 for every head" in again.err.splitlines()[1]


def test_from_python_the_result_is_returned_and_not_printed(tmp_path, capsys):
    run = headtool.score("demo", scores="induction", out=tmp_path / "run", quiet=True)
    assert (run, capsys.readouterr().out) == (tmp_path / "run", "")
