"""headtool doctor: what it finds, what it says of what is amiss, and how it leaves."""

from __future__ import annotations

import http.server
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading

import pytest

import headtool
from headtool import checkup, completion
from shell import call

ALL = [
    "headtool",
    "python",
    "packages",
    "device",
    "memory",
    "disk",
    "hub",
    "families",
    "plug-ins",
    "completion",
    "model",
]


def found(capsys, *args, code=0):
    said = call(capsys, "doctor", "--json", *args)
    assert said.code == code, said.err
    return {finding["name"]: finding for finding in json.loads(said.out)["findings"]}


def test_every_thing_is_looked_at_and_fine_enough(capsys, monkeypatch):
    monkeypatch.setenv("SHELL", "/bin/bash")
    seen = found(capsys)
    assert list(seen) == ALL
    assert {f["state"] for f in seen.values()} <= {"ok", "note"}
    assert all(f["hint"] for f in seen.values() if f["state"] != "ok")
    assert f"{headtool.__version__} in " in seen["headtool"]["found"]
    assert "fp32" in seen["device"]["found"]
    assert "qwen3_moe" in seen["families"]["found"]
    assert "4 x 8 heads" in seen["model"]["found"]


def test_the_table_in_a_pipe_is_tab_separated(capsys):
    lines = call(capsys, "doctor").out.splitlines()
    assert lines[0] == "what\tstate\tfound\thint"
    assert [line.split("\t")[0] for line in lines[1:]] == ALL
    quiet = call(capsys, "doctor", "-q").out.splitlines()
    assert all(line.split("\t")[1] != "ok" for line in quiet[1:])


def test_from_python(capsys):
    assert [finding.name for finding in headtool.doctor()] == ALL


def test_what_is_amiss_makes_it_leave_with_1(capsys, monkeypatch):
    from importlib import metadata

    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.1" if name == "torch" else real(name))
    monkeypatch.setattr(metadata, "requires", lambda name: ["torch>=2.7", "nothing-like-it>3", "peft; extra == 'lora'"])
    seen = found(capsys, code=1)
    assert seen["packages"]["state"] == "amiss"
    assert "torch>=2.7" in seen["packages"]["hint"]
    assert "nothing-like-it>3" in seen["packages"]["hint"]
    assert "peft" not in seen["packages"]["hint"]
    assert "amiss: packages" in call(capsys, "doctor").error


def test_a_check_that_breaks_is_a_finding(monkeypatch, capsys):
    def broken():
        raise ZeroDivisionError("hf_0123456789abcdef")

    monkeypatch.setattr(checkup, "_memory", broken)
    assert found(capsys, code=1)["memory"]["found"] == "ZeroDivisionError: hf_***"
    assert "in broken" in call(capsys, "doctor", "--debug").err


@pytest.fixture
def hub(monkeypatch):
    """A hub that answers, and what it was asked."""
    asked = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, dict(self.headers)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield asked
    server.shutdown()
    server.server_close()


def test_the_hub_is_asked_without_a_token(hub, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789abcdef")
    seen = found(capsys)["hub"]
    assert seen["state"] == "ok"
    assert "a token is set" in seen["found"]
    assert "0123456789abcdef" not in json.dumps(seen) + json.dumps(hub)
    assert [path for path, _ in hub] == ["/api/models?limit=1"]


def test_a_hub_that_does_not_answer_is_a_note(hub, capsys, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://me:secret-word@127.0.0.1:9")
    seen = found(capsys, "--timeout", 0.5)["hub"]
    assert seen["state"] == "note"
    assert "http://***@127.0.0.1:9 cannot be reached" in seen["found"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in found(capsys)["hub"]["found"]


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", ".bash_completions/headtool.sh"),
        ("zsh", ".zfunc/_headtool"),
        ("fish", ".config/fish/completions/headtool.fish"),
    ],
)
def test_completion_is_looked_for_where_typer_puts_it(shell, file, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert checkup._completion().state == "note"
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).touch()
    assert checkup._completion().state == "ok"


CALL = "import sys; sys.argv = ['headtool', '--{}-completion']; from headtool.cli import main; main()"


@pytest.mark.parametrize(
    ("shell", "file", "lacking"),
    [
        ("bash", ".bash_completions/headtool.sh", "compopt -o nospace"),
        ("zsh", ".zfunc/_headtool", "== _headtool ]]; then _headtool_completion; fi"),
        ("fish", ".config/fish/completions/headtool.fish", "complete --command headtool"),
    ],
)
def test_what_is_installed_is_what_the_project_ships(tmp_path, shell, file, lacking):
    """Twice: Typer writes its own script, which is mended each time. And so is what is shown."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")

    def ask(what):
        call = shlex.join([sys.executable, "-c", CALL.format(what)])
        return subprocess.run(
            [shell, "-c", f"{call}; true"],
            env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    for _ in range(2):
        done = ask("install")
        assert "completion installed in" in done.stdout, done.stderr
        assert (tmp_path / file).read_text().count(lacking) == 1
    assert ask("show").stdout.strip() == (tmp_path / file).read_text().strip()


def test_a_script_that_cannot_be_read_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    bash, zsh = tmp_path / ".bash_completions" / "headtool.sh", tmp_path / ".zfunc" / "_headtool"
    for file, content in ((bash, b"\xff\xfe"), (zsh, b"#compdef headtool\n")):
        file.parent.mkdir()
        file.write_bytes(content)
    completion.mend()
    assert bash.read_bytes() == b"\xff\xfe"
    assert zsh.read_text().startswith("#compdef headtool\n\nif [[")
