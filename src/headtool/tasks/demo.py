"""The built-in task: rows that the project generates, so that a first run needs no file and no network.

Decoders get multiple-choice questions, encoders get premise/hypothesis pairs. Both are made of a small closed
world in which every answer is right by construction. One row in ten (by a hash of its text) is held out: the
demo models were never trained on those, and only those are served here.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Any

NAMES = ("demo",)

CATEGORIES = {
    "animal": ["dog", "cat", "horse", "cow", "sheep", "fox", "wolf", "bear", "lion", "mouse"],
    "fruit": ["apple", "pear", "plum", "grape", "lemon", "melon", "peach", "cherry", "banana", "fig"],
    "tool": ["hammer", "saw", "drill", "axe", "wrench", "knife", "rake", "ladder", "brush", "needle"],
    "vehicle": ["car", "bus", "train", "boat", "ship", "truck", "bike", "van", "plane", "sled"],
    "metal": ["iron", "gold", "silver", "copper", "tin", "lead", "zinc", "nickel", "steel", "brass"],
    "drink": ["water", "milk", "tea", "coffee", "juice", "wine", "beer", "cocoa", "cider", "soda"],
    "garment": ["shirt", "coat", "hat", "glove", "scarf", "sock", "shoe", "boot", "dress", "belt"],
    "instrument": ["piano", "violin", "flute", "drum", "harp", "guitar", "trumpet", "horn", "organ", "lute"],
}
COLOURS = ["red", "blue", "green", "yellow", "black", "white", "pink", "brown"]
SIZES = ["big", "small", "tall", "tiny", "huge", "narrow", "wide", "long"]
STATES = ["new", "old", "cheap", "dirty", "clean", "cold", "warm", "broken"]
ASK_KIND = ("Which of these is {a} {kind}?", "Choose the {kind}.", "Which word names {a} {kind}?")
ASK_COLOUR = "The {x} is {p} and the {y} is {q}. What colour is the {z}?"
LABELS = "ABCD"
PAIR_LABELS = ("entailment", "neutral", "contradiction")
CLASSES = {"demo": PAIR_LABELS}


def held_out(text: str) -> bool:
    """True for the one text in ten that no demo model was trained on."""
    return hashlib.sha256(text.encode()).digest()[0] % 10 == 0


def question(rng: random.Random) -> dict[str, Any]:
    """One multiple-choice row: {question, choices {text, label}, answerKey}, 3 or 4 choices."""
    n = rng.randint(3, 4)
    if rng.random() < 0.75:  # recall: which word belongs to the kind
        kind, *others = rng.sample(sorted(CATEGORIES), n)
        article = "an" if kind[0] in "aeiou" else "a"
        text = rng.choice(ASK_KIND).format(a=article, kind=kind)
        words = [rng.choice(CATEGORIES[k]) for k in (kind, *others)]
    else:  # look-up: the answer stands in the question
        x, y = rng.sample([word for kind in CATEGORIES.values() for word in kind], 2)
        words = rng.sample(COLOURS, n)
        z, right, wrong = (x, words[0], words[1]) if rng.random() < 0.5 else (y, words[0], words[1])
        p, q = (right, wrong) if z == x else (wrong, right)
        text = ASK_COLOUR.format(x=x, y=y, p=p, q=q, z=z)
    order = rng.sample(range(n), n)
    choices = {"text": [words[i] for i in order], "label": list(LABELS[:n])}
    return {"question": text, "choices": choices, "answerKey": LABELS[order.index(0)]}


def pair(rng: random.Random) -> dict[str, Any]:
    """One premise/hypothesis row: {premise, hypothesis, label}, label 0 entailment, 1 neutral, 2 contradiction."""
    x, y, z = rng.sample([word for kind in CATEGORIES.values() for word in kind[:4]], 3)
    colour, size = rng.choice(COLOURS), rng.choice(SIZES)
    facts = [f"the {x} is {colour}", f"the {y} is {size}"]
    rng.shuffle(facts)
    subject, value, family = rng.choice([(x, colour, COLOURS), (y, size, SIZES)])
    label = rng.randrange(3)
    if label == 1 and rng.random() < 0.8:  # a quality that the premise says nothing about
        value = rng.choice(STATES)
    elif label == 1:  # a thing that the premise says nothing about
        subject = z
    elif label == 2:
        value = rng.choice([other for other in family if other != value])
    return {"premise": " and ".join(facts) + ".", "hypothesis": f"the {subject} is {value}.", "label": label}


def rows(encoder: bool, seed: int = 7, test: bool = True) -> Iterator[dict[str, Any]]:
    """Endless rows in a fixed order: the held-out ones, or with test=False the ones to train on."""
    rng = random.Random(seed)
    while True:
        row = pair(rng) if encoder else question(rng)
        text = row["premise"] + row["hypothesis"] if encoder else row["question"] + str(row["choices"])
        if held_out(text) == test:
            yield row
