"""From losses, gradients and weights to tables; and the ablations that are made again the naive way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from headtool.errors import FAILED, HeadtoolError
from headtool.models import devices, sweep
from headtool.models.adapter import Adapter
from headtool.models.locate import Located
from headtool.models.losses import losses as task_losses
from headtool.models.open import open_model
from headtool.record.clock import human_bytes
from headtool.record.run import Run
from headtool.scores.ablation import Ablation, Losses, ablation, agree
from headtool.scores.certainty import Certainty, bootstrap_estimates, certainty, judged
from headtool.scores.gradient import Gradients
from headtool.scores.rounds import Sampled
from headtool.scores.update import Update

FEW = 20  # examples below which a bootstrap interval is much too narrow: of a normal mean 92% at 20, 84% at 5
VERIFIED = 4  # examples that are ablated again the naive way


def columns(found: Losses | Sampled, top_k: int, seed: int) -> tuple[dict[str, list[Any]], Certainty]:
    """The columns of the table importance, heads in order; and how sure they are."""
    if isinstance(found, Sampled):
        losses, of = found.losses, found.estimate
        se = of.se if losses.base.size > 1 else None
        sure = judged(of.I, se, of.n, bootstrap_estimates(of, found.first, seed), top_k)
        low, high, exact = of.low, of.high, of.n
    else:
        losses, sure = found, certainty(ablation(found), top_k, seed)
        low, high, exact = sure.mean, sure.mean, np.full(sure.mean.shape, found.base.size)
    base, n = float(losses.base.astype(np.float64).mean()), losses.base.size
    right = float(losses.base_right.astype(np.float64).mean())
    nothing, alone = np.full(sure.mean.shape, None), sure.se is None  # one example says nothing of how sure it is
    made = {
        "I": sure.mean, "I_se": nothing if alone else sure.se, "I_low": nothing if alone else sure.low,
        "I_high": nothing if alone else sure.high,
        "I_data_low": low, "I_data_high": high, "p": nothing if sure.p is None else sure.p,
        "differs": nothing if sure.differs is None else sure.differs, "rank": sure.rank,
        "rank_low": nothing if alone else sure.rank_low, "rank_high": nothing if alone else sure.rank_high,
        "top_k_share": nothing if alone else sure.top_k_share, "loss_base": np.full(sure.mean.shape, base),
        "loss_ablate": base + sure.mean, "accuracy_base": np.full(sure.mean.shape, right),
        "accuracy_ablate": np.nanmean(losses.right.astype(np.float64), -1), "n": np.full(sure.mean.shape, n),
        "n_exact": exact,
    }  # fmt: skip
    return {name: values.ravel().tolist() for name, values in made.items()}, sure


def few(n: int) -> str:
    """The warning of so few examples."""
    if n == 1:
        return "one example says nothing of how sure a score is: there are no intervals"
    return f"{n} examples are few: intervals and ranks from bootstrap samples of them look surer than they are"


def example_columns(found: Losses | Sampled, rows: list[int]) -> dict[str, np.ndarray]:
    """The columns of the table losses: every example's without each head, where measured, and with all heads (-1, -1)."""
    losses = found.losses if isinstance(found, Sampled) else found
    layers, heads, n = losses.loss.shape
    layer, head = (np.repeat(np.append(-1, axis.ravel()), n) for axis in np.mgrid[:layers, :heads])
    made = {
        "layer": layer.astype(np.int32), "head": head.astype(np.int32),
        "example": np.tile(np.asarray(rows), layers * heads + 1),
        "loss": np.concatenate([losses.base, losses.loss.ravel()]),
        "right": np.concatenate([losses.base_right, losses.right.ravel()]),
    }  # fmt: skip
    measured = np.isfinite(made["loss"])
    return {name: values[measured] for name, values in made.items()}


def gradient_columns(found: Gradients) -> dict[str, list[Any]]:
    """The columns of the table gradfisher."""
    names = ("G", "G_se", "F", "F_se", "Ppred", "first_order")
    arrays = {name: getattr(found, name) for name in names}
    made = {name: x.ravel().tolist() if x is not None else [None] * found.G.size for name, x in arrays.items()}
    return made | {"n": [found.n] * found.G.size}


