"""Make the figures of docs/gallery.md, and the page: run what it shows and copy what that draws.

python tools/gallery.py
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
# Title; the calls; (figure, name under docs/figures/, what it shows)
SHOWN = (
    (
        "Scores of a forward pass",
        ("headtool score demo --scores out,ent,task,combined,induction --out scored",),
        (("scored/figures/heads.png", "score", "Heat maps, layer by head, of how large, focused and task-aligned heads are."),),
    ),
    (
        "Importance, before and after fine-tuning",
        (
            "headtool finetune demo-encoder --task demo --epochs 1 --lr 1e-3 --probe --seed 1 --out tuned",
            "headtool score tuned/ckpt_init --task demo --scores ablation,gradient,fisher --out before",
            "headtool score tuned/ckpt_final --task demo --scores ablation,update --init tuned/ckpt_init --out after",
            "headtool report before after --out joined",
        ),
        (
            ("joined/figures/heads.png", "report-heads", "How much the loss rises without a head, its gradient, how far it moved."),
            ("joined/figures/fig_I_vs_U.png", "report-update", "Importance against the update of the weights."),
            ("joined/figures/fig_Ipre_vs_Ipost.png", "report-importance", "Importance before against after."),
            ("joined/figures/fig_stats.png", "report-statistics", "Each statistic with its interval and what chance gives."),
        ),
    ),
    (
        "Soft errors",
        ("headtool inject demo --sequences 8 --calibrate 16 --out faults",),
        (
            ("faults/figures/fault_rates.png", "inject-rates", "Harm and detection by site and bit."),
            ("faults/figures/bounds.png", "inject-bounds", "Softmax bounds, of clean and of faulty passes."),
            ("faults/figures/overheads.png", "inject-costs", "What detectors cost."),
        ),
    ),
    (
        "Weights",
        ("headtool inspect-weights demo --embedding --out weights",),
        (
            ("weights/figures/spectra.png", "weights-spectra", "Singular values of every matrix, by type and layer."),
            ("weights/figures/ranks.png", "weights-ranks", "Ranks over the layers."),
            ("weights/figures/heads.png", "weights-heads", "Norms of each head's slices, and of its circuits."),
            ("weights/figures/projection.png", "weights-projection", "The word embedding and its clusters."),
            ("weights/figures/elbow.png", "weights-elbow", "How many clusters, and how clear that is."),
        ),
    ),
    (
        "A causal language model",
        ("headtool causal-train demo --task addition --epochs 2 --lr 1e-3 --gamma0 1 --out causal",),
        (
            ("causal/figures/training.png", "causal-training", "Losses, calibration and scales over the training."),
            ("causal/figures/picp_95.png", "causal-coverage", "How many values lie within their 95% intervals."),
        ),
    ),
)  # fmt: skip


def main() -> None:
    page = [
        "# Gallery\n",
        "Figures of the built-in models, tiny as they are; made by tools/gallery.py from the calls above them.\n",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        for title, calls, figures in SHOWN:
            for call in calls:
                words = [sys.executable, "-m", *shlex.split(call), "--quiet"]
                subprocess.run(words, cwd=scratch, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
            page += [f"## {title}\n", "```", *calls, "```\n"]
            for made, name, told in figures:
                shutil.copyfile(Path(scratch) / made, DOCS / "figures" / f"{name}.png")
                page += [f"![{told}](figures/{name}.png)\n", f"{told}\n"]
    (DOCS / "gallery.md").write_text("\n".join(page), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
