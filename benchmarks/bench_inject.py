"""What a trial of fault injection costs: CPU time of headtool, of the naive way, and of PyTorchFI; and what detectors cost.

    python benchmarks/bench_inject.py [--models gpt2,small] [--trials 12] [--seeds N] [--runs 15] [--parts speed,overhead]
                                       [--device cuda]

The models have random weights: GPT-2 small's shape with its vocabulary of 50,257, and a Llama of 5 layers x 8 heads of
width 64 with 4 key/value heads. Eight sequences of 128 random tokens; bit flips at every site, in every layer. Each
engine runs in a process of its own, one after the other:

    headtool   every bit of every element drawn (6 sites x layers x seeds), as `headtool inject` does it, with `standard`
               detectors and bounds at work and parts on disk
    naive      a clean pass and a pass with the fault, of the whole batch, for each trial; on --trials random ones of these
    pytorchfi  the same with PyTorchFI, which copies the model for each trial and sees modules only: on flips of v, which
               is what its value projection puts out. It is compared with headtool's rate on flips of v alone.

Losses are compared, trial by trial. Then the attention modules alone are timed, in turn in one process, with their sites
in the open (eager attention) and with `standard` on top, at 128 and 512 tokens. Times are CPU seconds; on a GPU they are
the wall's, memory is the GPU's, and PyTorchFI is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from meter import now, peak

BATCH, LENGTH = 8, 128
DETECTORS = "standard"
SEEDS = {"gpt2": 1, "small": 4}
TITLES = {"gpt2": "GPT-2 small's shape", "small": "a Llama of width 64"}
BESIDE = {"naive": "a clean and a faulty pass for each fault", "pytorchfi": "pytorchfi, on flips of v"}


def build(which: str, device: str):
    """The adapter of a benchmark model."""
    import torch
    from transformers import GPT2Config, LlamaConfig

    from headtool.models import attention, layout
    from headtool.models.adapter import adapt
    from headtool.models.devices import pick_device
    from headtool.models.locate import Located
    from headtool.models.open import CLASSES

    where = pick_device(device)
    torch.manual_seed(0)
    if which == "gpt2":
        config = GPT2Config()
    else:
        config = LlamaConfig(
            vocab_size=512, hidden_size=64, num_hidden_layers=5, num_attention_heads=8, num_key_value_heads=4,
            intermediate_size=172, max_position_embeddings=512,
        )  # fmt: skip
    model = CLASSES["causal"].from_config(config, attn_implementation=attention.NAME)
    for parameter in model.parameters():
        if parameter.dim() > 1 and which == "small":
            parameter.data *= 3
    model.to(where).eval().requires_grad_(False)
    located = Located(Path("."), which, which, None, config.to_dict())
    tokenizer = type("NoTokenizer", (), {"pad_token_id": 0, "model_max_length": 10**9})()
    return adapt(model, tokenizer, located, layout.find(config.model_type), "causal", where)


def sequences(adapter, length: int = LENGTH):
    """Eight sequences to calibrate and eight to test."""
    import numpy as np

    from headtool.faults.sequences import Sequences
    from headtool.models.batches import IGNORED, Encoding, Examples

    rng = np.random.default_rng(0)
    rows = [rng.integers(2, adapter.vocabulary, length).tolist() for _ in range(2 * BATCH)]
    made = Examples([Encoding(ids, targets=[*ids[1:], IGNORED]) for ids in rows], pad=0, types=False)
    return Sequences(made, list(range(2 * BATCH)), BATCH, "tokens")


def faults_of(adapter, tested, seeds: int, site: str = "q,k,v,scores,weights,out"):
    from headtool.faults import bits, campaign

    settled = campaign.settle(
        adapter.geometry, adapter.dtype, tested.lengths, phase="forward", sites=site, layers="all", heads="all",
        bits_asked="all", seeds=f"1-{seeds}", pattern=bits.parse("flip"),
    )  # fmt: skip
    return settled.sweep()


def calibrated(adapter, tested):
    from headtool.faults import asked, calibration, guard

    detectors, _ = guard.usable(adapter, asked.detectors(DETECTORS), kv_equal=False)
    seen = [
        calibration.clean(adapter, tested.batch(adapter, i), detectors, method=None, tolerance=None)
        for i in tested.calibration
    ]
    return detectors, calibration.limits(detectors, seen)


def headtool(adapter, tested, faults, picked: list[int]) -> tuple[float, int, list[float]]:
    """(seconds, trials, losses of the picked ones)."""
    import numpy as np

    from headtool.faults import campaign, work
    from headtool.record.files import write_part

    started = now(adapter.runs_on.type)
    detectors, limits = calibrated(adapter, tested)
    worker = work.forward(
        adapter, tested, detectors=detectors, limits=limits, reference="self", method="s@w", tolerance=None,
        permanent=False,
    )  # fmt: skip
    losses = np.zeros(len(faults))
    with tempfile.TemporaryDirectory() as folder:
        for number, places in enumerate(campaign.deal(faults)):
            found = worker.run([faults[i] for i in places])
            write_part(Path(folder) / f"{number}.part", found)
            losses[places] = np.where(found["nonfinite"], np.nan, found["loss_base"] + found["loss_diff"])
        seconds = now(adapter.runs_on.type) - started
    return seconds, len(faults), [float(losses[i]) for i in picked]


def naive(adapter, tested, faults, picked: list[int]) -> tuple[float, int, list[float]]:
    import numpy as np
    import torch

    from headtool.faults import compare
    from headtool.faults.fault import editing
    from headtool.models import sites

    g = adapter.geometry
    batch = tested.examples.batch(np.array(tested.tested)).to(adapter.device)
    losses = []

    def loss_of(output, row: int) -> float:
        one = tested.batch(adapter, tested.tested[row])
        return float(compare.each_loss(adapter, one, type(output)(last_hidden_state=output[0][row : row + 1])).mean())

    with torch.inference_mode():
        adapter.forward(batch)
        started = now(adapter.runs_on.type)
        for place in picked:
            fault = faults[place]
            row = tested.tested.index(fault.sequence)
            told = []
            for copies in ([None] * BATCH, [fault if i == row else None for i in range(BATCH)]):
                if copies[row] is None:
                    output = adapter.forward(batch)
                else:
                    edit = editing(copies, range(g.heads), range(g.kv_heads), range(LENGTH))
                    with sites.opened(adapter, fault.layer, edit):
                        output = adapter.forward(batch)
                told = [loss_of(output, i) for i in range(BATCH)]  # the loss of the batch, as a script would have it
                finite = bool(torch.isfinite(output[0][row]).all())
            losses.append(told[row] if finite else float("nan"))
        seconds = now(adapter.runs_on.type) - started
    return seconds, len(picked), losses


def pytorchfi(adapter, tested, faults, picked: list[int]) -> tuple[float, int, list[float]]:
    import numpy as np
    import torch
    from pytorchfi.core import fault_injection

    from headtool.faults.bits import apply, signed

    g, model = adapter.geometry, adapter.model
    embed = adapter.base.get_input_embeddings()
    batch = tested.examples.batch(np.array(tested.tested))

    class OnEmbeddings(torch.nn.Module):  # PyTorchFI feeds floats
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(inputs_embeds=x, use_cache=False).logits

    def loss_of(logits) -> list[float]:
        flat = logits[:, :-1].flatten(0, 1)
        each = torch.nn.functional.cross_entropy(flat.double(), batch.ids[:, 1:].flatten(), reduction="none")
        return each.view(BATCH, -1).mean(1).tolist()

    losses = []
    with torch.inference_mode(False), torch.no_grad():
        inputs = embed(batch.ids)
        wrapped = OnEmbeddings().eval()
        injector = fault_injection(wrapped, BATCH, [LENGTH, g.width], [torch.nn.Linear])
        started = now("cpu")
        for place in picked:
            fault = faults[place]
            row = tested.tested.index(fault.sequence)
            index, column = fault.layer * 7 + 2, fault.head * g.head_dim + fault.column  # of the value projections
            values = []
            handle = adapter.block(fault.layer).self_attn.v_proj.register_forward_hook(
                lambda m, a, out, values=values, at=(row, fault.row, column): values.append(out[at].clone())
            )
            loss_of(wrapped(inputs))
            handle.remove()
            keep, flip = (signed([x], torch.float32) for x in (fault.keep, fault.flip))
            faulty = apply(values[0][None], keep, flip).item()
            corrupted = injector.declare_neuron_fi(
                batch=[row], layer_num=[index], dim1=[fault.row], dim2=[column], dim3=[None], value=[faulty]
            )
            logits = corrupted(inputs)
            finite = bool(torch.isfinite(logits[row]).all())
            losses.append(loss_of(logits)[row] if finite else float("nan"))
        seconds = now("cpu") - started
    return seconds, len(picked), losses


def child(engine: str, which: str, trials: int, seeds: int, threads: int, device: str) -> dict:
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    adapter = build(which, device)
    tested = sequences(adapter)
    faults = faults_of(adapter, tested, seeds)
    rng = np.random.default_rng(0)
    values = [i for i, fault in enumerate(faults) if fault.site == "v"]
    picked = np.concatenate([rng.choice(len(faults), trials, replace=False), rng.choice(values, trials, replace=False)])
    some = picked if engine == "headtool" else picked[trials:] if engine == "pytorchfi" else picked[:trials]
    run = {"headtool": headtool, "headtool-v": headtool, "naive": naive, "pytorchfi": pytorchfi}[engine]
    if engine == "headtool-v":
        faults, some = [faults[i] for i in values], np.arange(0)
    seconds, count, losses = run(adapter, tested, faults, some.tolist())
    return {
        "seconds": seconds, "trials": count, "losses": [None if x != x else x for x in losses], "peak": peak(device),
    }  # fmt: skip


def overhead(length: int, runs: int, threads: int, device: str) -> dict:
    """Seconds of all attention modules of the GPT-2 shape, eager and with `standard`, in turn."""
    import torch

    from headtool.faults import asked, guard
    from headtool.models import sites

    torch.set_num_threads(threads)
    adapter = build("gpt2", device)
    detectors, _ = guard.usable(adapter, asked.detectors(DETECTORS), kv_equal=False)
    hidden = torch.randn(BATCH, length, adapter.geometry.width, device=device)
    attention = adapter.attention(0)
    times: dict[str, list[float]] = {"eager": [], "standard": []}
    with torch.inference_mode():
        for run in range(runs + 2):
            for name, used in (("eager", None), ("standard", detectors)):
                how = (
                    sites.opened(adapter, 0)
                    if used is None
                    else guard.watched(adapter, 0, used, lambda seen, found: [guard.worst(f) for f in found.values()])
                )
                with how:
                    started = now(device)
                    attention(hidden)
                    seconds = now(device) - started
                if run > 1:
                    times[name].append(seconds)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="gpt2,small")
    parser.add_argument("--parts", default="speed,overhead")
    parser.add_argument("--trials", type=int, default=12, help="of the naive way and of PyTorchFI")
    parser.add_argument(
        "--seeds", type=int, help="elements a site and layer, for headtool; default 1, of the small model 4"
    )
    parser.add_argument("--runs", type=int, default=15, help="turns of the overhead")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        if args.child[0] == "overhead":
            print(json.dumps(overhead(int(args.child[1]), args.runs, args.threads, args.device)))
        else:
            print(json.dumps(child(*args.child, args.trials, args.seeds, args.threads, args.device)))
        return

    def spawn(*what: str) -> dict | None:
        environment = os.environ | {"OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads)}
        more = [f"--{name}={getattr(args, name)}" for name in ("trials", "runs", "threads", "device")]
        more.append(f"--seeds={args.seeds or SEEDS.get(what[1], 1)}")
        done = subprocess.run(
            [sys.executable, __file__, *more, "--child", *what], capture_output=True, text=True, env=environment
        )
        if done.returncode:
            print(f"{what[0]}: fails: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
            return None
        return json.loads(done.stdout.splitlines()[-1])

    second = "CPU second" if args.device == "cpu" else "second"
    if "speed" in args.parts:
        for which in args.models.split(","):
            ours = spawn("headtool", which)
            assert ours is not None
            rate = whole = ours["trials"] / ours["seconds"]
            print(f"{which}: headtool {ours['trials']} trials, {rate:.2f} a {second}, {ours['peak'] / 1e9:.2f} GB")
            for engine in ("naive",) if which == "gpt2" or args.device != "cpu" else ("naive", "pytorchfi"):
                theirs = spawn(engine, which)
                if theirs is None:
                    continue
                rate = whole
                if engine == "pytorchfi" and (alone := spawn("headtool-v", which)):
                    rate = alone["trials"] / alone["seconds"]
                    print(f"{which}: headtool {alone['trials']} flips of v, {rate:.2f} a {second}")
                place = slice(0, args.trials) if engine == "naive" else slice(args.trials, None)
                pairs = list(zip(ours["losses"][place], theirs["losses"], strict=True))
                apart = [abs(a - b) / abs(b) for a, b in pairs if a is not None and b is not None]
                alike = sum((a is None) == (b is None) for a, b in pairs)
                its = theirs["trials"] / theirs["seconds"]
                print(f"{which}: {engine} {its:.3f} a {second}, {theirs['peak'] / 1e9:.2f} GB: {rate / its:.1f} times")
                print(
                    f"  losses differ by {max(apart, default=0):.1e} (relative), finite alike {alike} of {len(pairs)}"
                )
                told = f"{rate / its:.0f} times as many faults a {second}"
                peak = f"{ours['peak'] / 1e9:.2f} against {theirs['peak'] / 1e9:.2f} GB"
                print(f"headline: `inject`, {TITLES[which]} | {BESIDE[engine]} | {told} | {peak}")
    if "overhead" in args.parts:
        import numpy as np

        for length in (128, 512):
            times = spawn("overhead", str(length))
            assert times is not None
            ratio = np.array(times["standard"]) / np.array(times["eager"]) - 1
            low, middle, high = np.percentile(ratio, [25, 50, 75])
            told = f"{DETECTORS} on the attention module, eager, fp32, {length} tokens"
            print(f"{told}: +{middle:.1%} (quartiles {low:.1%} to {high:.1%})")
            cost = f"+{middle:.1%} {'CPU time' if args.device == 'cpu' else 'time'}"
            print(f"headline: `{DETECTORS}` detectors, {length} tokens | eager attention modules | {cost} | ")


if __name__ == "__main__":
    main()
