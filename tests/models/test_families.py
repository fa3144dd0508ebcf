"""Every family, on a tiny random model: what the model layer promises."""

from __future__ import annotations

import pytest
import torch

from families import ALL, CONFIGS, random_batch, tiny
from headtool.errors import HeadtoolError
from headtool.models import heads, hooks, layout
from headtool.models.attention import WATCH
from headtool.models.verify import verify

families = pytest.mark.parametrize("name", ALL)


def heads_of(adapter, batch, **more):
    """The heads' outputs of every layer."""
    seen = {}
    with hooks.observe(adapter, outputs=seen.__setitem__, **more), torch.inference_mode():
        adapter.forward(batch)
    return seen


def hidden(adapter, batch):
    with torch.inference_mode():
        return adapter.forward(batch)[0]


def test_there_is_a_tiny_model_of_every_family():
    assert set(layout.families()) == set(CONFIGS)


@families
def test_the_check_at_opening_holds(name):
    verify(tiny(name))


@families
def test_heads_sum_to_the_attention_output(name):
    """W_O applied to the heads one by one, plus its bias, is what the output projection gives."""
    adapter, given = tiny(name), {}
    batch = random_batch(adapter)
    handles = [
        adapter.out(layer).register_forward_hook(lambda m, a, out, layer=layer: given.__setitem__(layer, out))
        for layer in range(adapter.geometry.layers)
    ]
    seen = heads_of(adapter, batch)
    for handle in handles:
        handle.remove()
    for layer, z in seen.items():
        by_head = sum(z[:, :, h] @ adapter.out_weight(layer)[h] for h in range(adapter.geometry.heads))
        bias = getattr(adapter.out(layer), "bias", None)
        torch.testing.assert_close(by_head + (0 if bias is None else bias), given[layer], rtol=1e-4, atol=1e-4)


@families
def test_headtool_attention_is_eager_attention(name):
    adapter = tiny(name)
    if not adapter.layout.interface:
        return  # its own attention, the only one it has, is what runs
    batch = random_batch(adapter)
    fused = heads_of(adapter, batch)
    watched = heads_of(adapter, batch, rows=lambda layer, rows: None)
    adapter.model.set_attn_implementation("eager")
    try:
        eager = heads_of(adapter, batch)
    finally:
        adapter.model.set_attn_implementation("headtool")
    valid = batch.mask.bool()
    for layer, theirs in eager.items():
        for ours in (fused, watched):
            torch.testing.assert_close(ours[layer][valid], theirs[valid], rtol=1e-4, atol=2e-5)


@families
def test_all_ones_gate_changes_nothing_bit_for_bit(name):
    adapter = tiny(name)
    batch = random_batch(adapter)
    plain = hidden(adapter, batch)
    ones = {layer: torch.ones(adapter.geometry.heads) for layer in range(adapter.geometry.layers)}
    with hooks.gated(adapter, ones):
        gated = hidden(adapter, batch)
    assert torch.equal(plain, gated)
    with hooks.gated(adapter, {layer: gate * 0 for layer, gate in ones.items()}):
        assert not torch.equal(plain, hidden(adapter, batch))


