"""What the loss of an example expects: the right tokens at the right places."""

from __future__ import annotations

import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from headtool.errors import HeadtoolError
from headtool.models.batches import IGNORED
from headtool.models.locate import locate
from headtool.tasks import commonsense_170k, multiple_choice
from headtool.tasks.example import Example, Markers, RowError
from headtool.tasks.targets import MASKED_SHARE, Targets, loss_of

QUESTION = {
    "question": "Which is a fruit?", "choices": {"text": ["stone", "apple"], "label": ["A", "B"]}, "answerKey": "B",
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(locate("demo").folder)


@pytest.fixture
def masking():
    words = ["[UNK]", "[MASK]", "[PAD]", *(f"w{i}" for i in range(50))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["[UNK]", "[MASK]", "[PAD]"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", mask_token="[MASK]", pad_token="[PAD]"
    )


def encodings(examples, tokenizer, loss, length=64, **more):
    made = Targets(examples, tokenizer, length, loss, seed=3, **more)
    return list(made), made


def read_back(encoding, tokenizer):
    """The text of the targets."""
    return tokenizer.decode([target for target in encoding.targets if target != IGNORED]).strip()


def test_the_answer_is_what_is_to_be_predicted(tokenizer):
    example = multiple_choice.example(QUESTION, Markers())
    (encoding,), _ = encodings([example], tokenizer, "answer")
    assert read_back(encoding, tokenizer) == "B"
    assert encoding.targets[-1] != IGNORED  # what comes after is not run
    assert len(encoding.targets) == len(encoding.ids)
    assert tokenizer.decode(encoding.ids).rstrip().endswith("Answer:")


def test_of_a_long_output_only_the_answer_counts(tokenizer):
    row = {"instruction": "question: which? Answer format: a1/a2", "output": "the correct answer is a2", "answer": "a2"}
    (encoding,), _ = encodings([commonsense_170k.example(row, Markers())], tokenizer, "answer")
    assert read_back(encoding, tokenizer) == "a2"
    assert "question: which?" in tokenizer.decode(encoding.ids)


def test_the_answer_survives_the_cut(tokenizer):
    long = QUESTION | {"question": "very " * 200 + "long?"}
    (encoding,), _ = encodings([multiple_choice.example(long, Markers())], tokenizer, "answer", length=20)
    assert encoding.cut
    assert read_back(encoding, tokenizer) == "B"


def test_every_token_after_the_first(tokenizer):
    (encoding,), made = encodings([Example("The cat sat."), Example("")], tokenizer, "tokens")
    ids = tokenizer("The cat sat.")["input_ids"]
    assert list(encoding.ids) == ids[:-1]
    assert list(encoding.targets) == ids[1:]
    assert made.used == [0]
    assert made.left_out == 1


def test_a_seeded_share_is_masked(masking):
    examples = [Example(" ".join(f"w{(i * j) % 50}" for i in range(40))) for j in range(1, 6)]
    found, _ = encodings(examples, masking, "masked")
    again, _ = encodings(examples, masking, "masked")
    for encoding, other, example in zip(found, again, examples, strict=True):
        ids, targets = np.array(encoding.ids), np.array(encoding.targets)
        masked = targets != IGNORED
        assert masked.sum() == round(MASKED_SHARE * 40)
        assert (ids[masked] == masking.mask_token_id).all()
        assert np.where(masked, targets, ids).tolist() == masking(example.text)["input_ids"]
        assert list(other.ids) == list(encoding.ids)
    assert len({tuple(np.array(e.targets) != IGNORED) for e in found}) > 1


def test_classes_are_targets(tokenizer):
    found, _ = encodings([Example("a"), Example("b")], tokenizer, "label", classes=np.array([2, 0]))
    assert [encoding.targets for encoding in found] == [2, 0]


def test_what_has_no_loss(tokenizer):
    with pytest.raises(HeadtoolError, match="has no answer"):
        encodings([Example("a question")], tokenizer, "answer")
    with pytest.raises(HeadtoolError, match="mask token"):
        encodings([Example("a question")], tokenizer, "masked")
    with pytest.raises(HeadtoolError, match="no task head"):
        loss_of("headless", False)
    with pytest.raises(RowError, match="none of its choices"):
        multiple_choice.example(QUESTION | {"answerKey": "E"}, Markers())
    assert [loss_of(kind, True) for kind in ("classifier", "masked", "causal")] == ["label", "masked", "answer"]
    assert loss_of("causal", False) == "tokens"
