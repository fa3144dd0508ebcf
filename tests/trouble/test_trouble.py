"""Bad days: a run that is killed, cut short, damaged or cut off is finished by the same call, with the same results.

Here each trouble comes over one or two jobs, and TORTURE=1 lets it come over all of them; tools/torture.py kills hundreds.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from trouble.jobs import JOBS

NOBODY = 65534
ALL = os.environ.get("TORTURE") == "1"
BY_NAME = {job.name: job for job in JOBS}


def over(*names):
    """Over these jobs, or with TORTURE=1 over all."""
    return pytest.mark.parametrize(
        "job", JOBS if ALL or not names else [BY_NAME[name] for name in names], ids=lambda job: job.name
    )


def each(argument, names, **values):
    """Every value over a job of its own, in turn, or with TORTURE=1 over all that have parts."""
    jobs = [job for job in JOBS if job.parts] if ALL else [BY_NAME[name] for name in names]
    pairs = [(job, value) for i, value in enumerate(values) for job in (jobs if ALL else [jobs[i % len(jobs)]])]
    return pytest.mark.parametrize(
        ("job", argument), [pytest.param(job, values[name], id=f"{job.name}-{name}") for job, name in pairs]
    )


@pytest.fixture
def small_disk():
    """A function that mounts a file system with these options, or gives the one there others. Not below tmp_path, which other
    sessions of pytest tidy away in time."""
    mounted = Path(tempfile.mkdtemp(prefix="headtool-disk-"))

    def leave() -> None:
        while os.path.ismount(mounted):
            subprocess.run(["umount", "-l", str(mounted)], capture_output=True, check=True)

    def mount(*options: str):
        if "remount" not in options:
            leave()
        call = ["mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(mounted)]
        if subprocess.run(call, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount; tests/commands/test_bad_input.py has a full disk without it")
        return mounted

    yield mount
    leave()
    mounted.rmdir()


def one_line(process, says, code=1):
    """It has said why in one line, with a hint."""
    assert process.code == code, process.err
    errors = [line for line in process.err.splitlines() if line.startswith("headtool: error: ")]
    assert len(errors) == 1, process.err
    assert says in errors[0], process.err
    assert "Traceback" not in process.err
    assert "  hint: " in process.err


@over()
def test_kill_9(stage, tmp_path, job):
    """Once it is under way, and what it then goes on with at a random moment: what was there is not made again."""
    run = tmp_path / "run"
    if job.parts:
        stage.half_done(job, run, parts=1, pattern=job.under_way)
    again = stage.start(job, run)
    time.sleep(random.Random(job.name).uniform(0, stage.seconds[job.name]))
    again.send(signal.SIGKILL)
    assert again.wait() in (0, -signal.SIGKILL), again.err
    said = again.err + stage.finish(job, run).err
    assert not job.parts or "going on: " in said or "goes on: " in said, said


def flip(file, where=0.5):
    content = bytearray(file.read_bytes())
    content[int(len(content) * where)] ^= 16
    file.write_bytes(content)


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    file.write_bytes(b"")


def gone(file):
    file.unlink()


@each("damage", ["finetune", "score", "ablation", "sampled"], flipped=flip, cut=cut, empty=empty, gone=gone)
def test_a_damaged_part(stage, tmp_path, job, damage):
    """One of two parts; of a checkpoint of a fine-tuning, its largest file."""
    parts = stage.half_done(job, tmp_path / "run")
    beside = [file for file in parts[0].parent.iterdir() if file.is_file()] if parts[0].name == "whole" else [parts[0]]
    damage(max(beside, key=lambda file: file.stat().st_size))
    stage.finish(job, tmp_path / "run")


FILES = ("optimizer.pt", "whole", "model.safetensors", "scheduler.pt", "trainer_state.json", "rng_state.pth")


@pytest.mark.parametrize(
    ("training", "name"),
    [(t, n) for t in ("finetune", "causal") for n in FILES]
    if ALL
    else [("finetune", "optimizer.pt"), ("causal", "whole")],
)
def test_any_file_of_the_last_checkpoint(stage, tmp_path, training, name):
    job = BY_NAME[training]
    parts = stage.half_done(job, tmp_path / "run")
    flip(parts[-1].parent / name)
    stage.finish(job, tmp_path / "run")


def test_what_is_known_of_the_beginning(stage, tmp_path):
    """A digit of start.json, and of ckpt_init."""
    job = BY_NAME["finetune"]
    stage.half_done(job, tmp_path / "run", parts=1)
    for file in (next((tmp_path / "run").glob("parts/*/start.json")), tmp_path / "run/ckpt_init/model.safetensors"):
        copy = tmp_path / file.name
        shutil.copytree(tmp_path / "run", copy)
        flip(copy / file.relative_to(tmp_path / "run"), 0.8)
        stage.finish(job, copy)


@each("damage", ["score", "finetune"], cut=cut, gone=gone)
def test_the_manifest_half_way(stage, tmp_path, job, damage):
    stage.half_done(job, tmp_path / "run", parts=1)
    damage(tmp_path / "run" / "manifest.json")
    stage.finish(job, tmp_path / "run")


@over("finetune", "report")
def test_any_file_of_a_finished_run(stage, tmp_path, job):
    """Damaged, it is made again, and with a warning; the manifest too, in which every byte counts."""
    run = tmp_path / "run"
    dice = random.Random(job.name)
    files = sorted(stage.expected(job))
    for name in [*dice.sample(files, min(len(files), 3 if ALL else 1)), "manifest.json"]:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(stage.whole / job.name, run)
        flip(run / name, dice.random())
        if name == "manifest.json" and json_of(run) is None:
            flip(run / name)
        process = stage.finish(job, run)
        assert "headtool: warning: " in process.err or "holds another run" in process.err


def json_of(run):
    with contextlib.suppress(ValueError):
        return json.loads((run / "manifest.json").read_text())


@over("score", "report")
def test_two_processes_on_one_directory(stage, tmp_path, job):
    """One does the work; the other says that it is at work, or finds it done."""
    both = [stage.start(job, tmp_path / "run") for _ in range(2)]
    for process in both:
        process.wait()
    assert sorted(process.code for process in both) in ([0, 0], [0, 1])
    for process in both:
        if process.code:
            one_line(process, "another process is at work")
    stage.check(job, tmp_path / "run")


@each("number", ["finetune", "ablation"], SIGTERM=signal.SIGTERM, SIGINT=signal.SIGINT)
def test_a_signal(stage, tmp_path, job, number):
    process = stage.start(job, tmp_path / "run")
    while not process.over() and not (tmp_path / "run" / "manifest.json").exists():
        time.sleep(0.001)
    process.send(number)
    assert process.wait() == 128 + number, process.err
    assert "Traceback" not in process.err
    assert process.err.splitlines()[-1].startswith("headtool: ")
    assert "; the same command goes on " in process.err.splitlines()[-1]
    assert process.out == ""
    stage.finish(job, tmp_path / "run")


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGTERM, 0.4), (signal.SIGTERM, 0.9), (signal.SIGINT, 3)])
def test_a_signal_to_a_process_as_a_shell_starts_it(tmp_path, number, seconds):
    """While it imports, and later."""
    args = [sys.executable, "-m", "headtool", "score", "demo", "--scores", "ablation", "--out", "run"]
    process = subprocess.Popen(args, cwd=tmp_path, stderr=subprocess.PIPE, text=True, stdout=subprocess.PIPE)
    time.sleep(seconds)
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode in (128 + number, -number, 0), err
    assert "Traceback" not in err


@over("report")
def test_nobody_reads_stdout(stage, tmp_path, job):
    """| head: the run is whole, the exit code says that its result was not taken."""
    reader, writer = os.pipe()
    os.close(reader)
    process = stage.run(job, tmp_path / "run", stdout=writer)
    os.close(writer)
    assert process.code == 1
    assert "Traceback" not in process.err
    assert "Error" not in process.err
    stage.check(job, tmp_path / "run")
    assert stage.finish(job, tmp_path / "run").out == f"{tmp_path / 'run'}\n"


@pytest.mark.parametrize("closed", [[2], [1, 2]], ids=["stderr", "both"])
@over("score")
def test_a_stream_is_closed_from_the_start(stage, tmp_path, job, closed):
    process = stage.run(job, tmp_path / "run", closed=closed)
    assert process.code == 0, process.err
    assert process.out == ("" if 1 in closed else f"{tmp_path / 'run'}\n")
    stage.check(job, tmp_path / "run")


@over("score", "finetune")
def test_a_full_disk(stage, small_disk, job):
    """At any size that is too small: one line. With more room the same call finishes."""
    for kilobytes in (16, 64, 256, 1024) if ALL else (64,):
        disk = small_disk(f"size={kilobytes}k")
        process = stage.run(job, disk / "run")
        if process.code:
            one_line(process, "the disk")
        assert not list(disk.rglob("*.tmp"))
        small_disk("remount", "size=50m")
        stage.finish(job, disk / "run")
        shutil.rmtree(disk / "run")


@over("ablation")
def test_a_file_system_that_becomes_read_only(stage, small_disk, job):
    disk = small_disk("size=50m")
    if job.parts:
        stage.half_done(job, disk / "run", parts=1)
    small_disk("remount", "ro")
    one_line(stage.run(job, disk / "run"), "read-only file system", code=2)
    small_disk("remount", "rw")
    stage.finish(job, disk / "run")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs users")
@over("report")
def test_a_directory_that_is_somebody_elses(stage, tmp_path, job):
    """A user who may read it, but not write there."""
    run = tmp_path / "run"
    assert stage.expected(job)
    shutil.copytree(stage.whole / job.name, run)
    (run / "manifest.json").unlink()
    root = os.getuid() == 0
    for above in (run, *run.parents):
        with contextlib.suppress(PermissionError):
            above.chmod(above.stat().st_mode | 0o055)
    for folder in (run, *(p for p in run.rglob("*") if p.is_dir())):
        folder.chmod(0o555)
    process = stage.run(job, run, user=NOBODY if root else None)
    for folder in (run, *(p for p in run.rglob("*") if p.is_dir())):
        folder.chmod(0o755)
    one_line(process, "permission denied", code=2)
    stage.finish(job, run)
