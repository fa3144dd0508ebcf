"""Clusters of word embeddings: planted ones are found, real ones are no positions, elbows say how sure they are."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from checkpoints import table, write
from headtool.figures.clusters import APART, _plain, apart
from headtool.weights.elbow import chord, sharpness
from shell import call

VOCABULARY, PLANTED = 1800, 9


@pytest.fixture
def planted(tmp_path):
    """A BERT with PLANTED clusters in its words, others in its positions, and a tokenizer that names the words' clusters."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, PLANTED, VOCABULARY)
    centres = rng.normal(size=(PLANTED, 24)) * 4
    words = centres[truth] + rng.normal(size=(VOCABULARY, 24))
    words[:, 3] = 7.0  # a column that says nothing
    tensors = {
        "bert.embeddings.position_embeddings.weight": torch.randn(2000, 24),
        "bert.embeddings.token_type_embeddings.weight": torch.randn(2, 24),
        "bert.embeddings.word_embeddings.weight": torch.tensor(words, dtype=torch.float32),
    }
    folder = write(tmp_path / "m", tensors, {"model_type": "bert", "vocab_size": VOCABULARY, "num_attention_heads": 4})
    vocabulary = {f"w{i}-{truth[i]}": i for i in range(VOCABULARY - 1)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))
    return folder, truth


def cluster(capsys, folder, out, *args):
    said = call(
        capsys, "inspect-weights", folder, "--embedding", "--no-figures", "--out", out, "--spectrum", "none", *args
    )
    assert said.code == 0, said.err
    return said


@pytest.mark.parametrize("sample", [500, 16_000])
def test_planted_clusters_are_found(capsys, tmp_path, planted, sample):
    folder, truth = planted
    said = cluster(capsys, folder, tmp_path / "run", "--sample", sample)
    assert f"word_embeddings.weight: {PLANTED} clusters (elbow, strength " in said.err
    tokens, clusters, elbow = (table(tmp_path / "run", name) for name in ("tokens", "clusters", "elbow"))
    assert tokens.height == VOCABULARY
    both = pl.DataFrame({"found": tokens["cluster"], "truth": truth}).group_by("found", "truth").len()
    assert both.height == PLANTED  # one to one
    assert tokens["token"].to_list() == [f"w{i}-{truth[i]}" for i in range(VOCABULARY - 1)] + [None]
    assert clusters["size"].to_list() == sorted(clusters["size"], reverse=True)
    assert clusters["size"].sum() == VOCABULARY
    assert clusters["share"].sum() == pytest.approx(1)
    assert (clusters["silhouette"] > 0.5).all()
    for row in clusters.iter_rows(named=True):
        mine = tokens.filter(pl.col("cluster") == row["cluster"]).sort("distance")
        names = json.loads(row["representatives"])
        assert names == [name or str(VOCABULARY - 1) for name in mine["token"].head(10)]
        assert len({name.partition("-")[2] for name in names if "-" in name}) == 1
        assert row["mean_distance"] == pytest.approx(mine["distance"].mean())
    assert elbow.filter("chosen")["k"].to_list() == [PLANTED]
    page = (tmp_path / "run" / "embedding.md").read_text()
    assert f"{PLANTED} clusters: elbow" in page
    assert page.count("\n| ") == PLANTED + 1
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["clusters"]["parameter"] == "bert.embeddings.word_embeddings.weight"


@pytest.mark.parametrize("method", ["silhouette", "calinski"])
def test_other_ways_to_choose(capsys, tmp_path, planted, method):
    said = cluster(capsys, planted[0], tmp_path / "run", "--k-method", method, "--k-max", 16)
    assert f": {PLANTED} clusters ({method} " in said.err
    curve = table(tmp_path / "run", "elbow")
    best = curve.sort(method.replace("calinski", "calinski_harabasz"), descending=True, nulls_last=True)["k"][0]
    assert curve.filter("chosen")["k"].to_list() == [best]


