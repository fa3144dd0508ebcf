"""Labels of rows as class numbers, and which rows are for what."""

from __future__ import annotations

import numpy as np
import pytest

from classifiers import easy_rows, rows_of
from headtool import folder
from headtool.errors import HeadtoolError
from headtool.tasks import labels, load, splits
from headtool.tasks.glue import CLASSES


def found(file, task=None, model=None):
    read = labels.read(load.choose(data=str(file), task=None, encoder=True))
    names = labels.classes(read, task, model)
    return names, labels.numbers(read, names).tolist()


def labelled(tmp_path, *values):
    return rows_of(tmp_path / "rows.jsonl", *({"text": f"a {i}", "label": v} for i, v in enumerate(values)))


def test_numbers_are_classes_as_they_stand(tmp_path):
    assert found(labelled(tmp_path, 2, 0, 1, 2.0)) == (("LABEL_0", "LABEL_1", "LABEL_2"), [2, 0, 1, 2])
    assert found(labelled(tmp_path, True, False)) == (("LABEL_0", "LABEL_1"), [1, 0])
    assert found(labelled(tmp_path, 0, 1), model=("no", "yes")) == (("no", "yes"), [0, 1])


def test_digits_in_a_csv_are_numbers(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("sentence,label\nfine,1\nbad,0\n")
    assert found(file) == (("LABEL_0", "LABEL_1"), [1, 0])


def test_texts_are_sorted_or_in_the_order_of_who_knows_them(tmp_path):
    file = labelled(tmp_path, "neutral", "contradiction", "entailment")
    assert found(file) == (("contradiction", "entailment", "neutral"), [2, 0, 1])
    assert found(file, task=CLASSES["mnli"]) == (CLASSES["mnli"], [1, 2, 0])
    model = ("entailment", "contradiction", "neutral")
    assert found(file, model=model) == (model, [2, 1, 0])
    assert found(file, model=("a", "b", "c"))[0] == ("contradiction", "entailment", "neutral")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ((0, 1, None), "rows.jsonl:3: it has no label"),
        ((0, 1, ""), "it has no label"),
        ((0, 1.5), "the label 1.5 is no class"),
        ((0, float("nan")), "it has no label"),
        ((0, -1), "rows.jsonl:2: the label -1 is below 0"),
        ((0, [1]), "is no class"),
        ((0, 2), "no row has the label 1 of 0 to 2"),
        ((1, 1), "all rows have the label 1"),
        ((0, "good"), "some labels are numbers, some are texts"),
        ((0, float("inf")), "is no class"),
    ],
)
def test_labels_that_are_none(tmp_path, values, says):
    with pytest.raises(HeadtoolError, match="label") as refused:
        found(labelled(tmp_path, *values))
    assert says in str(refused.value)


def test_a_task_knows_its_classes(tmp_path):
    with pytest.raises(HeadtoolError, match="the label 3 is none of the 3 classes"):
        found(labelled(tmp_path, 0, 3), task=CLASSES["mnli"])


def test_held_out_rows_and_training_rows_are_the_whole(tmp_path):
    file = rows_of(tmp_path / "rows.jsonl", *easy_rows(40))
    settled = splits.settle(None, str(file), None)
    train, held = splits.choose(settled, limit=None, subset=None, subset_seed=9, seed=5)
    assert sorted([*train.kept, *held.kept]) == list(range(40))
    assert len(held.kept) == 4
    again = splits.choose(settled, limit=None, subset=None, subset_seed=9, seed=6)[1]
    assert held.kept.tolist() != again.kept.tolist()


def test_the_evaluation_sample_is_that_of_score(tmp_path):
    file = str(rows_of(tmp_path / "rows.jsonl", *easy_rows(40)))
    settled = splits.settle(None, file, file)
    _, sample = splits.choose(settled, limit=None, subset=10, subset_seed=999, seed=1)
    score = load.choose(data=file, task=None, encoder=True, subset=10, subset_seed=999)
    np.testing.assert_array_equal(sample.kept, score.kept)


def test_rows_of_the_demo_are_trained_on_or_evaluated_on(tmp_path):
    train, held = splits.choose(splits.settle("demo", None, None), limit=300, subset=None, subset_seed=9, seed=5)
    texts = [{f"{e.text} {e.pair}" for e in side.examples()} for side in (train, held)]
    assert not texts[0] & texts[1]


@pytest.mark.parametrize("task", folder.names("headtool.tasks"))
def test_the_tasks_with_classes_are_those_that_training_takes(task, tmp_path):
    rows = str(labelled(tmp_path, 0, 1))
    try:
        splits.settle(task, rows if hasattr(folder.load(load.TASKS, task, "task"), "example") else None, None)
        taken = True
    except HeadtoolError:
        taken = False
    assert (task in splits.with_classes()) == taken
