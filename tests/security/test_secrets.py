"""Tokens and passwords reach no file of a run, and no line of an error."""

from __future__ import annotations

import json

import pytest

from headtool.console import Console
from headtool.redact import redacted
from shell import call

TOKEN = "hf_0123456789abcdefXYZ"


@pytest.mark.parametrize(
    ("text", "without"),
    [
        (f"the token {TOKEN}, said once", "the token hf_***, said once"),
        ("https://me:pass@word@example.org/a?b=c", "https://***@example.org/a?b=c"),
        ("https://example.org/a?token=abc&b=c", "https://example.org/a?token=***&b=c"),
        ("/a?X-Amz-Signature=0af3&X-Amz-Credential=k%2Fz", "/a?X-Amz-Signature=***&X-Amz-Credential=***"),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer ***"),
        ('{"url": "s3://key:secret@bucket/x"}', '{"url": "s3://***@bucket/x"}'),
        ("a b@c.d hf_model token=3 key: 4 http://plain/", "a b@c.d hf_model token=3 key: 4 http://plain/"),
    ],
)
def test_what_is_hidden(text, without):
    assert redacted(text) == without
    assert redacted(without) == without


def test_a_token_is_known_by_its_value(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", 'odd "quoted" one')
    assert redacted('say odd "quoted" one') == "say ***"
    assert json.loads(redacted(json.dumps({"a": 'odd "quoted" one'}))) == {"a": "***"}
    monkeypatch.setenv("HF_TOKEN", "a")
    assert redacted("a banana") == "a banana"


def test_the_console_tells_no_secret(capsys, tmp_path):
    console = Console(log=tmp_path / "run.log", verbose=True)
    for speak in (console.note, console.detail, console.warn):
        speak(f"reading with {TOKEN}")
    said = capsys.readouterr()
    assert TOKEN not in said.err + (tmp_path / "run.log").read_text() + "".join(console.warnings)
    assert said.err.count("hf_***") == 3


@pytest.fixture
def secret(monkeypatch):
    """A token of no known form in the environment."""
    monkeypatch.setenv("HF_TOKEN", "value-of-the-token")
    return "value-of-the-token"


def no_trace(folder, *secrets):
    for file in folder.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        assert not any(each.encode() in content for each in secrets), file


def test_no_file_of_a_run_holds_a_token(capsys, tmp_path, secret):
    """Names of files and fields, which a run writes down, are made of tokens here; one row is bad, and noted by its file."""
    rows = tmp_path / f"rows-{secret}-{TOKEN}.jsonl"
    good = [json.dumps({"text": f"the lion {i} is red", "label": i % 2, f"x{secret}": 1}) for i in range(150)]
    rows.write_text("\n".join([*good, "not json"]))
    config = tmp_path / f"{TOKEN}.yaml"
    config.write_text(f"data: {rows}\nmemory: 2GB\n")
    said = call(
        capsys,
        "score",
        "demo",
        "--config",
        config,
        "--scores",
        "out,gradient",
        "--limit",
        151,
        "--out",
        tmp_path / "score",
        "--jsonl",
    )
    assert said.code == 0, said.err
    assert secret not in said.err
    args = ("--train", rows, "--eval", rows, "--limit", 140, "--subset", 8, "--epochs", 0.1, "--threads", 1)
    trained = call(capsys, "finetune", "demo-encoder", *args, "--out", tmp_path / "finetune", "-v")
    assert trained.code == 0, trained.err
    assert call(capsys, "report", tmp_path / "score", "--out", tmp_path / "report", "-q").code == 0
    for name in ("score", "finetune", "report"):
        no_trace(tmp_path / name, secret, TOKEN)
        assert "***" in (tmp_path / name / "manifest.json").read_text() or name == "report"


def test_no_error_holds_a_password(capsys, tmp_path, secret):
    said = call(capsys, "score", "demo", "--data", f"https://me:{secret}@example.org/x.jsonl?token={TOKEN}")
    assert secret not in said.err
    assert TOKEN not in said.err
    assert "https://***@example.org" in said.error
    rows = tmp_path / f"{secret}.jsonl"
    rows.write_text(json.dumps({"instruction": "Say something."}))
    said = call(capsys, "score", "demo", "--data", rows, "--out", tmp_path / "run")
    assert said.code == 1
    assert secret not in said.err
    no_trace(tmp_path / "run", secret)
