"""The ablation engine gives what the naive loop gives, for every family, kind of model and mode."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from families import ALL, CONFIGS, VOCABULARY, random_batch, tiny
from headtool.models.batches import IGNORED
from headtool.models.losses import pooling, reads
from headtool.models.sweep import Sweep, plain

LENGTH = 9


def with_targets(adapter, which: str, size: int = 3, length: int = LENGTH):
    """A batch without padding whose loss reads a class, the last position, some positions, or all."""
    batch = random_batch(adapter, (length,) * size)
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(3, VOCABULARY, batch.ids.shape, generator=generator)
    if which == "class":
        return dataclasses.replace(batch, targets=torch.arange(size) % adapter.model.config.num_labels)
    place = torch.arange(length)
    row = torch.arange(size)[:, None]
    read = {
        "last": place == length - 1,
        "all": place >= 0,
        "some": (place + row) % 4 == 0,
        "few": (place % 3 == 2) & (place != 3 * row + 2),
    }[which]
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
            yield name, "", "few"
        elif name != "distilbert":
            yield name, "masked", "some"
            yield name, "masked", "few"
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


def worst(adapter, batch) -> float:
    """The most that the engine and the naive way differ by, over all heads."""
    sweep = Sweep(adapter, batch, None, reads(batch, pooling(adapter, batch)))
    g, apart = adapter.geometry, 0.0
    for layer in range(g.layers):
        found, _ = sweep.without(layer, range(g.heads))
        wanted = torch.stack([plain(adapter, batch, layer, head)[0] for head in range(g.heads)])
        apart = max(apart, (found - wanted).abs().max().item())
    return apart


@torch.inference_mode()
@pytest.mark.parametrize("name", ["llama", "bert", "gemma2", "gpt2"])
def test_hooks_on_the_output_projection_are_kept(name):
    adapter = tiny(name)
    batch = with_targets(adapter, "last" if adapter.layout.causal else "class")
    before = Sweep(adapter, batch).loss
    for hook in (
        lambda out: out.register_forward_hook(lambda module, args, output: output.roll(1, -1)),
        lambda out: out.register_forward_pre_hook(lambda module, args: (args[0].roll(1, -1),)),
    ):
        handles = [hook(adapter.out(layer)) for layer in range(adapter.geometry.layers)]
        try:
            assert (Sweep(adapter, batch).loss - before).abs().max() > 1e-4
            assert worst(adapter, batch) < 1e-5
        finally:
            for handle in handles:
                handle.remove()


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "bert", "gpt2"])
def test_a_head_that_writes_nearly_all_is_ablated_as_exactly(name, dtype):
    """Subtracting what it wrote would leave little but rounding: the error is that of the naive way, against float64."""
    adapter, exact = (tiny.__wrapped__(name, "", each) for each in (dtype, torch.float64))
    for layer in range(adapter.geometry.layers):
        adapter.out_weight(layer)[1].mul_(128)
    state = adapter.model.state_dict()
    exact.model.load_state_dict({key: x.double() if x.is_floating_point() else x for key, x in state.items()})
    batch = with_targets(adapter, "last" if adapter.layout.causal else "class", 8)
    sweep = Sweep(adapter, batch, None, reads(batch, pooling(adapter, batch)))
    errors = []
    for layer in range(adapter.geometry.layers):
        true = plain(exact, batch, layer, 1)[0].double()
        both = sweep.without(layer, [0, 1])[0][1], plain(adapter, batch, layer, 1)[0]
        errors.append([(each.double() - true).square().mean() for each in both])
    ours, naive_way = torch.tensor(errors).mean(0).sqrt()
    assert ours <= 1.5 * naive_way + 1e-7


@pytest.mark.parametrize("where", ["cuda:0", "cuda:1"])
def test_a_reference_may_be_on_another_device_than_the_layer(where):
    """Of a model that is spread over two GPUs, of which there are the shapes here."""
    with FakeTensorMode():
        clean = SimpleNamespace(heads=[torch.empty(3, 9, 48, device="cuda:1")])
        adapter = SimpleNamespace(geometry=SimpleNamespace(heads=6, head_dim=8))
        sweep = SimpleNamespace(adapter=adapter, clean=clean, reference={0: torch.empty(1, 1, 6, 8, device=where)})
        change = Sweep._change(sweep, 0, [0, 1])
        assert (change.shape, change.device) == ((2, 27, 8), torch.device("cuda:1"))
