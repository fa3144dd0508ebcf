"""A model from the hub: a small server on this machine speaks the hub's endpoints."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from headtool.models.locate import locate
from shell import spawn

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/tiny"


class Hub(BaseHTTPRequestHandler):
    """One repository with one commit; one that is gated; nothing else."""

    folder = locate("demo").folder

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/models/someone/gated") or path.startswith("/someone/gated"):
            return self.send(403, b"gated", {"X-Error-Code": "GatedRepo"}, body)
        if path in (f"/api/models/{REPOSITORY}/revision/{r}" for r in ("main", COMMIT)):
            files = [{"rfilename": file.name} for file in sorted(self.folder.iterdir())]
            return self.send(200, json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": files}).encode(), {}, body)
        if path == f"/api/models/{REPOSITORY}/tree/{COMMIT}":
            tree = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                for file in sorted(self.folder.iterdir())
            ]
            return self.send(200, json.dumps(tree).encode(), {}, body)
        if path.startswith(f"/api/models/{REPOSITORY}/"):
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
        prefix = f"/{REPOSITORY}/resolve/{COMMIT}/"
        if path.startswith(prefix) and (self.folder / path.removeprefix(prefix)).is_file():
            content = (self.folder / path.removeprefix(prefix)).read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            return self.send(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT}, body)
        return self.send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)

    def send(self, code: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path):
    """The server's address, and an empty cache."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
    }
    server.shutdown()
    server.server_close()
    thread.join()


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
