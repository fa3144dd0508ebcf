"""What a CPU finds, a CUDA GPU finds: every family's scores and faults, the commands, training, interrupted runs."""

from __future__ import annotations

import copy
import dataclasses
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

import headtool
from families import ALL, VOCABULARY, random_batch, tiny
from headtool.causal import cauchy, one_vs_rest
from headtool.faults import asked, bits, guard, trial
from headtool.faults.fault import Fault, shape_of
from headtool.models import sites, suffix
from headtool.models.batches import IGNORED, Batch, Encoding, Examples
from headtool.models.devices import pick_device
from headtool.scores.ablation import Ablation
from headtool.scores.gradient import Gradient
from headtool.scores.tally import score_batch
from shell import call

if not torch.cuda.is_available():
    pytest.skip("with a CUDA GPU: GPU=1 python -m pytest tests/device", allow_module_level=True)

CUDA = pick_device("cuda")
FORWARD = ("out", "resid", "ent", "ent_rel", "task")
COVERED = [name for name in ALL if sites.covered(tiny(name))]
SCORES = "out,resid,ent,ent_rel,task,induction,ablation,gradient,fisher"


def there(adapter):
    """The same model on the GPU."""
    return dataclasses.replace(adapter, model=copy.deepcopy(adapter.model).to(CUDA), runs_on=CUDA)


def examples(adapter, lengths=(9, 5, 9, 7, 5, 9, 6)) -> Examples:
    """Random tokens; a class each, or the last two tokens to be predicted."""
    rng, made = np.random.default_rng(0), []
    for i, length in enumerate(lengths):
        ids = rng.integers(3, VOCABULARY, length).tolist()
        targets = [IGNORED] * (length - 2) + rng.integers(3, VOCABULARY, 2).tolist()
        made.append(Encoding(ids, targets=i % 3 if adapter.kind == "classifier" else targets))
    return Examples(made, pad=adapter.pad, types=False)


