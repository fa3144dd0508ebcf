"""headtool download, against a server that speaks the hub's endpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from headtool.models.locate import locate
from hub import COMMIT, OLDER, REPOSITORY, serve
from shell import spawn

DEMO = locate("demo").folder


@pytest.fixture
def models(tmp_path):
    """Two commits of a repository: in the older one the configuration is another; both also have a pickle."""
    new, old = tmp_path / "new", tmp_path / "old"
    for folder in (new, old):
        shutil.copytree(DEMO, folder)
        (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (old / "config.json").write_text(json.dumps({"model_type": "llama", "older": True}))
    return new, old


def download(hub, tmp_path, *args, **env):
    return spawn("download", *args, cwd=tmp_path, **hub.environment(tmp_path / "home") | env)


def same(folder: Path, model: Path) -> bool:
    files = [f for f in model.iterdir() if f.suffix != ".bin"]
    return all((folder / f.name).read_bytes() == f.read_bytes() for f in files)


def test_into_the_cache_and_again_offline(models, tmp_path):
    with serve(*models) as hub:
        done = download(hub, tmp_path, REPOSITORY)
        assert done.returncode == 0, done.stderr
        folder = Path(done.stdout.strip())
        assert folder.name == COMMIT
        assert same(folder, models[0])
        assert not (folder / "pytorch_model.bin").exists()
        before = len(hub.sent)
        again = download(hub, tmp_path, REPOSITORY)
        assert (again.stdout, len(hub.sent)) == (done.stdout, before)
        offline = download(hub, tmp_path, REPOSITORY, HF_HUB_OFFLINE="1")
        assert (offline.returncode, offline.stdout) == (0, done.stdout)
        hub.down = True
        unreachable = download(hub, tmp_path, REPOSITORY)
        assert (unreachable.returncode, unreachable.stdout) == (0, done.stdout), unreachable.stderr


def test_into_a_folder_with_its_commit_on_record(models, tmp_path):
    with serve(*models) as hub:
        done = download(hub, tmp_path, REPOSITORY, "--out", "models", "--json")
        assert done.returncode == 0, done.stderr
        folder = tmp_path / "models" / "someone" / "tiny"
        told = json.loads(done.stdout)
        assert Path(told["folder"]) == folder
        record = json.loads((folder / "manifest.json").read_text())
        assert (record["id"], record["commit"]) == (REPOSITORY, COMMIT)
        assert record["files"] == told["files"] == {f.name: f.stat().st_size for f in DEMO.iterdir()}
        assert same(folder, models[0])
        assert locate(str(folder)).fingerprint()["weights_sha256"] == locate("demo").fingerprint()["weights_sha256"]


@pytest.mark.parametrize(("revision", "commit", "which"), [("old", OLDER, 1), (OLDER, OLDER, 1)])
def test_revisions(models, tmp_path, revision, commit, which):
    with serve(*models) as hub:
        by_flag = download(hub, tmp_path, REPOSITORY, "--revision", revision)
        by_id = download(hub, tmp_path, f"{REPOSITORY}@{revision}")
        assert by_flag.returncode == 0, by_flag.stderr
        assert by_flag.stdout == by_id.stdout
        assert Path(by_flag.stdout.strip()).name == commit
        assert same(Path(by_flag.stdout.strip()), models[which])


def test_globs(models, tmp_path):
    with serve(*models) as hub:
        done = download(hub, tmp_path, REPOSITORY, "--out", "m", "--include", "*.json,*.bin", "--exclude", "tok*")
        assert done.returncode == 0, done.stderr
        names = {f.name for f in Path(done.stdout.strip()).iterdir() if f.is_file()}
        assert names == {"config.json", "training.json", "pytorch_model.bin", "manifest.json"}


def test_a_dry_run_lists_and_touches_nothing(models, tmp_path):
    with serve(*models) as hub:
        done = download(hub, tmp_path, REPOSITORY, "--out", "models", "--dry-run")
        assert done.returncode == 0, done.stderr
        rows = [line.split("\t") for line in done.stdout.splitlines()]
        total = sum(f.stat().st_size for f in DEMO.iterdir())
        assert ["total", str(total)] in rows
        assert ["missing", str(total)] in rows
        assert ["model.safetensors", str((DEMO / "model.safetensors").stat().st_size), "missing"] in rows
        assert not (tmp_path / "models").exists()
        assert not hub.sent


@pytest.fixture
def large(tmp_path):
    """A model whose file arrives in three of the library's blocks of 10 MB."""
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 100_000)
    return folder


BLOCK = 10 << 20


def test_a_broken_transfer_goes_on_where_it_stopped(large, tmp_path):
    size = (large / "model.safetensors").stat().st_size
    with serve(large, breaks={"model.safetensors": [BLOCK + 5]}) as hub:
        done = download(hub, tmp_path, REPOSITORY)
        assert done.returncode == 0, done.stderr
        assert same(Path(done.stdout.strip()), large)
        asked = [(at, count) for name, at, count in hub.sent if name == "model.safetensors"]
        assert asked == [("", BLOCK + 5), (f"bytes={BLOCK}-", size - BLOCK)]


def test_a_download_that_gave_up_keeps_the_files_that_are_whole(large, tmp_path):
    """The first process gets two blocks of the weights and then nothing; a second one fetches that file alone."""
    (large / "config.json").write_text("{}")
    size = (large / "model.safetensors").stat().st_size
    with serve(large, breaks={"model.safetensors": [2 * BLOCK + 5, *[0] * 8]}) as hub:
        broken = download(hub, tmp_path, REPOSITORY, "--out", "m")
        assert broken.returncode == 1, broken.stderr
        assert broken.stderr.count("headtool: error:") == 1
        assert "Traceback" not in broken.stderr
        assert not (tmp_path / "m" / "someone" / "tiny" / "model.safetensors").exists()
        assert not (tmp_path / "m" / "someone" / "tiny" / "manifest.json").exists()
        hub.breaks.clear()
        hub.sent.clear()
        done = download(hub, tmp_path, REPOSITORY, "--out", "m")
        assert done.returncode == 0, done.stderr
        assert same(Path(done.stdout.strip()), large)
        assert [(name, count) for name, _, count in hub.sent] == [("model.safetensors", size)]


def test_no_hub_that_answers_and_nothing_in_the_cache(models, tmp_path):
    with serve(*models) as hub:
        address = hub.environment(tmp_path / "home")
    done = spawn("download", REPOSITORY, cwd=tmp_path, **address)
    assert done.returncode == 1, done.stderr
    assert "not in the cache" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_disk_without_room(models, tmp_path, monkeypatch):
    """Said before a byte is fetched."""
    from types import SimpleNamespace

    from headtool.console import Console
    from headtool.errors import HeadtoolError
    from headtool.models import fetch

    wish = fetch.Wish(REPOSITORY, None, (), (), None, tmp_path / "models")
    monkeypatch.setattr(fetch, "_plan", lambda wish: [SimpleNamespace(file_size=2**40, will_download=True)])
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**30))
    with pytest.raises(HeadtoolError, match="no space: 1.10 TB are missing") as error:
        fetch.fetch(wish, Console(quiet=True))
    assert error.value.code == 1
    assert not (tmp_path / "models").exists()
