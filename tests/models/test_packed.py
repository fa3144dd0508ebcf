"""Packed linear maps give what the model's own give, of the weights as they are now."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from families import tiny
from headtool.models import packed
from headtool.models.clean import fused

supported = pytest.mark.skipif(not packed._supported(), reason="this processor multiplies no bfloat16")


def model(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(96, 160, bias=bias), nn.GELU(), nn.Linear(160, 96, bias=bias)).bfloat16()


@supported
@torch.inference_mode()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 96), (7, 96), (3, 5, 96), (2, 300, 96)])
def test_the_same_numbers(shape, bias):
    whole = model(bias)
    x = torch.randn(shape).bfloat16()
    maps = packed.forwards(whole)
    assert [module for module, _ in maps] == [whole[0], whole[2]]
    for module, forward in maps:
        torch.testing.assert_close(forward(x), module(x), rtol=1e-2, atol=1e-2)
        across = x.transpose(0, -2)  # to which PyTorch adds the bias after rounding
        torch.testing.assert_close(forward(across), module(across), rtol=1e-2, atol=1e-2)
        x = module(x)


@supported
@torch.inference_mode()
def test_a_weight_that_changed_is_packed_anew():
    whole, x = model(), torch.randn(4, 96).bfloat16()
    ((module, before), _) = packed.forwards(whole)
    with torch.no_grad():
        module.weight.mul_(2)
    ((_, after), _) = packed.forwards(whole)
    torch.testing.assert_close(after(x), module(x), rtol=1e-2, atol=1e-2)
    assert not torch.equal(after(x), before(x))


def test_what_is_left_as_it_is(monkeypatch):
    assert packed.forwards(model().float()) == []
    whole = model()
    whole[0].forward = lambda x: x  # as accelerate does
    assert len(packed.forwards(whole)) == (1 if packed._supported() else 0)
    monkeypatch.setattr(packed, "MOST", 1000)
    assert packed.forwards(model()) == []


@torch.inference_mode()
@pytest.mark.parametrize("name", ["llama", "bert", "mixtral", "deberta-v2"])
def test_a_model_with_them_is_the_model(name):
    adapter = tiny(name, "", torch.bfloat16)
    ids = torch.randint(3, 90, (2, 9))
    own = copy.deepcopy(adapter.base)(input_ids=ids)[0]
    with fused(adapter):
        torch.testing.assert_close(adapter.base(input_ids=ids)[0], own, rtol=5e-2, atol=5e-2)
    copy.deepcopy(adapter.base)
    assert not any("forward" in module.__dict__ for module in adapter.model.modules())
