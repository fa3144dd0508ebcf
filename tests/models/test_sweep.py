"""The ablation engine gives what the naive loop gives, for every family, kind of model and mode."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from families import ALL, CONFIGS, VOCABULARY, random_batch, tiny
from headtool.models.batches import IGNORED
from headtool.models.losses import pooling, reads
from headtool.models.sweep import Sweep, plain

LENGTH = 9


def with_targets(adapter, which: str, size: int = 3):
    """A batch without padding whose loss reads a class, the last position, some positions, or all."""
    batch = random_batch(adapter, (LENGTH,) * size)
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(3, VOCABULARY, batch.ids.shape, generator=generator)
    if which == "class":
        return dataclasses.replace(batch, targets=torch.arange(size) % adapter.model.config.num_labels)
    place = torch.arange(LENGTH)
    read = {"last": place == LENGTH - 1, "all": place >= 0, "some": (place + torch.arange(size)[:, None]) % 4 == 0}[
        which
    ]
    return dataclasses.replace(batch, targets=torch.where(read, tokens, IGNORED))


def naive(adapter, batch, layer, head, reference=None):
    """One head's output replaced by a hook of this test's own, the model's own logits, cross-entropy by hand."""
    g = adapter.geometry

    def replace(module, args):
        z = args[0].clone()
        with_heads = z.unflatten(-1, (g.heads, g.head_dim))
        with_heads[:, :, head] = 0 if reference is None else reference[layer][:, :, head]
        return (z, *args[1:])

    handle = adapter.out(layer).register_forward_pre_hook(replace)
    more = {} if adapter.layout.causal else {"attention_mask": batch.mask}
    try:
        logits = adapter.model(input_ids=batch.ids, **more).logits.double()
    finally:
        handle.remove()
    if batch.targets.dim() == 1:
        return -logits.log_softmax(-1)[torch.arange(len(logits)), batch.targets]
    each = []
    for row, target in zip(logits.log_softmax(-1), batch.targets, strict=True):
        read = target != IGNORED
        each.append(-row[read].gather(1, target[read][:, None]).mean())
    return torch.stack(each)


def cases():
    for name in ALL:
        yield name, "", "class" if not tiny(name).layout.causal else "last"
    for name in CONFIGS:
        if tiny(name).layout.causal:
            yield name, "", "all"
        elif name != "distilbert":
            yield name, "masked", "some"
    for name in ("llama", "gpt2", "opt", "phi3", "gpt_neox"):
        yield name, "classifier", "class"
    yield "llama", "", "some"


@torch.inference_mode()
@pytest.mark.parametrize(("name", "kind", "which"), list(cases()))
def test_engine_is_naive(name, kind, which):
    adapter = tiny(name, kind)
    batch = with_targets(adapter, which)
    g = adapter.geometry
    generator = torch.Generator().manual_seed(3)
    given = {layer: torch.randn(3, LENGTH, g.heads, g.head_dim, generator=generator) for layer in range(g.layers)}
    largest = 0.0
    for reference in (None, given):
        sweep = Sweep(adapter, batch, reference, reads(batch, pooling(adapter, batch)))
        for layer in range(g.layers):
            found, _ = sweep.without(layer, range(g.heads))
            wanted = torch.stack([naive(adapter, batch, layer, head, reference) for head in range(g.heads)])
            torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)
            largest = max(largest, (wanted - sweep.loss).abs().max().item())
            one, _ = plain(adapter, batch, layer, 1, reference)
            torch.testing.assert_close(one.double(), wanted[1], atol=1e-5, rtol=1e-5)
    assert largest > 1e-3  # heads matter in these models
    assert not any("forward" in module.__dict__ for module in adapter.model.modules())
