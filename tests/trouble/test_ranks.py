"""Two processes of one run, one of them killed: the other ends with one line, the same call finishes, as if nothing had been.

The processes are started with the environment that torchrun gives, and what torchrun does to those that are left is done
here: SIGTERM. One test starts torchrun itself.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from trouble.jobs import JOBS, Job, results
from trouble.warm import PATIENCE

ALL = os.environ.get("TORTURE") == "1"

BY_NAME = {job.name: job for job in JOBS}
PARTS = {
    "inject": "parts/*/trials-*.part",
    "finetune": "parts/*/checkpoint-6/whole",
}  # well into the work; else the job's own
TRAININGS = ("finetune", "causal")
LOST = [("score", 1), ("sampled", 1), ("inject", 0), ("finetune", 0), ("causal", 1)]


def start(warm, job: Job, out: Path):
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    return [
        warm.start(*job.words(out, out.parent), env=meet | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in (0, 1)
    ]


def through(warm, job: Job, out: Path) -> dict[str, str]:
    """Two processes that nobody disturbs: rank 0 alone speaks, and nothing is left over."""
    ranks = start(warm, job, out)
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].err + ranks[1].err
    assert [rank.out for rank in ranks] == [f"{out}\n", ""]
    assert not (out / "parts").exists()
    assert not list(out.rglob("*.tmp"))
    return results(out)


def until(job: Job, out: Path, over) -> None:
    """Wait until a run is well into its work."""
    while not over() and not list(out.glob(job.under_way or job.parts or "")):
        time.sleep(0.001)


def one_line(said: str) -> bool:
    """One error, or word of the signal; what a library says of its own stands beside."""
    ours = [line for line in said.splitlines() if line.startswith(("headtool: error: ", "headtool: terminated; "))]
    return len(ours) == 1 and "bug in headtool" not in said and "headtool.errors" not in said


@pytest.mark.parametrize(("name", "lost"), [(n, i) for n, _ in LOST for i in (0, 1)] if ALL else LOST)
def test_one_of_two_is_killed(stage, tmp_path, name, lost):
    """A sweep leaves the tables of one process, a training those of two, bit for bit."""
    job, warm = BY_NAME[name], stage.warm
    ranks = start(warm, job, tmp_path / "run")
    until(job, tmp_path / "run", lambda: any(rank.over() for rank in ranks))
    ranks[lost].send(signal.SIGKILL)
    assert ranks[lost].wait() == -signal.SIGKILL
    left = ranks[1 - lost]
    left.send(signal.SIGTERM)
    assert left.wait() in (1, 143, -signal.SIGTERM), left.err  # the signal may come when all has been said
    assert one_line(left.err), left.err
    again = through(warm, job, tmp_path / "run")
    assert again == (through(warm, job, tmp_path / "undisturbed") if name in TRAININGS else stage.expected(job))


def test_torchrun(stage, tmp_path):
    """As users start it: torchrun ends with a code, the process that is left with a line; one process finishes the rest."""
    job, out = BY_NAME["ablation"], tmp_path / "run"
    assert stage.expected(job)
    call = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "-m",
        "headtool",
        *job.words(out, stage.whole),
    ]
    launched = subprocess.Popen(call, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(job, out, lambda: launched.poll() is not None)
    ranks = {int(p.environ().get("RANK", -1)): p for p in psutil.Process(launched.pid).children()}
    ranks[1].kill()
    told, said = launched.communicate(timeout=PATIENCE)
    assert (launched.returncode, told) == (1, "")
    assert one_line(said), said
    stage.finish(job, out)
