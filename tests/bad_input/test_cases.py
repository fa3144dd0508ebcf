"""Every case of the table: that line, that code, a hint, nothing on stdout, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pytest

from bad_input import Case, cases
from shell import call

ALL = [pytest.param(case, id=f"{name}: {case.command} {case.given}") for name, all in cases().items() for case in all]


@pytest.mark.parametrize("case", ALL)
def test_it_is_refused_in_one_line(case: Case, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, value in case.env.items():
        monkeypatch.setenv(name, value)
    for scene in case.scene:
        scene()
    before = sorted(map(str, Path().rglob("*")))
    said = call(capsys, *case.words)
    assert case.fits(said.error), said.err
    assert said.code == case.code
    assert said.out == ""
    assert f"  hint: {case.hint}" in said.err
    left = sorted(map(str, Path().rglob("*")))
    assert (left != before) is case.keeps, sorted({*left} - {*before})


def test_the_table_is_a_table():
    found = [case for all in cases().values() for case in all]
    assert len({(case.command, case.given) for case in found}) == len(found)
    assert len(found) >= 150
