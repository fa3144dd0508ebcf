"""What an inspection of weights costs: CPU time and memory against how others do it, and against the floor.

    python benchmarks/bench_weights.py [--rounds 1] [--models 0.5B,4B] [--bert FOLDER] [--peers PYTHON] [--json FILE]

Synthetic bf16 checkpoints (normal weights, shards of about 300 MB) with the shapes of Qwen2.5-0.5B and of three layers of
Qwen3-4B, and a real BERT where --bert names one. Each engine runs in a process of its own, one after the other:

    headtool      headtool inspect-weights, everything by default: statistics, spectra, heads, tables, figures
    tables        the same without figures: the best of three
    moments       headtool inspect-weights --spectrum none, without figures: the best of five
    transformers  from_pretrained, then for each matrix torch.linalg.matrix_rank in float32, mean, std, min, max, sparsity
    weightwatcher from_pretrained, then WeightWatcher().analyze() (by --peers PYTHON where it is installed elsewhere; left
                  out where it is not installed)
    floor         the time of what cannot be left out, at rates measured in a process of its own: reading every byte, the
                  Gram matrix of every matrix in the precision it was taken in, its eigenvalues
    touch         reading every byte, widening every element to float32 and adding it up once: the floor of moments

Prints CPU seconds (user and system, start-up included), wall seconds and peak resident memory, and ratios over headtool's;
of moments also what is left of them without start-up and tables.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

SHAPES = {
    "0.5B": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
             "num_key_value_heads": 2, "vocab_size": 151936, "head_dim": 64},
    "4B": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 3, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 151936, "head_dim": 128},
}  # fmt: skip
SHARD = 300e6
AGAIN = {"tables": 3, "moments": 5}  # beside a floor that is the best of several
PEERS = {
    "transformers": "loading with transformers, `matrix_rank` of each matrix", "weightwatcher": "weightwatcher `analyze`",
}  # fmt: skip


def make(which: str, folder: Path) -> None:
    """A checkpoint of a shape, with an index over its shards."""
    import torch
    from safetensors.torch import save_file

    c = SHAPES[which]
    d, inner, queries, keys = c["hidden_size"], c["intermediate_size"], *(
        c[n] * c["head_dim"] for n in ("num_attention_heads", "num_key_value_heads")
    )  # fmt: skip
    family = {"0.5B": "Qwen2", "4B": "Qwen3"}[which]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (c["vocab_size"], d)}
    for i in range(c["num_hidden_layers"]):
        block = f"model.layers.{i}"
        parts = {"q_proj": (queries, d), "k_proj": (keys, d), "v_proj": (keys, d), "o_proj": (d, queries)}
        shapes |= {f"{block}.self_attn.{name}.weight": shape for name, shape in parts.items()}
        if family == "Qwen2":
            shapes |= {f"{block}.self_attn.{name}.bias": (parts[name][0],) for name in ("q_proj", "k_proj", "v_proj")}
        else:
            shapes |= {f"{block}.self_attn.{name}.weight": (c["head_dim"],) for name in ("q_norm", "k_norm")}
        shapes |= {f"{block}.mlp.{name}.weight": (inner, d) for name in ("gate_proj", "up_proj")}
        shapes |= {f"{block}.mlp.down_proj.weight": (d, inner)}
        shapes |= {f"{block}.{name}.weight": (d,) for name in ("input_layernorm", "post_attention_layernorm")}
    shapes["model.norm.weight"] = (d,)
    torch.manual_seed(0)
    held: dict[str, torch.Tensor] = {}
    files: dict[str, list[str]] = {}
    for n, (name, shape) in enumerate(shapes.items(), 1):
        held[name] = torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02)
        if sum(t.numel() * 2 for t in held.values()) > SHARD or n == len(shapes):
            file = f"model-{len(files) + 1:05d}.safetensors"
            save_file(held, folder / file, metadata={"format": "pt"})
            files[file] = list(held)
            held = {}
    index = {"metadata": {}, "weight_map": {name: file for file, names in files.items() for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = c | {
        "architectures": [f"{family}ForCausalLM"], "model_type": family.lower(), "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 4096, "rope_theta": 1e6,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def load(folder: str):
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = transformers.AutoModelForCausalLM if "CausalLM" in str(config.architectures) else transformers.AutoModel
    return kind.from_pretrained(folder, dtype="auto")


def by_transformers(folder: str) -> None:
    """The way scripts do it."""
    import torch

    found = {}
    for name, parameter in load(folder).named_parameters():
        x = parameter.detach().float()
        found[name] = [float(v) for v in (x.mean(), x.std(), x.min(), x.max(), (x.abs() <= 1e-8).float().mean())]
        if x.dim() == 2:
            found[name].append(int(torch.linalg.matrix_rank(x)))
    print(json.dumps({"matrices": sum(len(v) == 6 for v in found.values())}))


def by_weightwatcher(folder: str) -> None:
    import logging

    import weightwatcher

    logging.disable(logging.WARNING)
    details = weightwatcher.WeightWatcher(model=load(folder)).analyze()
    print(json.dumps({"matrices": len(details)}))


def rates(folder: str, table: str) -> None:
    """CPU seconds of reading, of touching every element, and of the Gram matrices and eigenvalues of a table of parameters."""
    import numpy as np
    import polars as pl
    from scipy.linalg import blas, eigvalsh
    from threadpoolctl import threadpool_limits

    def best(do, rounds: int = 3) -> float:
        found = []
        for _ in range(rounds):
            started = time.process_time()
            do()
            found.append(time.process_time() - started)
        return min(found)

    files = sorted(Path(folder).glob("*.safetensors"))
    room = memoryview(bytearray(1 << 20))

    def read() -> None:
        for file in files:
            with file.open("rb", buffering=0) as handle:
                while handle.readinto(room):
                    pass

    half = json.loads(Path(folder, "config.json").read_text()).get("torch_dtype") == "bfloat16"
    small = np.empty(1 << 17, np.uint16 if half else np.float32)
    wide = np.empty(1 << 17, np.float32)

    def touch() -> None:
        for file in files:
            with file.open("rb", buffering=0) as handle:
                while n := handle.readinto(small.data.cast("B")):
                    if half:
                        np.left_shift(small, 16, out=wide.view(np.uint32), dtype=np.uint32, casting="unsafe")
                    (wide if half else small)[: n // small.itemsize].sum()

    seconds = {"read": best(read), "touch": best(touch), "gram": 0.0, "eigenvalues": 0.0}
    matrices = pl.read_parquet(table).filter(pl.col("rank").is_not_null()).select("rows", "cols", "rank_method").rows()
    with threadpool_limits(1):
        rng = np.random.default_rng(0)
        known: dict[tuple[int, str], tuple[float, float]] = {}
        for rows, cols, method in matrices:
            side, length = sorted((rows, cols))
            kind = np.float32 if method == "gram32" else np.float64
            if (side, method) not in known:
                block = rng.normal(size=(4096, side)).astype(kind)
                total = np.zeros((side, side), kind, order="F")
                update = blas.ssyrk if kind is np.float32 else blas.dsyrk
                each = best(lambda: update(1.0, block.T, beta=1.0, c=total, lower=1, overwrite_c=1)) / 4096  # noqa: B023
                known[side, method] = each, best(lambda: eigvalsh(total, lower=True, driver="evd", check_finite=False))  # noqa: B023
            each, eigen = known[side, method]
            seconds["gram"] += each * length
            seconds["eigenvalues"] += eigen
    print(json.dumps(seconds))


def spawn(call: list[str], threads: int) -> dict:
    """CPU seconds, wall seconds and peak resident memory of a process, and the last line it printed."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        env.pop(name, None)
    started = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(call, stdout=said, stderr=subprocess.PIPE, env=env)
        error = process.stderr.read() if process.stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        lines = said.read().decode().strip().splitlines()
    if process.returncode:
        print(error.decode()[-400:], file=sys.stderr)
        return {}
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime, "wall_s": time.perf_counter() - started, "peak_mb": usage.ru_maxrss / 1000,
        "said": lines[-1] if lines else "",
    }  # fmt: skip


