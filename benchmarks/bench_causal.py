"""What the one-vs-rest Cauchy loss costs beside softmax cross-entropy: tokens a CPU second, and peak memory.

    python benchmarks/bench_causal.py [--batch 4] [--length 256] [--layers 24] [--vocabulary 151936] [--rounds 3] [--device cuda]

The backbone has Qwen2.5-0.5B's shape with random weights, in float32, its head tied. A step is forward and backward over
the same random tokens, no optimiser: its cost and its memory would be the same on both sides. Each engine runs in a process
of its own, in turn, --rounds times:

    causal    headtool's model: abduction, action, one-vs-rest loss in blocks, gradients in the same pass, number loss
    softmax   the same backbone and transformers' own loss: logits of all positions, materialised

On a GPU seconds are the wall's, memory is the GPU's, and the backbone computes in bfloat16 as training does there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

from meter import now, peak


def build(ask: argparse.Namespace):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen2", vocab_size=ask.vocabulary, hidden_size=896, num_hidden_layers=ask.layers, num_attention_heads=14,
        num_key_value_heads=2, intermediate_size=4864, tie_word_embeddings=True, use_cache=False,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).train()


def run(ask: argparse.Namespace) -> dict[str, float]:
    """One engine: a step to warm up, then one that is timed; the peak of both."""
    import torch

    from headtool.causal.model import CausalModel, Settings
    from headtool.models.devices import pick_device

    torch.set_num_threads(ask.threads)
    device = pick_device(ask.device)
    backbone = build(ask).to(device)
    ids = torch.randint(
        3, ask.vocabulary - 1000, (ask.batch, ask.length), generator=torch.Generator().manual_seed(1)
    ).to(device)
    num = ask.vocabulary - 200  # a row to spare
    ids[:, 7::16] = num
    mask = torch.ones_like(ids)
    if ask.engine == "causal":
        model = CausalModel(backbone, Settings(), num).to(device)
        values = torch.where(ids == num, 12.5, 0.0).double()
        labels = torch.cat([ids[:, 1:], torch.full((ask.batch, 1), -100, device=device)], 1)
        targets = torch.where(labels == num, 12.5, torch.nan).double()
        step = lambda: model(ids, mask, values, labels, targets)["loss"]  # noqa: E731
    else:
        model = backbone
        step = lambda: model(input_ids=ids, attention_mask=mask, labels=ids).loss  # noqa: E731
    at_rest = peak(device.type)
    seconds = 0.0
    for _ in range(2 if device.type == "cpu" else 5):
        model.zero_grad(set_to_none=True)
        start = now(device.type)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
            loss = step()
        loss.backward()
        seconds = now(device.type) - start
        assert torch.isfinite(loss)
    return {"seconds": seconds, "tokens": ids.numel() / seconds, "peak": peak(device.type), "at_rest": at_rest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("batch", 4),
        ("length", 256),
        ("layers", 24),
        ("vocabulary", 151936),
        ("rounds", 3),
        ("threads", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    ask = parser.parse_args()
    if ask.engine:
        print(json.dumps(run(ask)))
        return
    told: dict[str, list[dict[str, float]]] = {"causal": [], "softmax": []}
    for _ in range(ask.rounds):
        for engine, found in told.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--engine", engine]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
            print(engine, {name: f"{value:.3g}" for name, value in found[-1].items()}, flush=True)
    second = "CPU second" if ask.device == "cpu" else "second"
    print(
        f"| engine | {second}s a step | tokens a {second} | peak memory | of it before the first step |\n|---|---|---|---|---|"
    )
    for engine, found in told.items():
        each = {name: statistics.median(one[name] for one in found) for name in found[0]}
        peak, rest = (f"{each[name] / 1e9:.2f} GB" for name in ("peak", "at_rest"))
        print(f"| {engine} | {each['seconds']:.3g} | {each['tokens']:.1f} | {peak} | {rest} |")
    pairs = list(zip(told["causal"], told["softmax"], strict=True))
    middle = {}
    for name in ("tokens", "peak"):
        ratios = sorted(a[name] / b[name] for a, b in pairs)
        middle[name] = statistics.median(ratios)
        print(f"causal / softmax, {name}: median {middle[name]:.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}")
    shape = f"{ask.layers} layers, width 896, vocabulary {ask.vocabulary:,}"
    print(
        f"headline: a step of `causal-train`, {shape} | transformers' softmax loss | "
        f"{middle['tokens']:.2f} of its tokens a {second} | {middle['peak']:.2f} of its"
    )


if __name__ == "__main__":
    main()