def update_columns(found: Update) -> dict[str, list[float]]:
    """The columns of the table update."""
    return {name: getattr(found, name).ravel().tolist() for name in ("U", "Urel", "Uq", "Uk", "Uv", "Uo")}


def verify(run: Run, adapter: Adapter, swept: Ablation, found: Losses | Sampled, ask: SimpleNamespace) -> None:
    """Ablate some random heads again, the naive way, on a few examples padded together, and compare.

    In half precision a model opened anew in float32 does it, if there is room, and what it finds is the error of I, stated
    and kept. Raises HeadtoolError (exit 1) where losses differ by more than sums in another order can.
    """
    if swept.engine is not sweep.Sweep:
        run.console.warn("the engine does not give this model's losses: every head was ablated the naive way")
    if not ask.verify:
        return
    g, rng = adapter.geometry, np.random.default_rng(ask.seed)
    heads = rng.choice(g.layers * g.heads, min(ask.verify, g.layers * g.heads), replace=False)
    losses = found.losses if isinstance(found, Sampled) else found
    swept_everywhere = np.flatnonzero(np.isfinite(losses.loss).all((0, 1)))
    index = np.sort(rng.choice(swept_everywhere, min(VERIFIED, len(swept_everywhere)), replace=False))
    in_full = adapter.dtype in (torch.bfloat16, torch.float16) and _room(run, adapter)
    judge = _in_full(adapter.located, adapter, ask) if in_full else adapter
    again = Ablation(judge, swept.examples, swept.mode, swept.rows, swept.seed) if in_full else swept
    batch = swept.examples.batch(index).to(judge.device)
    largest, of_effect = 0.0, []
    with torch.inference_mode():
        reference = again.reference(batch)
        base = task_losses(judge, batch, judge.forward(batch))[0].cpu().numpy()
        for each in heads.tolist():
            layer, head = divmod(each, g.heads)
            naive, _ = sweep.plain(judge, batch, layer, head, reference)
            ours = torch.from_numpy(losses.loss[layer, head, index]).to(naive.device)
            largest = max(largest, float((ours - naive).abs().max()))
            of_effect.append(float(((ours.cpu().numpy() - losses.base[index]) - (naive.cpu().numpy() - base)).mean()))
            if not in_full and not agree(ours, naive, adapter.dtype):
                raise HeadtoolError(
                    f"layer {layer}, head {head}: the engine's loss and the naive one differ by {largest:.2g}",
                    hint="please report it, with the model; --ablate needs what this model does otherwise",
                    code=FAILED,
                )
    facts: dict[str, Any] = {"heads": len(heads), "examples": len(index), "largest_difference": largest}
    told = f"{len(heads)} heads ablated again the naive way on {len(index)} examples: losses differ by {largest:.1e} at most"
    if in_full:
        facts["error_of_I"] = float(np.sqrt(np.mean(np.square(of_effect))))
        told += f" from float32, their mean effect by {facts['error_of_I']:.1e} (root mean square)"
    run.manifest["verified"] = facts
    run.console.note(told)


def _room(run: Run, adapter: Adapter) -> bool:
    """Is there room for the model in float32 too?"""
    size, free = int(1.1 * 4 * adapter.parameters), devices.free_bytes(adapter.runs_on)
    if size > free:
        run.console.warn(
            f"the model in float32 takes {human_bytes(size)}, and {human_bytes(free)} are free: heads are ablated again in "
            "its own precision, and the error of I is not known"
        )
    return size <= free


def _in_full(located: Located, adapter: Adapter, ask: SimpleNamespace) -> Adapter:
    classes = adapter.model.config.num_labels if adapter.drawn else None
    return open_model(
        located, device=str(adapter.runs_on), dtype="fp32", family=ask.family, threads=ask.threads, classes=classes,
        seed=ask.seed,
    )  # fmt: skip
