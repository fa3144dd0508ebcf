"""Processes of one run know of each other by their locks."""

from __future__ import annotations

import threading
import time

import pytest

from headtool.console import Console
from headtool.errors import HeadtoolError
from headtool.ranks import Share
from headtool.record import locks
from headtool.record.place import MARK
from headtool.record.run import Run

FIRST, SECOND = Share(0, 2, launched=True), Share(1, 2, launched=True)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    for name, seconds in (("POLL", 0.01), ("EVERY", 0.02), ("GONE", 0.3), ("LOOK", 0.2)):
        monkeypatch.setattr(locks, name, seconds)


ALONE = Share()


def start(path, share=ALONE, dry=False, seed=0):
    console, asked = Console(quiet=True, silent=share.index > 0), {"seed": seed}
    return Run.start(
        "score", asked, {}, label="m", out=path / "run", force=False, console=console, share=share, dry=dry
    )


def test_a_lock_has_one_owner_and_other_sharings_are_kept_out(tmp_path):
    lock = locks.take(tmp_path, FIRST)
    assert lock is not None
    assert locks.take(tmp_path, FIRST) is None
    assert locks.take(tmp_path, Share()) is None
    assert locks.others(tmp_path, SECOND) == [0]
    lock.release()
    assert locks.others(tmp_path, SECOND) == []
    assert locks.take(tmp_path, Share()) is not None


def alive(path, share, seconds):
    """A process of the run that is there for some seconds, as a thread: a lock is its thread's own."""
    there = threading.Event()

    def live():
        lock = locks.take(path, share)
        there.set()
        time.sleep(seconds)
        lock.release()

    thread = threading.Thread(target=live)
    thread.start()
    assert there.wait(10)
    return thread


def test_a_look_at_a_lock_does_not_keep_its_owner_out(tmp_path):
    looking = alive(tmp_path, SECOND, 0.1)
    assert locks.take(tmp_path, SECOND) is not None
    looking.join()


def test_nobody_waits_for_a_process_that_is_gone(tmp_path):
    with start(tmp_path, FIRST) as run:
        parts = run.parts({})
        (parts / "0.part").touch()
        begun = time.monotonic()
        lost = alive(run.path, SECOND, 0.5)
        with pytest.raises(HeadtoolError, match="process 2 of 2 has ended before its part was done") as error:
            run.every_part(parts, ["0.part", "1.part"], wait=True)
        assert error.value.code == 1
        lost.join()
        assert time.monotonic() - begun > 0.7  # it lived for a while, and might have been started again
        assert not run.every_part(parts, ["0.part", "1.part"], wait=False)
        (parts / "1.part").touch()
        assert run.every_part(parts, ["0.part", "1.part"], wait=True)


def test_one_that_is_slow_is_waited_for_and_one_that_is_done_may_leave(tmp_path):
    """Of three, the second is done and gone, the third at work: longer than one that is gone would be waited for."""
    share = Share(0, 3, launched=True)
    with start(tmp_path, share) as run:
        parts = run.parts({})
        third = alive(run.path, Share(2, 3, launched=True), 1.5)
        for name in ("0.part", "1.part"):
            (parts / name).touch()
        threading.Timer(0.8, (parts / "2.part").touch).start()
        assert run.every_part(parts, ["0.part", "1.part", "2.part"], wait=True)
        third.join()


def test_parts_stay_while_another_process_may_read_them(tmp_path):
    with start(tmp_path, FIRST) as run:
        parts = run.parts({})
        reading = alive(run.path, SECOND, 0.15)
        threading.Timer(0.1, lambda: seen.append(parts.exists())).start()
        seen: list[bool] = []
        run.finish()
        reading.join()
    assert seen == [True]
    assert not parts.exists()


def test_what_a_process_left_that_was_killed_as_it_finished(tmp_path):
    with start(tmp_path) as run:
        run.finish()
        (run.path / "parts").mkdir()
    assert start(tmp_path, dry=True).done
    assert (tmp_path / "run" / "parts").is_dir()  # a dry run touches nothing
    assert start(tmp_path).done
    assert not (tmp_path / "run" / "parts").exists()


def test_a_directory_says_whose_it_is_before_anything_is_in_it(tmp_path, monkeypatch):
    """Killed as it wrote the first file beside the mark, it is no stranger's folder; nor is it to the other process."""
    monkeypatch.setattr(Run, "_write_config", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        start(tmp_path, FIRST)
    monkeypatch.undo()
    assert [file.name for file in (tmp_path / "run").iterdir() if file.is_file() and "lock" not in file.name] == [MARK]
    (tmp_path / "run" / "config.yaml").touch()
    with start(tmp_path, SECOND) as second:
        assert second.share is SECOND


def test_a_place_with_nothing_in_it_is_taken_by_one_process_alone(tmp_path):
    with pytest.raises(ZeroDivisionError), start(tmp_path, seed=1):
        raise ZeroDivisionError
    for share in (FIRST, SECOND):
        with pytest.raises(HeadtoolError, match="holds another run"):
            start(tmp_path, share, seed=2)
    with start(tmp_path, seed=2) as run:
        assert run.manifest["arguments"]["seed"] == 2


def test_a_place_of_a_living_run_is_not_taken(tmp_path):
    """Neither at once, nor where it ends while another waits for its lock, having made something."""
    with start(tmp_path, seed=1), pytest.raises(HeadtoolError, match="another process is at work"):
        start(tmp_path, seed=2)
    refused: list[str] = []

    def come():
        try:
            start(tmp_path, seed=2)
        except HeadtoolError as error:
            refused.append(str(error))

    with start(tmp_path, seed=1) as run:
        other = threading.Thread(target=come)
        other.start()
        time.sleep(locks.LOOK / 4)
        (run.path / "tables" / "a.csv").write_text("the result")
        run.finish()
    other.join()
    assert len(refused) == 1
    assert "holds another run (score, done)" in refused[0]
    assert start(tmp_path, seed=1).done
