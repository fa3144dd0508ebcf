"""headtool in processes of its own that start in no time: forked from one that has imported everything and done nothing.

A process is what a user would have started: the same main(), its own directory, environment, streams and signals.
Where there is no fork (Windows), start() is an ordinary process.
"""

from __future__ import annotations

import array
import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

IMPORTED = (
    "importlib.readers", "torch", "transformers", "transformers.trainer", "transformers.models.llama.modeling_llama",
    "transformers.models.deberta_v2.modeling_deberta_v2", "transformers.models.deberta_v2.tokenization_deberta_v2",
    "polars", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "pydantic.fields", "pydantic.type_adapter", "scipy.stats", "scipy.special", "jinja2", "accelerate", "datasets", "filelock", "rich.table",
    "headtool.cli", "headtool.models.open", "headtool.models.classifier", "headtool.scores.outcome", "headtool.scores.rounds",
    "headtool.training.course", "headtool.training.outcome", "headtool.reporting.outputs", "headtool.reporting.analysis",
)  # fmt: skip

PATIENCE = 300  # seconds: on a machine that is busy with other things imports alone take a minute

CLIENT = """
import array, json, os, signal, socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect("@DOOR@")
ask = {"args": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ), "closed": [], "user": None}
line.sendmsg([json.dumps(ask).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
pid = int(line.recv(64))
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(pid, number))
code = int(line.recv(64))
sys.exit(code if code >= 0 else 128 - code)
"""


@dataclass
class Process:
    """A running headtool. wait() gives the exit code (minus the signal that ended it), as subprocess does."""

    pid: int
    line: socket.socket
    stdout: Path
    stderr: Path
    code: int | None = None

    def wait(self, timeout: float = PATIENCE) -> int:
        if self.code is None:
            self.line.settimeout(timeout)
            answer = self.line.recv(64)
            self.line.close()
            self.code = int(answer)
        return self.code

    def over(self) -> bool:
        """Has it ended?"""
        if self.code is None:
            self.line.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                self.code = int(self.line.recv(64))
                self.line.close()
        return self.code is not None

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if not self.over():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    @property
    def out(self) -> str:
        return self.stdout.read_text()

    @property
    def err(self) -> str:
        return self.stderr.read_text()


class Warm:
    """The process that the others are forked from."""

    def __init__(self, **env: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        env = {k: v for k, v in os.environ.items() if not k.startswith("HEADTOOL_")} | env
        self.server = subprocess.Popen([sys.executable, __file__, str(self.path / "socket")], env=env)
        self.count = 0

    def start(
        self,
        *args: object,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: int | None = None,
        closed: Sequence[int] = (),
        user: int | None = None,
    ) -> Process:
        """Start headtool with these arguments. stdout: a file descriptor in place of a file that keeps it; closed: streams
        (1, 2) that are closed from the start; user: as this one (root only)."""
        self.count += 1
        out, err = self.path / f"{self.count}.out", self.path / f"{self.count}.err"
        line = socket.socket(socket.AF_UNIX)
        until = time.monotonic() + PATIENCE
        while True:
            try:
                line.connect(str(self.path / "socket"))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                assert self.server.poll() is None
                assert time.monotonic() < until, "it does not answer"
                time.sleep(0.1)
        with out.open("wb") as keep, err.open("wb") as keep_err:
            stdin = os.open(os.devnull, os.O_RDONLY)
            streams = array.array("i", [stdin, keep.fileno() if stdout is None else stdout, keep_err.fileno()])
            ask = {
                "args": [str(a) for a in args],
                "cwd": str(cwd or Path.cwd()),
                "env": dict(env or {}),
                "closed": list(closed),
                "user": user,
            }
            line.sendmsg([json.dumps(ask).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
            os.close(stdin)
        line.settimeout(PATIENCE)
        return Process(int(line.recv(64)), line, out, err)

    def run(self, *args: object, **how) -> Process:
        """Start headtool and wait for its end."""
        process = self.start(*args, **how)
        process.wait()
        return process

    def command(self, folder: Path) -> Path:
        """A program `headtool` in a folder, for scripts that call it by its name: it hands its call on to here."""
        program = folder / "headtool"
        program.write_text(f"#!{sys.executable} -S\n{CLIENT.replace('@DOOR@', str(self.path / 'socket'))}")
        program.chmod(0o755)
        self.run("--version")  # it answers
        return program

    def close(self) -> None:
        self.server.kill()
        self.server.wait()
        self.folder.cleanup()


def serve(path: str) -> None:
    """Import, then fork a process for every call. Nothing is computed here: threads would not survive a fork."""
    parent = os.getppid()
    from headtool.cli import COMMANDS, module_of

    for name in (*IMPORTED, *map(module_of, COMMANDS)):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    door = socket.socket(socket.AF_UNIX)
    door.bind(path)
    door.listen()
    lines: dict[int, socket.socket] = {}
    door.settimeout(0.01)
    while os.getppid() == parent:
        with contextlib.suppress(TimeoutError):
            line, _ = door.accept()
            line.setblocking(True)
            said, ancillary, *_ = line.recvmsg(1 << 20, socket.CMSG_SPACE(12))
            streams = array.array("i")
            streams.frombytes(ancillary[0][2])
            pid = os.fork()
            if pid == 0:
                door.close()
                line.close()
                become(json.loads(said), streams)
            for stream in streams:
                os.close(stream)
            lines[pid] = line
            line.sendall(f"{pid}\n".encode())
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                line = lines.pop(ended[0])
                with contextlib.suppress(BrokenPipeError):
                    line.sendall(f"{os.waitstatus_to_exitcode(ended[1])}".encode())
                line.close()


def become(ask: dict, streams: array.array) -> None:
    """The child: headtool, as it would be if it had been started by a shell."""
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    for number in ask["closed"]:
        os.close(number)
        setattr(sys, {1: "stdout", 2: "stderr"}[number], None)
    if ask["user"] is not None:
        os.setgroups([])
        os.setgid(ask["user"])
        os.setuid(ask["user"])
    os.environ.update(ask["env"])
    os.chdir(ask["cwd"])
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["headtool", *ask["args"]]
    code = 1
    try:
        from headtool.cli import main

        main()
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