@pytest.mark.parametrize(("coarse", "close"), [(False, 1e-5), (True, 3e-3)])
def test_one_vs_rest(coarse, close):
    """The loss of a vocabulary and its gradients in float32, and by TF32 where asked, against float64."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    given = draw(64, 96), draw(64, 96).abs() + 0.1, draw(1000, 96), draw(1000)
    labels = torch.randint(0, 1000, (64,), generator=generator)
    found = []
    for dtype, where in ((torch.float64, "cpu"), (torch.float32, CUDA)):
        tensors = [x.to(where, dtype, copy=True).requires_grad_() for x in given]
        total = one_vs_rest.loss(cauchy, *tensors, labels.to(where), coarse=coarse)
        total.backward()
        found.append([total.detach(), *(x.grad for x in tensors)])
    for wanted, here in zip(*found, strict=True):
        assert (wanted - here.double().cpu()).norm() <= close * wanted.norm()
    assert not torch.backends.cuda.matmul.allow_tf32  # inside alone


@pytest.mark.parametrize("query", ["last", "all"])
@pytest.mark.parametrize("name", ALL)
def test_forward_scores(name, query):
    adapter = tiny(name)
    batch = random_batch(adapter)
    wanted, defined, evenly = score_batch(adapter, batch, FORWARD, query)
    found, also, even = score_batch(there(adapter), batch.to(CUDA), FORWARD, query)
    assert np.array_equal(defined, also)
    np.testing.assert_allclose(found[defined], wanted[defined], rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(even, evenly, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
@pytest.mark.parametrize("name", ALL)
def test_ablation(name, mode, tmp_path):
    found = []
    for adapter in (tiny(name), there(tiny(name))):
        folder = tmp_path / adapter.runs_on.type
        folder.mkdir()
        run = Ablation(adapter, examples(adapter), mode, 40, seed=7)
        assert run.engine.__name__ == "Sweep"
        for group in range(len(run.groups)):
            run.work(adapter, group, folder)
        found.append(run.merge(folder))
    np.testing.assert_allclose(found[1].loss, found[0].loss, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(found[1].base, found[0].base, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ALL)
def test_gradients(name, tmp_path):
    found = []
    for adapter in (tiny(name), there(tiny(name))):
        folder = tmp_path / adapter.runs_on.type
        folder.mkdir()
        data = examples(adapter)
        run = Gradient(data, data.plan(3, 0))
        for group in range(len(run.groups)):
            run.work(adapter, group, folder)
        found.append(run.merge(folder))
    for score in ("G", "F", "Ppred", "first_order"):
        wanted = getattr(found[0], score)
        np.testing.assert_allclose(getattr(found[1], score), wanted, rtol=2e-3, atol=1e-5 * (1 + np.abs(wanted).max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", COVERED)
@torch.inference_mode()
def test_faults(name, dtype):
    """A trial is the naive trial, both there: the whole model with the fault in it."""
    adapter = there(tiny(name, "", dtype))
    g, length = adapter.geometry, 12
    ids = random_batch(adapter, (length,)).ids
    targets = torch.tensor([1]) if adapter.kind == "classifier" else torch.roll(ids, -1, 1)
    if targets.dim() == 2:
        targets[:, -1] = IGNORED
    batch = Batch(ids, torch.ones_like(ids), np.arange(1), None, None, targets).to(CUDA)
    kept, _ = guard.usable(adapter, asked.detectors("range,masked,rowsum"), kv_equal=False)
    limits = {n: torch.full((g.layers, len(m.QUANTITIES)), 1e9, dtype=torch.float64) for n, m in kept.items()}
    made = trial.Setup(adapter, suffix.resumable(adapter, batch), kept, guard.Limits(limits))
    clean = suffix.Suffix(adapter, batch, cut=made.cut)
    top, rng = bits.bits_of(dtype) - 1, np.random.default_rng(3)
    close = {"rel": 1e-3, "abs": 2e-5} if dtype == torch.float32 else {"rel": 0.1, "abs": 0.05}
    moved = 0
    for site in sites.SITES:
        faults = []
        for bit in (top, top - 2, bits.MANTISSA[dtype] - 1):
            head, _, column = (int(rng.integers(n)) for n in shape_of(site, g, length))
            keep, flip = bits.masks(bits.parse("flip"), bit, dtype, rng)
            faults.append(Fault("forward", site, 1, 0, head, 4, column, "flip", bit, keep, flip, 3, 1))
        for fault, result in zip(faults, trial.run(made, clean, faults), strict=True):
            base, loss = trial.plain(adapter, batch, fault)
            assert result.after[0] == result.before[0] ^ (1 << fault.bit)
            assert result.nonfinite == (not np.isfinite(loss))
            if not result.nonfinite:
                assert result.loss_diff == pytest.approx(loss - base, **close)
                moved += abs(result.loss_diff) > 1e-6
    assert moved


@pytest.mark.parametrize("model", ["demo", "demo-encoder"])
def test_the_tables_of_score(model, tmp_path):
    runs = [
        headtool.score(model, scores=SCORES, limit=48, device=device, dtype="fp32", out=tmp_path / device, quiet=True)
        for device in ("cpu", "cuda")
    ]
    for table in ("heads", "importance", "gradfisher"):
        cpu, gpu = (pl.read_parquet(run / "tables" / f"{table}.parquet") for run in runs)
        exact = [name for name in cpu.columns if not name.startswith(("rank", "top_k", "p_", "differs"))]
        assert_frame_equal(gpu.select(exact), cpu.select(exact), rel_tol=1e-3, abs_tol=1e-4)


@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_the_tables_of_inject(phase, tmp_path):
    same = {"bits": "28-30", "layers": "0,3", "sequences": 2, "calibrate": 4, "seeds": 1, "phase": phase}
    same |= {"steps": "1,3"} if phase == "backward" else {"runs": 1}
    runs = [
        headtool.inject("demo", device=device, dtype="fp32", out=tmp_path / device, quiet=True, **same)
        for device in ("cpu", "cuda")
    ]
    columns = ["site", "layer", "sequence", "head", "row", "column", "bit"]
    cpu, gpu = (pl.read_parquet(run / "tables" / "trials.parquet").sort(columns) for run in runs)
    assert_frame_equal(gpu.select(columns), cpu.select(columns))
    harm = ["harmful", "nonfinite"]  # whether a change of 1e-8 is one is a matter of rounding
    alike = gpu["outcome"].is_in(harm) == cpu["outcome"].is_in(harm)
    assert alike.mean() > 0.97, pl.concat([cpu.filter(~alike), gpu.filter(~alike)]).write_csv()


@pytest.mark.parametrize(
    "words",
    [
        "score demo --scores out,ent,ablation,gradient --limit 64 --dtype fp32",
        "score demo --scores ablation --limit 64 --dtype bf16",
        "score demo-encoder --scores ablation --limit 96 --ablate-error 0.05",
        "inject demo --bits 10-15 --layers 0,3 --sequences 4 --calibrate 4 --runs 1",
        "inject demo --phase backward --bits 14-15 --layers 0 --sites v,scores --sequences 2 --seeds 1 --steps 1,3",
        "finetune demo-encoder --task demo --limit 64 --subset 32 --epochs 1 --lr 1e-3",
        "finetune demo --task demo --limit 64 --subset 32 --epochs 1 --lr 1e-3",
        "finetune demo --task demo --limit 64 --subset 32 --epochs 1 --lr 1e-3 --dtype fp32",
        "causal-train demo --task addition --examples 48 --epochs 1 --batch-size 8 --no-baselines",
    ],
    ids=lambda words: "-".join(words.split()[:4]),
)
def test_the_same_twice(words, tmp_path, capsys):
    from trouble.jobs import results

    for out in ("a", "b"):
        said = call(capsys, *words.split(), "--device", "cuda", "--out", tmp_path / out)
        assert said.code == 0, said.err
    a, b = (results(tmp_path / out) for out in ("a", "b"))
    apart = [name for name in a if a[name] != b.get(name)]
    assert not apart


def test_a_model_spread_over_gpu_and_memory(tmp_path):
    same = {"scores": SCORES, "limit": 8, "quiet": True, "dtype": "fp32"}
    spread = {"device_map": "auto", "max_memory": "0=700kB,cpu=10MB"}
    runs = [
        headtool.score("demo", out=tmp_path / str(len(more)), **same, **more) for more in ({"device": "cuda"}, spread)
    ]
    whole, apart = (pl.read_parquet(run / "tables" / "heads.parquet") for run in runs)
    assert_frame_equal(whole, apart, abs_tol=1e-5)


@pytest.mark.parametrize(
    "words",
    [
        "score demo --scores out,ablation --limit 64",
        "inject demo --bits 10-15 --layers 0 --sequences 4 --calibrate 4 --runs 1",
        "finetune demo-encoder --task demo --limit 64 --subset 32 --epochs 1 --lr 1e-3",
        "causal-train demo --task addition --examples 48 --epochs 1 --batch-size 8 --no-baselines",
    ],
    ids=lambda words: words.split()[0],
)
def test_by_torchrun(words, tmp_path):
    start = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "headtool")
    ended = subprocess.run(
        [*start, *words.split(), "--device", "cuda", "--quiet", "--out", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert (ended.returncode, ended.stdout) == (0, "run\n"), ended.stderr
    assert all(line.startswith("headtool: warning: ") for line in ended.stderr.splitlines()), ended.stderr


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_finetune_in(dtype, tmp_path, capsys):
    words = (
        f"finetune demo-encoder --task demo --limit 64 --subset 64 --epochs 2 --lr 1e-3 --device cuda --dtype {dtype}"
    )
    said = call(capsys, *words.split(), "--out", tmp_path / "run")
    assert said.code == 0, said.err
    told = pl.read_parquet(tmp_path / "run" / "tables" / "training.parquet")
    assert told["loss"].is_finite().all()


def test_memory_asked_for_is_kept(tmp_path, capsys):
    """A sweep with a budget holds no more than that, the model and its recording."""
    most = {}
    for memory in ("2MB", "200MB"):
        torch.cuda.reset_peak_memory_stats()
        said = call(
            capsys,
            "score",
            "demo",
            "--scores",
            "ablation",
            "--limit",
            "64",
            "--device",
            "cuda",
            "--memory",
            memory,
            "--out",
            tmp_path / memory,
        )
        assert said.code == 0, said.err
        most[memory] = torch.cuda.max_memory_allocated()
    assert most["2MB"] < most["200MB"] < 2 * 200e6 + most["2MB"]
