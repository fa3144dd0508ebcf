"""Commands as functions of Python: what no flag would take is refused before anything is done; the rest is as it was typed."""

from __future__ import annotations

import inspect
import json
import types

import numpy as np
import pytest

import headtool
from headtool.cli import COMMANDS
from headtool.errors import HeadtoolError

WRONG = [
    ("score", {"limit": "x"}, "limit='x': not a whole number"),
    ("score", {"limit": 0}, "limit=0: not a whole number from 1 to 1e+12"),
    ("score", {"top_k": "three"}, "top_k='three': not a whole number"),
    ("score", {"query": "lst"}, "query='lst': not one of auto, last, first, all"),
    ("score", {"lambda_ent": "1"}, "lambda_ent='1': not a number"),
    ("score", {"quiet": 1}, "quiet=1: not True or False"),
    ("score", {"seed": True}, "seed=True: not a whole number"),
    ("score", {"subset": True}, "subset=True: not a text"),
    ("score", {"out": 5}, "out=5: not a path"),
    ("score", {"out": ""}, "--out is empty"),
    ("score", {"config": "a.yaml"}, "config is of the command line"),
    ("inject", {"bits": {30: 31}}, "bits={30: 31}: not a text"),
    ("inject", {"margin": None}, "margin=None: not a number"),
    ("finetune", {"field": 3}, "field=3: not a list"),
    ("finetune", {"field": [{"a": 1}]}, "field=[{'a': 1}]: not a text"),
    ("report", {"compare": [None]}, "compare=[None]: not a text"),
]


@pytest.mark.parametrize(("command", "given", "says"), WRONG, ids=[w[2] for w in WRONG])
def test_what_no_flag_would_take(tmp_path, monkeypatch, command, given, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HeadtoolError) as caught:
        getattr(headtool, command)("demo", **given)
    assert str(caught.value) == says
    assert caught.value.hint
    if "=" in says:
        assert caught.value.hint == f"headtool {command} --help shows the values"
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_none():
    with pytest.raises(TypeError, match=r"headtool.score\(\): .*'scors'; did you mean 'scores'\?"):
        headtool.score("demo", scors="out")
    with pytest.raises(TypeError, match=r"headtool.score\(\): .*'colour'$"):
        headtool.score("demo", colour="red")
    with pytest.raises(TypeError, match="'retur'$"):
        headtool.score("demo", retur=1)


def test_a_mapping_is_a_flag_for_each_name(tmp_path):
    rows = [{"q": f"Which one is {word}?", "a": word} for word in ("red", "blue")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = headtool.score(
        "demo",
        data=tmp_path / "rows.jsonl",
        scores="out",
        field=types.MappingProxyType({"text": "q"}),
        out=tmp_path / "run",
    )
    assert json.loads((run / "manifest.json").read_text())["arguments"]["field"] == ["text=q"]


def test_values_are_as_a_shell_would_give_them(tmp_path):
    """Lists, numbers and paths of whatever class make the run that the words make: the second call finds it done."""
    same = {"out": tmp_path / "run", "quiet": True}
    run = headtool.score(
        "demo", scores="out,ent,task,combined", subset="4", batch_size="2", lambda_ent=2.0, seed=7, **same
    )
    before = json.loads((run / "manifest.json").read_text())
    again = headtool.score(
        "demo",
        ["out", "ent", "task", "combined"],
        subset=np.int64(4),
        batch_size=2,
        lambda_ent=2,
        seed=np.int32(7),
        **same,
    )
    assert again == run
    assert json.loads((run / "manifest.json").read_text()) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_the_doc_is_plain_text(command):
    function = getattr(headtool, command.replace("-", "_"))
    assert f"headtool {command}" in function.__doc__
    assert "[bold]" not in function.__doc__
    assert "[/]" not in function.__doc__
    assert "quiet" in inspect.signature(function).parameters
