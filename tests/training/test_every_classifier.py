"""Every family: its classifier is built, warmed up on frozen features, given adapters, saved and opened again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from classifiers import WITHOUT, tiny_folder
from families import CONFIGS
from headtool.models import classifier
from headtool.models.batches import Encoding, Examples
from headtool.models.locate import locate
from headtool.training import lora, probe
from headtool.training.split import Split, takes_types

NAMES = ("no", "yes")


def split_of(adapter, n=24) -> Split:
    """Random tokens; the class is whether the first of them is odd."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(8, 400, rng.integers(5, 12)) for _ in range(n)]
    examples = Examples([Encoding(row.tolist()) for row in ids], pad=adapter.pad, types=adapter.has_types)
    return Split(examples, np.array([row[0] % 2 for row in ids]), takes_types(adapter))


@pytest.mark.parametrize("family", [name for name in CONFIGS if name not in WITHOUT])
def test_a_classifier_of_every_family(family, tmp_path):
    folder = tiny_folder(tmp_path / "model", family)
    opened = classifier.open_classifier(locate(str(folder)), NAMES, device="cpu", threads=1, seed=3)
    model, split = opened.adapter.model, split_of(opened.adapter)
    assert opened.fresh
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}

    fitted = probe.fit(opened.adapter, opened.fresh, split, dtype=torch.float32, advance=lambda n: None)
    assert fitted.loss < fitted.loss_before
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed <= set(opened.fresh)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():  # the fit on features is a fit of the whole model
        logits = model(**split.inputs(np.arange(len(split)))).logits
    truth = torch.from_numpy(split.labels)
    assert torch.nn.functional.cross_entropy(logits, truth).item() == pytest.approx(fitted.loss, rel=1e-3)
    assert (logits.argmax(-1) == truth).float().mean().item() == pytest.approx(fitted.accuracy)

    classifier.save(model, opened.tokenizer, tmp_path / "saved", tmp_path)
    again = classifier.open_classifier(locate(str(tmp_path / "saved")), NAMES, device="cpu", threads=1)
    assert again.fresh == ()
    for name, parameter in again.adapter.model.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name))
    assert not list(tmp_path.glob("*.half"))


@pytest.mark.parametrize("family", [name for name in CONFIGS if name not in WITHOUT])
def test_adapters_sit_on_attention_alone_and_merge(family, tmp_path):
    pytest.importorskip("peft")
    folder = tiny_folder(tmp_path / "model", family)
    opened = classifier.open_classifier(locate(str(folder)), NAMES, device="cpu", threads=1, seed=3)
    adapter, split = opened.adapter, split_of(opened.adapter, 6)
    plan = lora.Lora(2, 4, 0.0, ("q", "v", "o"))
    attention = set(lora.modules(adapter, plan))
    assert len(attention) in (2 * adapter.geometry.layers, 3 * adapter.geometry.layers)
    base = f"{adapter.model.base_model_prefix}."
    head = {name for name, _ in adapter.model.named_parameters() if not name.startswith(base)} | set(opened.fresh)
    wrapped = lora.wrap(adapter, opened.fresh, plan)
    trained = {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
    low_rank = {name for name in trained if ".lora_" in name}
    assert {name.partition(".lora_")[0].removeprefix("base_model.model.") for name in low_rank} == attention
    whole = {
        name.removeprefix("base_model.model.").replace(".modules_to_save.default", "") for name in trained - low_rank
    }
    assert whole == head
    with torch.no_grad():
        for name in low_rank:
            wrapped.get_parameter(name).normal_(0, 0.1)
        given = split.inputs(np.arange(6))
        wrapped.eval()
        apart = wrapped(**given).logits
        merged = lora.merge(wrapped)
        together = merged(**given).logits
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)
    assert type(merged).__name__.endswith("ForSequenceClassification")
    assert not any("lora" in name or "modules_to_save" in name for name in merged.state_dict())