def installed(python: str, package: str) -> bool:
    """Does an interpreter have a package?"""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", code]).returncode == 0


def measure(folder: str, args: argparse.Namespace, scratch: Path) -> dict[str, list[dict]]:
    run = str(scratch / "run")
    inspect = [sys.executable, "-m", "headtool", "inspect-weights", folder, "--force", "-q", "--out", run]
    calls = {
        "headtool": inspect, "tables": [*inspect, "--no-figures"], "moments": [*inspect, "--no-figures", "--spectrum", "none"],
        "transformers": [sys.executable, __file__, "--child", "transformers", folder],
        "weightwatcher": [args.peers, __file__, "--child", "weightwatcher", folder],
    }  # fmt: skip
    found: dict[str, list[dict]] = {name: [] for name in (*calls, "rates")}
    for _ in range(args.rounds):
        for name, call in calls.items():
            for _ in range(AGAIN.get(name, 1) if name in args.engines.split(",") else 0):
                found[name].append(spawn(call, args.threads))
                if name == "moments" and found[name][-1]:
                    told = json.loads(Path(run, "manifest.json").read_text(encoding="utf-8"))
                    found[name][-1]["examine_s"] = told["phases"]["examine"]["cpu_s"]
            if name == "tables":
                table = f"{run}/tables/parameters.parquet"
                found["rates"].append(
                    spawn([sys.executable, __file__, "--child", "rates", folder, table], args.threads)
                )
    return found