def test_a_given_number_and_the_same_twice(capsys, tmp_path, planted):
    for name in ("a", "b"):
        cluster(capsys, planted[0], tmp_path / name, "--clusters", 4)
    assert table(tmp_path / "a", "tokens").equals(table(tmp_path / "b", "tokens"))
    assert table(tmp_path / "a", "clusters").height == 4
    assert table(tmp_path / "a", "elbow").height == 0
    said = call(
        capsys,
        "inspect-weights",
        planted[0],
        "--embedding",
        "--clusters",
        1801,
        "--sample",
        5000,
        "--out",
        tmp_path / "c",
    )
    assert said.code == 2
    assert "--clusters 1801" in said.error


def test_no_clusters_no_clear_elbow(capsys, tmp_path):
    x = torch.randn(1500, 16, generator=torch.Generator().manual_seed(0))
    write(tmp_path / "m", {"model.embed_tokens.weight": x}, {"model_type": "llama", "num_attention_heads": 4})
    assert "no clear elbow, strength" in cluster(capsys, tmp_path / "m", tmp_path / "run").err


def test_few_and_equal_rows(capsys, tmp_path):
    for name, x in (("equal", torch.ones(50, 4)), ("two", torch.eye(2)), ("one", torch.ones(1, 3))):
        write(tmp_path / name, {"wte.weight": x}, {"model_type": "gpt2", "n_head": 2})
        said = cluster(capsys, tmp_path / name, tmp_path / f"run-{name}")
        assert "too few distinct rows" in said.err


def test_an_embedding_that_is_not_finite(capsys, tmp_path):
    write(tmp_path / "m", {"wte.weight": torch.tensor([[1.0, float("nan")]])}, {"model_type": "gpt2"})
    said = call(capsys, "inspect-weights", tmp_path / "m", "--embedding", "--out", tmp_path / "run")
    assert said.code == 1
    assert "wte.weight holds NaN or infinity" in said.error


@given(st.lists(st.just(0.0) | st.floats(1e-100, 1e6), min_size=3, max_size=30), st.floats(1e-3, 1e3))
def test_the_chord_does_not_depend_on_scale(inertia, scale):
    k = np.arange(1.0, len(inertia) + 1)
    curve = np.array(inertia)
    np.testing.assert_allclose(chord(k, curve * scale), chord(k, curve), atol=1e-6)
    assert chord(k, curve)[0] == pytest.approx(0)
    assert (chord(k, curve) < 1).all()


def test_a_bend_is_sharp_and_a_smooth_curve_is_not():
    k = np.arange(1.0, 31.0)
    bend = np.where(k < 10, 100 - 9 * k, 11 - 0.1 * k)
    assert int(k[np.argmax(chord(k, bend))]) == 10
    assert sharpness(k, bend) > 0.95
    for power in (0.05, 0.3, 1.0):
        assert sharpness(k, k**-power) < 0.65
    assert sharpness(k, -k) == 0


def test_marks_of_clusters_do_not_hide_each_other():
    points = np.array([[0.0, 0.0], [0.05, 0.0], [0.0, 0.1], [3.0, 3.0], [3.0, 3.0]])
    moved = apart(points)
    gaps = np.linalg.norm(moved[:4, None] - moved[None, :4], axis=2)[~np.eye(4, dtype=bool)]
    assert gaps.min() > 0.9 * APART
    np.testing.assert_array_equal(moved[3:], points[3:])  # at the same place there is no way to tell which way to go
    assert np.abs(moved[:3] - points[:3]).max() < 2 * APART


def test_tokens_in_a_figure():
    """What the figure's font has is drawn; what it lacks is a code, and a dollar is no mathematics."""
    assert _plain(["naïve", "αβγ", "Жук"]) == "naïve  αβγ  Жук"
    assert _plain(["中", "\x01", "$1"]) == r"\u4e2d  \u0001  \$1"
    assert _plain(["x" * 16]) == "x" * 14 + "…"
