"""Layer and block type of every parameter of every family, against the modules that hold them."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch
from transformers import AutoConfig

from families import ALL, CONFIGS, VARIANTS
from headtool.models import layout
from headtool.models.open import CLASSES
from headtool.weights.names import attention_tensors, canonical, classify


@cache
def on_meta(name, kind=None):
    family, settings = VARIANTS.get(name) or (name, CONFIGS[name])
    plan = layout.find(family)
    config = AutoConfig.for_model(family, **settings)
    with torch.device("meta"):
        return plan, CLASSES[kind or ("causal" if plan.causal else "masked")].from_config(config)


def expected(model, plan, name, module):
    """The block type by what the module is, where that is beyond doubt; None where only the name tells."""
    inside = re.search(rf"(?:^|\.){re.escape(plan.blocks)}\.\d+\.(.+)\.\w+$", name)
    path = inside[1] if inside else ""
    if "Norm" in type(module).__name__:
        return "norm"
    if name.endswith(".bias"):
        return "bias"
    fixed = {plan.query: "q_proj", plan.key: "k_proj", plan.value: "v_proj", plan.qkv: "qkv_proj", plan.out: "o_proj"}
    if path in fixed:
        return fixed[path]
    if module is model.get_input_embeddings():
        return "embedding"
    if module is model.get_output_embeddings():
        return "output"
    if isinstance(module, torch.nn.Embedding):
        return "embedding" if "type" in name else "position_embedding"
    if "Experts" in type(module).__name__:
        return "bias" if name.endswith("bias") else "moe_expert"
    if "Router" in type(module).__name__:
        return "moe_gate"
    return None


@pytest.mark.parametrize("known", [True, False], ids=["with its layout", "by name alone"])
@pytest.mark.parametrize("name", ALL)
def test_every_parameter_of_every_family(name, known):
    plan, model = on_meta(name)
    modules = dict(model.named_modules(remove_duplicate=False))
    blocks = {id(p): i for i, b in enumerate(model.base_model.get_submodule(plan.blocks)) for p in b.parameters()}
    seen = set()
    for parameter, tensor in model.named_parameters(remove_duplicate=False):
        found = classify(parameter, plan if known else None)
        module = modules[parameter.rpartition(".")[0]]
        assert found.layer == blocks.get(id(tensor)), parameter
        truth = expected(model, plan, parameter, module)
        assert found.block_type == truth or truth is None, (parameter, found.block_type)
        if truth is None and found.layer is not None:
            mlp = {"gate_proj", "up_proj", "down_proj", "mlp", "moe_gate", "moe_expert", "bias", "other"}
            assert found.block_type in mlp, (parameter, found.block_type)
        seen.add(found.block_type)
    assert {"embedding", "norm", "o_proj"} <= seen
    assert {"up_proj", "mlp", "moe_expert"} & seen, seen
    assert {"down_proj", "moe_expert"} & seen, seen


@pytest.mark.parametrize("name", ALL)
def test_the_attention_of_every_layer_is_found(name):
    plan, model = on_meta(name)
    found = attention_tensors([n for n, _ in model.named_parameters()], plan)
    assert sorted(found) == list(range(len(model.base_model.get_submodule(plan.blocks))))
    for parts in found.values():
        assert sorted(parts) == ["k", "o", "q", "v"]


@pytest.mark.parametrize("name", ALL)
def test_task_heads_do_not_hide_a_parameter(name):
    plan, model = on_meta(name)
    _, bare = on_meta(name, "headless")
    with_head = {canonical(n, plan) for n, _ in model.named_parameters(remove_duplicate=False)}
    for parameter, _ in bare.named_parameters():
        assert canonical(parameter, plan) in with_head or "pooler" in parameter


@pytest.mark.parametrize(
    ("name", "layer", "kind", "expert"),
    [
        ("model.layers.0.mlp.experts.7.gate_proj.weight", 0, "moe_expert", 7),
        ("model.layers.3.block_sparse_moe.experts.0.w1.weight", 3, "moe_expert", 0),
        ("model.layers.3.block_sparse_moe.gate.weight", 3, "moe_gate", None),
        ("model.layers.11.mlp.gate.weight", 11, "moe_gate", None),
        ("bert.encoder.layer.0.attention.output.LayerNorm.gamma", 0, "norm", None),
        ("transformer.h.0.ln_1.weight", 0, "norm", None),
        ("cls.predictions.transform.LayerNorm.bias", None, "norm", None),
        ("layers.5.attention.wq.weight", 5, "q_proj", None),
        ("layers.5.feed_forward.w2.weight", 5, "down_proj", None),
        ("visual.blocks.2.attn.qkv.weight", 2, "qkv_proj", None),
        ("bert.embeddings.position_embeddings.weight", None, "position_embedding", None),
        ("something.else", None, "other", None),
    ],
)
def test_names_without_a_layout(name, layer, kind, expert):
    found = classify(name, None)
    assert (found.layer, found.block_type, found.expert) == (layer, kind, expert)
