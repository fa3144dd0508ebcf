"""Kill headtool again and again, and see that nothing is lost and nothing wrong is taken for right.

    python tools/torture.py [--kills 200] [--cold 10] [--seed 0] [--jobs score,finetune]

Every job of tests/trouble/jobs.py in turn: kill -9 at random moments on one directory until a run gets through, then the same
call, whose results must be those of an undisturbed run. --cold: so many kills are of processes that start as a shell starts them.
The other troubles, over all jobs: TORTURE=1 python -m pytest tests/trouble
"""

from __future__ import annotations

import argparse
import collections
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", NO_COLOR="1")

from trouble.jobs import JOBS
from trouble.stage import Stage
from trouble.warm import Warm


def cold(stage: Stage, job, out: Path, dice: random.Random) -> int:
    """One kill of a process that imports by itself; then the same call."""
    process = subprocess.Popen(
        [sys.executable, "-m", "headtool", *job.words(out, stage.whole)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(dice.uniform(0, 8 + 1.1 * stage.seconds[job.name]))
    process.send_signal(signal.SIGKILL)
    killed = process.wait() == -signal.SIGKILL
    stage.finish(job, out)
    return int(killed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--cold", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", default=",".join(job.name for job in JOBS))
    asked = parser.parse_args()
    dice = random.Random(asked.seed)
    jobs = [job for job in JOBS if job.name in asked.jobs.split(",")]
    kills: collections.Counter[str] = collections.Counter()
    rounds: collections.Counter[str] = collections.Counter()
    warm = Warm()
    stage = Stage(warm)
    try:
        for job in jobs:
            stage.expected(job)
        for turn, job in enumerate(itertools.cycle(jobs)):
            if sum(kills.values()) >= asked.kills + asked.cold:
                break
            with tempfile.TemporaryDirectory() as scratch:
                out = Path(scratch) / "run"
                in_all = sum(kills.values())
                kills[job.name] += stage.kills(job, out, dice) if in_all < asked.kills else cold(stage, job, out, dice)
                rounds[job.name] += 1
            print(
                f"{turn + 1:4} {job.name:10} {sum(kills.values())} kills, all finished with equal results", flush=True
            )
    finally:
        stage.close()
        warm.close()
    print("\njob          kills  runs")
    for name in kills:
        print(f"{name:10} {kills[name]:7} {rounds[name]:5}")
    print(f"{'all':10} {sum(kills.values()):7} {sum(rounds.values()):5}")


if __name__ == "__main__":
    main()
