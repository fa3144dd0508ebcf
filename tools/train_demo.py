"""Train the two demo models that ship in the package: python tools/train_demo.py decoder|encoder OUT

Both are made of generated rows alone (headtool.tasks.demo). The decoder is a Llama with grouped-query attention
that answers multiple-choice questions; the encoder is a DeBERTa-v2 that classifies premise/hypothesis pairs.
Prints the accuracy on held-out rows; docs/demo.md states it.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from headtool.tasks import demo
from headtool.tasks.multiple_choice import prompt

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "<num>"]
IGNORE = -100


def make_tokenizer(texts: list[str], encoder: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 768 entries with single-digit tokens: it can spell any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=768,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    single, double = ("<s> $A </s>", "<s> $A </s> $B:1 </s>:1") if encoder else ("<s> $A", "<s> $A $B")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=double, special_tokens=[(t, ids[t]) for t in ("<s>", "</s>")]
    )
    named = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    if encoder:
        named |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=256, **named)


class AnswerTrainer(Trainer):
    """The answer counts 1, every other token of the prompt 0.02: most of a random question cannot be guessed."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        answer = inputs.pop("answer")
        output = model(**inputs)
        loss = torch.nn.functional.cross_entropy(
            output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE, reduction="none"
        ).view(labels.shape[0], -1)
        weight = torch.where(answer[:, 1:], 1.0, 0.02) * (labels[:, 1:] != IGNORE)
        loss = (loss * weight).sum() / weight.sum()
        return (loss, output) if return_outputs else loss


def decoder_batch(rows: list[dict], tokenizer: PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    batch = tokenizer([f"{prompt(row)} {row['answerKey']}" for row in rows], padding=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORE)
    last = batch["attention_mask"].sum(1) - 1
    answer = torch.arange(labels.shape[1])[None] == last[:, None]
    return {**batch, "labels": labels, "answer": answer}


def encoder_batch(rows: list[dict], tokenizer: PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    texts, pairs = [row["premise"] for row in rows], [row["hypothesis"] for row in rows]
    batch = tokenizer(texts, pairs, padding=True, return_tensors="pt", return_token_type_ids=True)
    return {**batch, "labels": torch.tensor([row["label"] for row in rows])}


@torch.no_grad()
def accuracy(model: torch.nn.Module, rows: list[dict], collate, tokenizer) -> float:
    model.eval()
    right = 0
    for start in range(0, len(rows), 256):
        batch = collate(rows[start : start + 256], tokenizer)
        labels, answer = batch.pop("labels"), batch.pop("answer", None)
        logits = model(**batch).logits
        if answer is None:
            right += int((logits.argmax(-1) == labels).sum())
        else:
            guess = logits[:, :-1].argmax(-1)[answer[:, 1:]]
            right += int((guess == labels[:, 1:][answer[:, 1:]]).sum())
    return right / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=("decoder", "encoder"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, help="default 12,000 for the decoder, 6,000 for the encoder")
    parser.add_argument("--rows", type=int, default=200_000)
    args = parser.parse_args()
    encoder = args.which == "encoder"
    steps = args.steps or (6_000 if encoder else 12_000)
    set_seed(0)

    train = list(itertools.islice(demo.rows(encoder, seed=0, test=False), args.rows))
    test = list(itertools.islice(demo.rows(encoder, seed=1, test=True), 2000))
    if encoder:
        texts = [f"{row['premise']} {row['hypothesis']}" for row in train[:5000]]
    else:
        texts = [f"{prompt(row)} {row['answerKey']}" for row in train[:5000]]
    tokenizer = make_tokenizer(texts, encoder)
    ids = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
    if encoder:
        config = DebertaV2Config(
            vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128,
            max_position_embeddings=256, relative_attention=True, position_buckets=16, pos_att_type=["p2c", "c2p"],
            share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False, type_vocab_size=0,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.1, num_labels=3,
            id2label=dict(enumerate(demo.PAIR_LABELS)), label2id={n: i for i, n in enumerate(demo.PAIR_LABELS)}, **ids,
        )  # fmt: skip
        model, collate, trainer_class = DebertaV2ForSequenceClassification(config), encoder_batch, Trainer
    else:
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4,
            head_dim=16, intermediate_size=128, max_position_embeddings=256, tie_word_embeddings=True, initializer_range=0.1, **ids,
        )  # fmt: skip
        model, collate, trainer_class = LlamaForCausalLM(config), decoder_batch, AnswerTrainer

    settings = TrainingArguments(
        output_dir=str(args.out / "trainer"), max_steps=steps, per_device_train_batch_size=32, learning_rate=1e-3 if encoder else 3e-3,
        warmup_steps=200, lr_scheduler_type="cosine", weight_decay=0.01, save_strategy="no", logging_steps=1000,
        report_to=[], remove_unused_columns=False, use_cpu=True, seed=0, disable_tqdm=True,
    )  # fmt: skip

    class Watch(TrainerCallback):
        """Say now and then how well the held-out rows go."""

        def on_log(self, args, state, control, **kwargs):
            print(state.global_step, accuracy(model, test[:500], collate, tokenizer), flush=True)
            model.train()

    trainer_class(
        model=model, args=settings, train_dataset=train, data_collator=lambda rows: collate(rows, tokenizer),
        callbacks=[Watch()],
    ).train()  # fmt: skip
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    result = {"held_out_rows": len(test), "held_out_accuracy": accuracy(model, test, collate, tokenizer)}
    (args.out / "training.json").write_text(json.dumps(result | {"steps": steps, "train_rows": len(train)}) + "\n")
    print(result)


if __name__ == "__main__":
    main()
