"""What the forward scores cost: CPU time and memory against a plain forward pass and against how others do it.

    python benchmarks/bench_score.py [--rounds 3] [--stories FOLDER] [--json FILE]

Each engine runs in a process of its own, one after the other, round after round, over the same length-sorted batches:

    plain   the base model under sdpa with the batch's padding mask, nothing looked at
    last    headtool: out, resid, ent and task of every head at the last position
    all     headtool: the same at all positions
    eager   attn_implementation="eager", output_attentions=True, then the same numbers at the last position
    lens    TransformerLens' run_with_cache of patterns and head outputs, then the same numbers (if installed)

Prints the CPU seconds of the best round over plain's best (noise only adds), the ratio of each round, and the peak
resident memory of each process. On the small model, which is done in half a second, the ratio is the median over turns
of all engines in one process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENGINES = ("plain", "last", "all", "eager", "lens")
HEADLINES = {
    "last": "`score`, all heads of GPT-2 small, last position",
    "all": "`score`, all heads of GPT-2 small, all positions",
    "eager": "eager attention with `output_attentions=True`",
    "lens": "TransformerLens `run_with_cache`",
}
SCORES = ("out", "resid", "ent", "task")
TURNS = 12  # of each engine over the small model's data, in one process


def make_gpt2(folder: Path, positions: int = 512) -> None:
    """A GPT-2 small with random weights and a tokenizer of bytes: nothing is downloaded."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_positions=positions)).save_pretrained(folder)
    alphabet = {token: i for i, token in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=positions).save_pretrained(folder)


def examples(adapter, which: str, count: int):
    """Random tokens at T=512 for GPT-2, questions of the built-in task for a real model; the span is a fifth of them."""
    import numpy as np

    from headtool.models.batches import Encoding, Examples

    rng = np.random.default_rng(0)
    if which == "gpt2":
        made = [Encoding(rng.integers(0, 50257, 512).tolist(), (100, 200)) for _ in range(count)]
        return Examples(made, pad=0, types=False)
    from headtool.tasks import load

    chosen = load.choose(data=None, task="demo", encoder=False, subset=count)
    return Examples(load.encode(chosen.examples(), adapter.tokenizer, 512), pad=adapter.pad, types=False)


def child(engine: str, folder: str, which: str, count: int, threads: int) -> dict:
    """One engine in this process; or with "turns" all of them in turn, sweep by sweep, for a model that is soon done."""
    from headtool.record.clock import peak_memory

    with tempfile.TemporaryDirectory() as parts:
        engines = ENGINES if engine == "turns" else (engine,)
        sweeps = {name: sweeper(name, folder, which, count, threads, Path(parts)) for name in engines}
        found: dict[str, list[float]] = {name: [] for name in engines}
        for turn in range(1 + (TURNS if engine == "turns" else 1)):
            for name, (sweep, _) in sweeps.items():
                started = time.process_time()
                sweep()
                if turn or engine != "turns":
                    found[name].append(time.process_time() - started)
            if engine != "turns" and turn == 0:
                break
    facts = next(iter(sweeps.values()))[1]
    return {"cpu_s": found[engine][0] if engine != "turns" else found, "peak_rss": peak_memory()} | facts


def sweeper(engine: str, folder: str, which: str, count: int, threads: int, parts: Path):
    """A function that goes over all batches once, warmed up on the first, and what there is to go over."""
    import torch

    from headtool.models.locate import locate
    from headtool.models.open import open_model
    from headtool.scores.measure import Pass, tokens_a_batch, work

    adapter = open_model(locate(folder), threads=threads)
    data = examples(adapter, which, count)
    batches = data.plan(None, tokens_a_batch(adapter))
    facts = {"tokens": data.tokens, "batches": len(batches)}
    if engine in ("last", "all"):
        run = Pass("data", data, batches, SCORES, engine, False, 0)
        work(adapter, run, 0, parts)
        return lambda: [work(adapter, run, group, parts) for group in range(len(run.groups))], facts
    if engine == "plain":
        adapter.model.set_attn_implementation("sdpa")
        step = lambda batch: adapter.base(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)  # noqa: E731
    elif engine == "eager":
        adapter.model.set_attn_implementation("eager")
        step = lambda batch: eager(adapter, batch)  # noqa: E731
    else:
        step = lens(adapter)

    @torch.inference_mode()
    def sweep() -> None:
        for index in batches:
            step(data.batch(index))

    with torch.inference_mode():
        step(data.batch(batches[0]))
    return sweep, facts


def eager(adapter, batch) -> dict[str, object]:
    """The way scripts do it: all attention maps come back, and the numbers are taken from them."""
    import torch

    z = {}
    handles = [
        adapter.out(layer).register_forward_pre_hook(lambda m, args, layer=layer: z.__setitem__(layer, args[0]))
        for layer in range(adapter.geometry.layers)
    ]
    maps = adapter.forward(batch, output_attentions=True).attentions
    for handle in handles:
        handle.remove()
    outputs = torch.stack([z[layer] for layer in range(adapter.geometry.layers)])
    return numbers(adapter, batch, torch.stack(maps), outputs.unflatten(-1, (adapter.geometry.heads, -1)))