@families
def test_zero_gate_is_zeroed_columns_of_the_output_projection(name):
    adapter, layer, head = tiny(name), 1, 4
    batch = random_batch(adapter)
    gate = torch.ones(adapter.geometry.heads)
    gate[head] = 0
    with hooks.gated(adapter, {layer: gate}):
        gated = hidden(adapter, batch)
    weight = adapter.out_weight(layer)[head]  # a view
    kept = weight.clone()
    weight.zero_()
    try:
        zeroed = hidden(adapter, batch)
    finally:
        weight.copy_(kept)
    torch.testing.assert_close(gated, zeroed, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(gated, hidden(adapter, batch), atol=1e-3)


@families
def test_hooks_are_removed_even_when_the_model_fails(name):
    adapter = tiny(name)

    def fail(layer, seen):
        raise RuntimeError("stop")

    before = hooks_of(adapter)  # transformers has some of its own
    for what in ({"outputs": fail}, {"rows": fail}):
        with pytest.raises(RuntimeError, match="stop"):
            heads_of_failing(adapter, what)
    assert hooks_of(adapter) == before
    assert not any(hasattr(module, WATCH) for module in adapter.model.modules())


def hooks_of(adapter):
    return [[*module._forward_hooks, *module._forward_pre_hooks] for module in adapter.model.modules()]


def heads_of_failing(adapter, what):
    batch = random_batch(adapter)
    with hooks.observe(adapter, mask=batch.mask, **what), torch.inference_mode():
        adapter.forward(batch)


@families
def test_left_and_right_padding_give_the_same_heads(name):
    adapter = tiny(name)
    right, left = random_batch(adapter), random_batch(adapter, left=True)
    a, b = heads_of(adapter, right), heads_of(adapter, left)
    for layer in a:
        torch.testing.assert_close(a[layer][right.mask.bool()], b[layer][left.mask.bool()], rtol=1e-4, atol=2e-5)


@families
def test_a_value_slice_reaches_the_heads_of_its_group_alone(name):
    """Zeroing the rows of one kv head in the value projection silences its query heads, and no other."""
    adapter, layer = tiny(name), 0
    g, plan = adapter.geometry, adapter.layout
    kv = g.kv_heads - 1
    batch = random_batch(adapter)
    projection = heads.submodule(adapter.block(layer), heads.projection(plan, "v"))
    kept = {n: p.clone() for n, p in projection.named_parameters()}
    rows = heads.rows(plan, g, "v", kv)
    before = heads_of(adapter, batch)[layer]
    try:
        heads.matrix(projection, plan)[rows] = 0
        if getattr(projection, "bias", None) is not None:
            projection.bias[rows] = 0
        after = heads_of(adapter, batch)[layer]
    finally:
        for n, p in projection.named_parameters():
            p.copy_(kept[n])
    mine = [h for h in range(g.heads) if g.kv_head(h) == kv]
    others = [h for h in range(g.heads) if g.kv_head(h) != kv]
    assert after[:, :, mine].abs().max() == 0
    assert before[:, :, mine].abs().min(-1).values.max() > 0
    torch.testing.assert_close(after[:, :, others], before[:, :, others])


@pytest.mark.parametrize("name", [n for n in ALL if not tiny(n).layout.qkv or tiny(n).geometry.group > 1 or "gpt" in n])
def test_query_and_key_slices_are_where_the_layout_says(name):
    """Zeroing a head's query rows (weight and bias) makes its attention row that of equal scores; no other head moves."""
    adapter, layer, head = tiny(name), 0, 3
    plan = adapter.layout
    if not plan.interface or name.startswith(("gemma3", "qwen3", "olmo")):
        return  # norms after the projection, or position terms of their own, keep the row from being uniform
    batch = random_batch(adapter, (9, 9))
    seen = {}

    def rows(at, given):
        if at == layer:
            seen["weights"], seen["visible"], seen["sink"] = given.weights, given.visible, given.sink

    def run():
        with hooks.observe(adapter, rows=rows), torch.inference_mode():
            adapter.forward(batch)
        return seen["weights"]

    projection = heads.submodule(adapter.block(layer), heads.projection(plan, "q"))
    kept = {n: p.clone() for n, p in projection.named_parameters()}
    before = run()
    try:
        heads.matrix(projection, plan)[heads.rows(plan, adapter.geometry, "q", head)] = 0
        if getattr(projection, "bias", None) is not None:
            projection.bias[heads.rows(plan, adapter.geometry, "q", head)] = 0
        after = run()
    finally:
        for n, p in projection.named_parameters():
            p.copy_(kept[n])
    visible = seen["visible"].expand(after.shape)[:, head].float()
    total = after[:, head].sum(-1, keepdim=True)
    torch.testing.assert_close(after[:, head], visible / visible.sum(-1, keepdim=True) * total)
    others = [h for h in range(adapter.geometry.heads) if h != head]
    torch.testing.assert_close(after[:, others], before[:, others])


@pytest.mark.parametrize("kind", ["causal", "masked", "classifier", "headless"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "deberta-v2", "modernbert"])
def test_every_kind_of_model_opens(name, kind):
    if (name, kind) in {("llama", "masked"), ("gpt2", "masked"), ("deberta-v2", "causal"), ("modernbert", "causal")}:
        pytest.raises((ValueError, HeadtoolError), tiny, name, kind)
    else:
        verify(tiny(name, kind))


def test_a_refused_family_says_why():
    with pytest.raises(HeadtoolError, match="one shared layer"):
        layout.find("albert")


def test_an_unknown_family_is_no_known_name():
    with pytest.raises(HeadtoolError, match="not known"):
        layout.find("nothing_like_it")
    with pytest.raises(HeadtoolError) as error:
        layout.find("x", family="llma")
    assert "llama" in error.value.hint


def test_a_layout_of_another_family_is_found_out():
    """--family gpt_neox for a BLOOM model fits by its paths' names alone where they differ: a clear line."""
    bloom = tiny("bloom")
    from headtool.models.adapter import adapt

    with pytest.raises(HeadtoolError, match="no module"):
        adapt(bloom.model, bloom.tokenizer, bloom.located, layout.find("gpt_neox"), "causal", bloom.device)


def test_a_wrong_packing_fails_the_check():
    """GPT-2's fused weight is square by head only in one packing; wrong scaling or masks fail against eager."""
    import dataclasses

    adapter = tiny("bert")
    wrong = dataclasses.replace(adapter, layout=dataclasses.replace(adapter.layout, causal=True))
    with pytest.raises(HeadtoolError, match="should not"):
        verify(wrong)


def test_an_argument_that_is_not_understood_is_refused():
    from headtool.models.attention import headtool_attention

    q = torch.zeros(1, 2, 3, 4)
    with pytest.raises(HeadtoolError, match="position_bias"):
        headtool_attention(torch.nn.Identity(), q, q, q, None, position_bias=torch.zeros(1))
    with pytest.raises(HeadtoolError, match="bias to its scores"):
        headtool_attention(torch.nn.Identity(), q, q, q, torch.zeros(1, 1, 3, 3))
