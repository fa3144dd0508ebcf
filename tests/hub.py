"""A small server on this machine that speaks the hub's endpoints: repositories, commits, byte ranges, refusals, broken transfers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from headtool.models.locate import locate

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLDER = "76543210fedcba9876543210fedcba9876543210"
REPOSITORY = "someone/tiny"


@dataclass
class Hub:
    """One repository; whether the server sends ranges; after how many bytes a file's first transfers break off."""

    commits: dict[str, Path]
    branches: dict[str, str]
    ranges: bool = True
    breaks: dict[str, list[int]] = field(default_factory=dict)
    down: bool = False
    repository: str = REPOSITORY
    sent: list[tuple[str, str, int]] = field(default_factory=list)  # file, range asked for, bytes sent
    address: str = ""

    def environment(self, home: Path) -> dict[str, str]:
        return {"HF_ENDPOINT": self.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}

    def bytes_of(self, file: str) -> int:
        return sum(count for name, _, count in self.sent if name == file)


@contextlib.contextmanager
def serve(folder: Path | None = None, older: Path | None = None, **settings):
    """A running server: the demo model, or a folder, as REPOSITORY; main is COMMIT, and the branch "old" OLDER."""
    folder = folder or locate("demo").folder
    hub = Hub({COMMIT: folder, OLDER: older or folder}, {"main": COMMIT, "old": OLDER}, **settings)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    """One repository with its commits; one that is gated; nothing else."""

    hub: Hub

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, body: bool) -> None:
        path, named = self.path.split("?")[0], self.hub.repository
        if self.hub.down:
            return self.send(500, b"", {}, body)
        if path.startswith(("/api/models/someone/gated", "/someone/gated")):
            return self.send(403, b"gated", {"X-Error-Code": "GatedRepo"}, body)
        if path == f"/api/models/{named}":
            path += "/revision/main"
        known = {**self.hub.branches, **{commit: commit for commit in self.hub.commits}}
        for name, commit in known.items():
            files = sorted(f for f in self.hub.commits[commit].iterdir() if f.is_file())
            if path == f"/api/models/{named}/revision/{name}":
                listed = [{"rfilename": file.name} for file in files]
                return self.send(200, json.dumps({"id": named, "sha": commit, "siblings": listed}).encode(), {}, body)
            if path == f"/api/models/{named}/tree/{name}":
                tree = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40} for f in files]
                return self.send(200, json.dumps(tree).encode(), {}, body)
            prefix = f"/{named}/resolve/{name}/"
            if path.startswith(prefix) and (self.hub.commits[commit] / path.removeprefix(prefix)).is_file():
                return self.file(self.hub.commits[commit] / path.removeprefix(prefix), commit, body)
        if path.startswith(f"/api/models/{named}/"):
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
        return self.send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)

    def file(self, file: Path, commit: str, body: bool) -> None:
        content = file.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit}
        asked = self.headers.get("Range", "")
        code, whole = 200, len(content)
        if asked and self.hub.ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            content = content[int(first) : int(last) + 1 if last else None]
            code = 206
            headers |= {
                "Accept-Ranges": "bytes",
                "Content-Range": f"bytes {first}-{int(first) + len(content) - 1}/{whole}",
            }
        cut = self.hub.breaks.get(file.name)
        sent = content
        if body and cut and len(content) > cut[0]:
            sent = content[: cut.pop(0)]
        if body:
            self.hub.sent.append((file.name, asked, len(sent)))
        self.send(code, sent, headers | {"Content-Length": str(len(content))}, body)
        if len(sent) < len(content):
            self.close_connection = True
            self.wfile.flush()
            self.connection.close()

    def send(self, code: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            with contextlib.suppress(ConnectionError):  # whoever asked was killed
                self.wfile.write(content)

    def log_message(self, *args) -> None:
        """Say nothing."""
