"""Rows to examples to tokens: every format, every span."""

from __future__ import annotations

import csv
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from headtool.models.batches import Encoding, Examples
from headtool.models.locate import locate
from headtool.tasks import commonsense_170k, demo, load, multiple_choice, rows
from headtool.tasks.example import Example, Markers, RowError, between

ARC = {
    "id": "x", "question": " Which tool drives a nail? ", "answerKey": "2",
    "choices": {"text": ["saw", "hammer", "rope"], "label": ["1", "2", "3"]},
}  # fmt: skip
BOOLQ = {
    "instruction": "Please answer the following question with true or false, question: is iron a metal?\n\nAnswer format: true/false",
    "input": "", "output": "the correct answer is true", "answer": "true",
}  # fmt: skip
PIQA = {
    "instruction": "Please choose the correct solution to the question: How do I open a jar?\n\nSolution1: twist\n\nSolution2: cry\n\nAnswer format: solution1/solution2"
}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(locate("demo").folder)


@pytest.fixture(scope="module")
def pair_tokenizer():
    return AutoTokenizer.from_pretrained(locate("demo-encoder").folder)


def write(path, content):
    if path.suffix == ".parquet":
        pl.DataFrame(content).write_parquet(path)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(content[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(content)
    elif path.suffix == ".json":
        path.write_text(json.dumps(content))
    elif path.suffix == ".txt":
        path.write_text("".join(row["text"] + "\n" for row in content))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


def spanned(example: Example) -> str:
    return example.pair if example.span == "pair" else example.text[slice(*example.span)]


def test_the_prompt_of_a_question():
    example = multiple_choice.example(ARC, Markers())
    assert example.text == "Question: Which tool drives a nail?\nChoices:\n1. saw\n2. hammer\n3. rope\nAnswer:"
    assert spanned(example) == "Which tool drives a nail?"
    assert (example.label, example.cut) == ("2", "left")


@pytest.mark.parametrize(
    ("row", "question"),
    [
        (BOOLQ, "is iron a metal?"),
        (PIQA, "How do I open a jar?"),
        ({"instruction": "Which is best?\nOption1: a\nOption2: b"}, "Which is best?"),
        ({"instruction": "QUESTION: Why?  \n Ending1: so question: Ending2: no"}, "Why?"),
    ],
)
def test_the_span_of_an_instruction(row, question):
    assert spanned(commonsense_170k.example(row, Markers())) == question


def test_an_instruction_without_an_end_has_no_span():
    assert commonsense_170k.example({"instruction": "question: why?"}, Markers()).span is None
    assert commonsense_170k.example({"instruction": "question: Answer1: a"}, Markers()).span is None


def test_the_input_follows_the_instruction():
    example = commonsense_170k.example(BOOLQ | {"input": "More."}, Markers())
    assert example.text == BOOLQ["instruction"] + "\nMore."


def test_markers_of_ones_own():
    example = commonsense_170k.example({"instruction": "Q> why? <A because"}, Markers("Q>", "<A"))
    assert spanned(example) == "why?"
    assert commonsense_170k.example({"instruction": "why? <A because"}, Markers("Q>", "<A")).span is None


@given(st.text(), st.text(min_size=1), st.text(min_size=1), st.booleans())
def test_a_span_lies_in_its_text_and_is_stripped(text, start, end, from_start):
    span = between(text, [start], [end], from_start=from_start)
    if span is not None:
        inside = text[slice(*span)]
        assert inside
        assert inside == inside.strip()


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson", ".parquet"])
def test_nested_rows_in_every_format(tmp_path, suffix):
    file = write(tmp_path / f"a{suffix}", [ARC, ARC])
    chosen = load.choose(data=str(file), task=None, encoder=False)
    assert [e.text for e in chosen.examples()] == [multiple_choice.prompt(ARC)] * 2


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet", ".csv", ".tsv", ".txt"])
def test_flat_rows_in_every_format(tmp_path, suffix):
    file = write(tmp_path / f"a{suffix}", [{"text": "one, two"}, {"text": "three"}])
    chosen = load.choose(data=str(file), task=None, encoder=False)
    assert [e.text for e in chosen.examples()] == ["one, two", "three"]


@pytest.mark.parametrize(
    "fields",
    [("premise", "hypothesis"), ("sentence1", "sentence2"), ("question", "sentence"), ("question1", "question2")],
)
def test_pairs(tmp_path, fields, pair_tokenizer):
    file = write(tmp_path / "a.csv", [{fields[0]: "the dog is red", fields[1]: "the dog is blue", "label": 2}])
    chosen = load.choose(data=str(file), task=None, encoder=True)
    (encoding,) = load.encode(chosen.examples(), pair_tokenizer, 64)
    assert pair_tokenizer.decode(encoding.ids[slice(*encoding.span)]).strip() == "the dog is blue"
    assert encoding.second == encoding.span[0]


def test_a_pair_for_a_tokenizer_that_joins_nothing(tmp_path, tokenizer):
    file = write(tmp_path / "a.csv", [{"premise": "the dog is red", "hypothesis": "the dog is blue", "label": 2}])
    chosen = load.choose(data=str(file), task=None, encoder=False)
    (encoding,) = load.encode(chosen.examples(), tokenizer, 64)
    assert tokenizer.decode(encoding.ids) == "<s>the dog is red\nthe dog is blue"
    assert tokenizer.decode(encoding.ids[slice(*encoding.span)]) == "the dog is blue"


def test_the_same_bytes_in_another_format_are_other_rows(tmp_path):
    for name in ("a.txt", "a.csv", "b.txt"):
        (tmp_path / name).write_text("text\none\n")
    one, two, three = (rows.find(str(tmp_path / name)).fingerprint() for name in ("a.txt", "a.csv", "b.txt"))
    assert one != two
    assert one == three


def test_letters_that_change_length_do_not_shift_the_span():
    assert (
        "İİ Question: abc def Answer1: x"[
            slice(*between("İİ Question: abc def Answer1: x", ["question:"], ["Answer1:"]))
        ]
        == "abc def"
    )


def test_a_folder_through_the_datasets_library(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.jsonl", [{"text": "one"}])
    write(tmp_path / "set" / "validation.jsonl", [{"text": "two"}, {"text": "three"}])
    chosen = load.choose(data=str(tmp_path / "set"), task=None, encoder=False)
    assert [e.text for e in chosen.examples()] == ["two", "three"]  # what a reader would evaluate on
    assert len(rows.find(str(tmp_path / "set")).fingerprint()) == 64


def test_the_tokens_of_the_span_are_those_that_overlap_it(tokenizer):
    example = multiple_choice.example(ARC, Markers())
    (encoding,) = load.encode([example], tokenizer, 512)
    whole = tokenizer(example.text, return_offsets_mapping=True)
    start, stop = example.span
    expected = [i for i, (a, b) in enumerate(whole["offset_mapping"]) if a < stop and b > start]
    assert encoding.span == (expected[0], expected[-1] + 1)
    assert tokenizer.decode(encoding.ids[slice(*encoding.span)]).strip() == "Which tool drives a nail?"


def test_cut_on_the_left_keeps_the_query_and_what_is_left_of_the_span(tokenizer):
    example = multiple_choice.example(ARC, Markers())
    (whole,) = load.encode([example], tokenizer, 512)
    (cut,) = load.encode([example], tokenizer, len(whole.ids) - whole.span[0] - 2)
    assert cut.ids[0] == tokenizer.bos_token_id
    assert cut.ids[-4:] == whole.ids[-4:]
    assert 0 < cut.span[1] - cut.span[0] < whole.span[1] - whole.span[0]
    (gone,) = load.encode([example], tokenizer, 6)
    assert gone.span is None


def test_text_is_cut_on_the_right(tokenizer):
    (whole,) = load.encode([Example("one two three four five")], tokenizer, 512)
    (cut,) = load.encode([Example("one two three four five")], tokenizer, 5)
    assert list(cut.ids) == list(whole.ids)[:5]


def test_the_sample_is_seeded_and_of_the_rows_read(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"text": f"row {i}"} for i in range(100)])

    def texts(**more):
        return [e.text for e in load.choose(data=str(file), task=None, encoder=False, **more).examples()]

    assert texts(subset=None) == [f"row {i}" for i in range(100)]
    assert texts(subset=10) == texts(subset=10)
    assert texts(subset=10) != texts(subset=10, subset_seed=1)
    assert len(set(texts(subset=10))) == 10
    assert texts(subset=10, limit=10) == [f"row {i}" for i in range(10)]
    assert set(texts(subset=5, limit=20)) <= {f"row {i}" for i in range(20)}


def test_bad_rows_do_not_shift_the_sample(tmp_path):
    """Rows that cannot be read, and blank ones, are left out before the sample is drawn."""
    content = [{"text": f"row {i}"} for i in range(300)]
    lines = [json.dumps(row) for row in content]
    clean, dirty = tmp_path / "clean.jsonl", tmp_path / "dirty.jsonl"
    clean.write_text("\n".join(lines))
    dirty.write_text("\n".join([lines[0], "{", '{"text": "  "}', *lines[1:]]))
    one = load.choose(data=str(clean), task=None, encoder=False, subset=50)
    two = load.choose(data=str(dirty), task=None, encoder=False, subset=50)
    assert [e.text for e in one.examples()] == [e.text for e in two.examples()]
    assert two.notes[0].startswith("1 of 301 rows cannot be read")


@pytest.mark.parametrize("encoder", [False, True])
def test_the_demo_rows_are_right_by_construction(encoder):
    made = [row for row, _ in zip(demo.rows(encoder), range(300), strict=False)]
    assert made == [row for row, _ in zip(demo.rows(encoder), range(300), strict=False)]
    for row in made:
        if encoder:
            said = row["hypothesis"].removeprefix("the ").removesuffix(".")
            thing, quality = said.split(" is ")
            facts = dict(
                fact.removeprefix("the ").split(" is ") for fact in row["premise"].removesuffix(".").split(" and ")
            )
            kinds = [demo.COLOURS, demo.SIZES]
            same = thing in facts and any(quality in kind and facts[thing] in kind for kind in kinds)
            assert row["label"] == (1 if not same else 0 if facts[thing] == quality else 2)
        else:
            answer = dict(zip(row["choices"]["label"], row["choices"]["text"], strict=True))[row["answerKey"]]
            others = set(row["choices"]["text"]) - {answer}
            kind = next((k for k, words in demo.CATEGORIES.items() if answer in words), None)
            if kind:
                assert kind in row["question"]
                assert not others & set(demo.CATEGORIES[kind])
            else:
                thing = row["question"].removesuffix("?").rpartition(" ")[2]
                assert f"{thing} is {answer}" in row["question"]


def test_held_out_rows_are_not_trained_on():
    trained = {json.dumps(row) for row, _ in zip(demo.rows(False, seed=7, test=False), range(500), strict=False)}
    served = {json.dumps(row) for row, _ in zip(demo.rows(False), range(500), strict=False)}
    assert not trained & served


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=40), st.one_of(st.none(), st.integers(1, 9)), st.integers(1, 60)
)
def test_batches_hold_every_example_once_longest_first(lengths, size, tokens):
    examples = Examples((Encoding(list(range(1, n + 1)), (0, min(2, n))) for n in lengths), pad=0, types=True)
    plan = examples.plan(size, tokens)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(lengths)))
    longest = [max(lengths[i] for i in batch) for batch in plan]
    assert longest == sorted(longest, reverse=True)
    for index in plan:
        batch = examples.batch(index)
        assert batch.mask.sum(1).tolist() == [lengths[i] for i in index]
        assert batch.last.tolist() == [lengths[i] - 1 for i in index]
        assert batch.first.tolist() == [0] * len(index)
        assert batch.span.sum(1).tolist() == [min(2, lengths[i]) for i in index]
        assert size is None or len(index) <= size


def test_a_row_error_says_what():
    with pytest.raises(RowError, match="'choices'"):
        multiple_choice.example({"question": "x", "choices": "y"}, Markers())
