"""Every case of the table: that line, that code, a hint, nothing on stdout, nothing half-written."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import pytest

from bad_input import Case, cases
from hub import serve
from shell import call

ALL = [pytest.param(case, id=f"{name}: {case.command} {case.given}") for name, all in cases().items() for case in all]


@pytest.fixture
def hub(monkeypatch, tmp_path_factory):
    """The small hub of tests/hub.py, in place of the real one and of its cache."""
    from huggingface_hub import constants

    with serve() as running:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        template = running.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield running


@pytest.mark.parametrize("case", ALL)
def test_it_is_refused_in_one_line(case: Case, capsys, monkeypatch, tmp_path, request):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(case.stdin))
    for name, value in case.env.items():
        monkeypatch.setenv(name, value)
    if case.absent:
        find = importlib.util.find_spec
        lacking = lambda name, *more: None if name.startswith(case.absent) else find(name, *more)  # noqa: E731
        monkeypatch.setattr(importlib.util, "find_spec", lacking)
    if case.hub:
        request.getfixturevalue("hub")
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
    assert len(found) >= 450