def lens(adapter):
    """TransformerLens over the same weights, with a cache of patterns and head outputs."""
    import logging

    import torch
    from transformer_lens.model_bridge.sources.transformers.source import boot

    logging.disable(logging.WARNING)
    bridge = boot(str(adapter.located.folder), tokenizer=adapter.tokenizer, device="cpu")
    kept = ("attn.hook_pattern", "attn.hook_z")

    def step(batch):
        more = {"attention_mask": batch.mask} if bool((batch.mask == 0).any()) else {}
        _, cache = bridge.run_with_cache(batch.ids, names_filter=lambda name: name.endswith(kept), **more)
        layers = range(adapter.geometry.layers)
        maps = torch.stack([cache[f"blocks.{layer}.attn.hook_pattern"] for layer in layers])
        z = torch.stack([cache[f"blocks.{layer}.attn.hook_z"] for layer in layers])
        if z.dim() == 4:  # heads side by side
            z = z.unflatten(-1, (adapter.geometry.heads, -1))
        return numbers(adapter, batch, maps, z)

    return step


def numbers(adapter, batch, maps, z) -> dict[str, object]:
    """out, resid, ent and task at the last position from full maps (layer, batch, head, query, key)."""
    import torch

    rows = torch.arange(len(batch.ids))
    row, vector = maps[:, rows, :, batch.last], z[:, rows, batch.last]  # advanced indices come first
    row = row if row.shape[0] == maps.shape[0] else row.transpose(0, 1)
    span = batch.span.float()
    written = [
        torch.einsum("bhd,hdw->bhw", vector[layer], adapter.out_weight(layer)).norm(dim=-1)
        for layer in range(len(maps))
    ]
    return {
        "out": vector.norm(dim=-1).mean(1),
        "resid": torch.stack(written).mean(1),
        "ent": torch.special.xlogy(row, row).sum(-1).mean(1),
        "task": (torch.einsum("lbhk,bk->lbh", row, span) / span.sum(-1).clamp(min=1)[None, :, None]).mean(1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int, default=16, help="sequences of 512 tokens; 0: leave GPT-2 out")
    parser.add_argument("--stories", type=Path, help="the folder of a small real decoder, to run on as well")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--child", nargs=4, metavar=("ENGINE", "FOLDER", "WHICH", "COUNT"), help=argparse.SUPPRESS)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make_gpt2(args.make)
        return
    if args.child:
        engine, folder, which, count = args.child
        print(json.dumps(child(engine, folder, which, int(count), args.threads)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        targets = []
        make = [sys.executable, __file__, "--make", scratch]  # in its own process: this one stays small
        if args.count:
            subprocess.run(make, check=True, capture_output=True)
            targets.append(("gpt2", scratch, args.count))
        if args.stories:
            targets.append(("stories", str(args.stories), 256))
        results = {}
        for which, folder, count in targets:
            measured: dict[str, list[dict]] = {engine: [] for engine in ENGINES}
            for _ in range(args.rounds):
                for engine in ENGINES:
                    measured[engine] += ask(engine, folder, which, count, args.threads)
            results[which] = report(
                which, measured, ask("turns", folder, which, count, args.threads) if which == "stories" else []
            )
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def ask(engine: str, folder: str, which: str, count: int, threads: int) -> list[dict]:
    call = [sys.executable, __file__, "--threads", str(threads), "--child", engine, folder, which, str(count)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{which} {engine}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return []
    return [json.loads(done.stdout.splitlines()[-1])]


def report(which: str, measured: dict[str, list[dict]], turns: list[dict]) -> dict[str, dict]:
    """Print and return the ratios: of the best rounds, or for a small model the median over turns in one process."""
    plain = measured["plain"]
    best = min(r["cpu_s"] for r in plain)
    print(f"\n{which}: {plain[0]['tokens']} tokens in {plain[0]['batches']} batches, plain {best:.2f} CPU s")
    print("engine   CPU / plain  (quartiles or rounds)      peak RSS MB")
    found = {}
    for engine, rounds in measured.items():
        if not rounds:
            continue
        ratio = min(r["cpu_s"] for r in rounds) / best
        each = [r["cpu_s"] / p["cpu_s"] for r, p in zip(rounds, plain, strict=False)]
        if turns:
            paired = [a / b for a, b in zip(turns[0]["cpu_s"][engine], turns[0]["cpu_s"]["plain"], strict=True)]
            each = statistics.quantiles(paired)
            ratio = each[1]
        peak = max(r["peak_rss"] for r in rounds) / 1e6
        found[engine] = {"ratio": ratio, "spread": each, "peak_mb": peak}
        print(f"{engine:8} {ratio:8.3f}     ({' '.join(f'{r:.3f}' for r in each)})   {peak:10.0f}", flush=True)
    for engine, what in HEADLINES.items():
        if which == "gpt2" and engine in found:
            told = found[engine]
            print(
                f"headline: {what} | a plain forward pass | {told['ratio']:.2f} times its CPU time | "
                f"{told['peak_mb'] / 1e3:.2f} against {found['plain']['peak_mb'] / 1e3:.2f} GB"
            )
    return found


if __name__ == "__main__":
    main()
