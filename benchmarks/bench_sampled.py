"""What the sampled sweep saves: its intervals and its CPU time against those of the exhaustive sweep of the same examples.

    python benchmarks/bench_sampled.py MODEL [DATA] [--subset 2048] [--share 0.15] [--threads 1] [--out FOLDER]

Runs `headtool score MODEL --scores ablation` over the examples, then the same with an --ablate-budget of a share of the
CPU time that the ablations took (with one thread on a core of its own that is about the wall time). Prints the CPU time
of both (backward pass included), how much wider the latter's intervals for new examples are, and how many of its intervals
for these examples hold what the exhaustive sweep gave.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

import headtool


def cpu(run: Path) -> dict[str, float]:
    phases = json.loads((run / "manifest.json").read_text())["phases"]
    return {name: phase["cpu_s"] for name, phase in phases.items()}


def quietly(model: str, **given) -> Path:
    """headtool.score, whose run directory goes to stderr: stdout is for what was found."""
    with contextlib.redirect_stdout(sys.stderr):
        return headtool.score(model, **given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", nargs="?", help="default: the built-in task")
    parser.add_argument("--subset", default="2048")
    parser.add_argument("--share", type=float, default=0.15, help="of the exhaustive sweep's CPU time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--out", type=Path, help="keep the runs there, and go on with those that are there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = args.out or Path(scratch)
        same = {
            "scores": "ablation", "data": args.data, "subset": args.subset, "threads": args.threads, "quiet": True,
            "max_length": args.max_length,
        }  # fmt: skip
        whole = quietly(args.model, out=out / "whole", **same)
        all_of_it = cpu(whole)["ablation"]
        some = quietly(args.model, out=out / "some", ablate_budget=round(args.share * all_of_it, 1), **same)
        spent = cpu(some)
        a, b = (pl.read_parquet(run / "tables" / "importance.parquet") for run in (whole, some))
        wider = (b["I_high"] - b["I_low"]) / (a["I_high"] - a["I_low"])
        held = (b["I_data_low"] <= a["I"]) & (a["I"] <= b["I_data_high"])
        ranks = np.corrcoef(a["rank"], b["rank"])[0, 1]
        ours = spent["ablation"] + spent["backward"]
        print(f"examples {a['n'][0]}, ablated {b['n_exact'].median():.0f} (median head), heads {a.height}")
        print(f"CPU s: exhaustive {all_of_it:.1f}, sampled {spent['ablation']:.1f} + backward {spent['backward']:.1f}")
        print(f"share of the exhaustive sweep's CPU time: {ours / all_of_it:.3f}")
        print(
            f"interval for new examples, sampled / exhaustive: median {wider.median():.2f}, 90% {wider.quantile(0.9):.2f}"
        )
        print(
            f"intervals for these examples that hold the exhaustive I: {held.mean():.1%}; rank correlation {ranks:.3f}"
        )


if __name__ == "__main__":
    main()