def report(which: str, found: dict[str, list[dict]]) -> dict[str, dict]:
    """Print and return the best round of each engine, and what it is of headtool's and of the floor's."""
    best = {n: min(each, key=lambda r: r["cpu_s"]) for n, r in found.items() if (each := [x for x in r if x])}
    seconds = [json.loads(r["said"]) for r in found["rates"] if r]
    rate = {name: min(each[name] for each in seconds) for name in seconds[0]}
    floor = rate["read"] + rate["gram"] + rate["eigenvalues"]
    print(f"\n{which}: floor {floor:.2f} CPU s ({', '.join(f'{n} {s:.3f}' for n, s in rate.items() if n != 'touch')})")
    print("engine         CPU s    wall s  peak MB   CPU / headtool   peak / headtool   CPU / floor")
    base = best["headtool"]
    for name, r in best.items():
        if name == "rates":
            continue
        over = rate["touch"] if name == "moments" else floor
        print(
            f"{name:13} {r['cpu_s']:7.2f}  {r['wall_s']:7.2f}  {r['peak_mb']:7.0f}   {r['cpu_s'] / base['cpu_s']:8.2f}"
            f"         {r['peak_mb'] / base['peak_mb']:8.2f}        {r['cpu_s'] / over:8.2f}  {r['said'][-40:]}",
            flush=True,
        )
        if name == "moments":
            print(f"{'  examine alone':13} {r['examine_s']:5.2f} {r['examine_s'] / over:56.2f}")
    for name, beside in PEERS.items() if which == "0.5B" else ():
        if name in best:
            peer, peaks = best[name], [f"{each['peak_mb'] / 1000:.2f}" for each in (base, best[name])]
            drawn = best.get("tables")  # the peers draw nothing
            bare = f", {peer['cpu_s'] / drawn['cpu_s']:.1f} without figures" if drawn else ""
            print(
                f"headline: `inspect-weights`, Qwen2.5-0.5B's shapes, 988 MB | {beside} | "
                f"{peer['cpu_s'] / base['cpu_s']:.1f} times less CPU time{bare} | {' against '.join(peaks)} GB"
            )
    if which == "0.5B" and "tables" in best:
        print(
            "headline: the same without figures | reading, Gram matrices and eigenvalues alone | "
            f"{best['tables']['cpu_s'] / floor:.2f} times their CPU time | {best['tables']['peak_mb'] / 1000:.2f} GB"
        )
    return {name: {k: v for k, v in r.items() if k != "said"} for name, r in best.items()} | {"rates": rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--threads", type=int, default=1, help="OMP_NUM_THREADS of the others; headtool has two workers anyway"
    )
    parser.add_argument("--models", default="0.5B,4B")
    parser.add_argument("--engines", default="headtool,tables,moments,transformers,weightwatcher")
    parser.add_argument("--bert", help="the folder of a real model, to run on as well")
    parser.add_argument("--peers", default=sys.executable, help="an interpreter that has weightwatcher")
    parser.add_argument(
        "--keep", type=Path, help="make the checkpoints here, and take them from here where they are there"
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        children = {"transformers": by_transformers, "weightwatcher": by_weightwatcher, "rates": rates}
        which, *rest = args.child
        make(rest[0], Path(rest[1])) if which == "make" else children[which](*rest)
        return
    engines = args.engines.split(",")
    if "weightwatcher" in engines and not installed(args.peers, "weightwatcher"):
        print("weightwatcher: not installed, left out")
        args.engines = ",".join(name for name in engines if name != "weightwatcher")
    # As an installer does: with PYTHONDONTWRITEBYTECODE each process would compile it again.
    compileall.compile_dir(Path(find_spec("headtool").origin).parent, quiet=2)  # type: ignore[union-attr, arg-type]
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        targets = {"bert": args.bert} if args.bert else {}
        for which in filter(None, args.models.split(",")):
            folder = (args.keep or Path(scratch)) / which
            if not folder.is_dir():
                folder.mkdir(parents=True)
                subprocess.run([sys.executable, __file__, "--child", "make", which, str(folder)], check=True)
            targets[which] = str(folder)
        for which, folder in targets.items():
            results[which] = report(which, measure(folder, args, Path(scratch)))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
