"""Text with numbers as tokens, and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from headtool.causal import numbers, tokens
from headtool.causal.rows import Rows, collate, pieces
from headtool.errors import HeadtoolError
from headtool.models.batches import IGNORED
from headtool.models.locate import locate
from headtool.tasks.example import Example, RowError

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture(scope="module")
def reader():
    made, added = tokens.reserve(AutoTokenizer.from_pretrained(locate("demo").folder))
    assert added
    assert made.token == "<NUM>"
    return made


@given(FINITE, FINITE, st.sampled_from(["from {} to {}.", "{}% of {} kg", " a {}\n b {}  ", "({}), {} é"]))
@settings(max_examples=200)
def test_text_and_values_come_back_exactly(reader, a, b, form):
    text = form.format(numbers.written(a), numbers.written(b))
    ids, values = reader.encode(text)
    assert len(ids) == len(values)
    found = [v for i, v in zip(ids, values, strict=True) if i == reader.num]
    assert [(v, math.copysign(1, v)) for v in found] == [(v, math.copysign(1, v)) for v in (a, b)]
    assert all(v == 0 for i, v in zip(ids, values, strict=True) if i != reader.num)
    assert reader.decode(ids, values) == text


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=30))
def test_text_without_numbers_has_the_tokenizers_own_tokens(reader, text):
    plain = "".join(c for c in text if c not in "0123456789")
    ids, values = reader.encode(plain)
    assert ids == reader.tokenizer(plain).input_ids
    assert not any(values)


@pytest.mark.parametrize("legacy", [False, True])
def test_tokenizers_that_mark_spaces_keep_those_around_numbers(legacy):
    """As in Llama 2, Gemma, Mistral: a space is part of the token after it, and the first one is made up."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    if legacy:
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    marks = [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(marks) if legacy else decoders.Metaspace(prepend_scheme="first")
    made.train_from_iterator(
        ["it is 12 kg and 3 more, say x: y"],
        trainers.BpeTrainer(vocab_size=80, special_tokens=["<unk>", "<s>"], show_progress=False),
    )
    marked, _ = tokens.reserve(PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>"))
    assert marked.tokenizer("it is").input_ids == made.encode("it is").ids
    for text in ("it is 12 kg", "3 kg and 1.5", "say 7, 8 more", "is x: 2"):
        assert marked.decode(*marked.encode(text)) == text


def test_the_token_itself_in_a_text_is_refused(reader):
    with pytest.raises(RowError, match="<NUM>"):
        reader.encode("say <NUM> 3")


def test_a_reserved_row_is_taken_before_a_new_one():
    tokenizer = AutoTokenizer.from_pretrained(locate("demo").folder)
    tokenizer.add_tokens(["<|reserved_special_token_3|>", "<|reserved_special_token_12|>"], special_tokens=True)
    made, added = tokens.reserve(tokenizer)
    assert (made.token, added) == ("<|reserved_special_token_3|>", False)
    ids, values = made.encode("is 12.5 or 3")
    assert [v for i, v in zip(ids, values, strict=True) if i == made.num] == [12.5, 3.0]


def test_digits_are_ten_tokens(reader):
    assert len(tokens.digits(reader.tokenizer)) == 10


def test_units_of_the_training_values():
    assert tokens.median_and_spread(np.array([1.0, 2, 3, 4, 5])) == (3.0, 1.0)
    assert tokens.median_and_spread(np.array([7.0, 7, 7])) == (7.0, 1.0)


def test_rows_with_a_value_have_one_target_and_others_all(reader):
    told = Rows([Example("3 and 4 make", label=7.0, cut="left")], reader, 64, 0)
    free = Rows([Example("3 and 4 make 7")], reader, 64, 0)
    assert told.targets.tolist() == [7.0]
    assert free.targets.tolist() == [3.0, 4.0, 7.0]
    batch = told.inputs([0])
    last = int(batch["attention_mask"].sum()) - 1
    assert batch["labels"][0, last - 1] == reader.num
    assert batch["targets"][0, last - 1] == 7.0
    assert batch["values"][0].nonzero()[:, 0].numel() == 3  # those in the text are read
    assert batch["labels"][0, last] == IGNORED


def test_batches_are_padded_and_shifted(reader):
    rows = Rows([Example("one 1"), Example("a longer text with 22 in it")], reader, 64, 0)
    batch = collate([rows[0], rows[1]])
    for i, (ids, values) in enumerate([reader.encode("one 1"), reader.encode("a longer text with 22 in it")]):
        n = len(ids)
        assert batch["input_ids"][i, :n].tolist() == ids
        assert batch["values"][i, :n].tolist() == values
        assert batch["labels"][i, : n - 1].tolist() == ids[1:]
        assert (batch["labels"][i, n - 1 :] == IGNORED).all()
        assert batch["targets"][i].isfinite().sum() == 1
    example, position, value = rows.numbers()
    assert example.tolist() == [0, 1]
    assert value.tolist() == [1.0, 22.0]
    assert [rows.inputs([e])["input_ids"][0, p].item() for e, p in zip(example, position, strict=True)] == [
        reader.num
    ] * 2
    part = rows.some(np.array([1]))
    assert part.targets.tolist() == [22.0]


def test_long_rows_keep_their_value(reader):
    long = Rows([Example("word " * 50, label=5.0, cut="left"), Example("word " * 50 + "5")], reader, 16, 0)
    assert long.cut == 2
    assert long.targets.tolist() == [5.0]
    assert set(long.lengths.tolist()) == {16}


def test_rows_that_cannot_be_used(reader):
    rows = Rows([Example("<NUM>"), Example("fine 1"), Example("")], reader, 16, 0)
    assert (len(rows), rows.spoilt, rows.short) == (1, 1, 1)
    with pytest.raises(HeadtoolError, match="none of the rows"):
        Rows([Example("")], reader, 16, 0)


def test_a_value_follows_a_space(reader):
    assert pieces(Example("it is 2", label=3.5), reader) == ["it is ", 2.0, " ", 3.5]
