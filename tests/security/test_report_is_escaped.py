"""What a report quotes cannot become part of its page: names of models, paths, scores, arguments, notes."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np

import headtool
import runs

EVIL = "<script>alert('1')</script>\"'><img src=x onerror=alert(2)>&lt;<!-- --><style>*{display:none}</style></pre></title>"


class Outline(HTMLParser):
    """The elements of a page with the names of their attributes, and the text outside of scripts and styles."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")

    def handle_comment(self, data):
        self.tags.append("comment")

    def handle_data(self, data):
        self.text.append(data)


def outline(folder, word):
    """A report over runs in which every text that is not headtool's own is the word."""
    n, at = runs.LAYERS * runs.HEADS, folder / word.replace("/", "-")[:120]
    values = np.random.default_rng(0).normal(size=n)
    extra = {f"{word}_raw": values.tolist(), f"{word}_se": [0.1] * n, f"{word}_n": [5] * n}
    pre = {"importance": runs.importance(values), "scores_raw": extra}
    post = {"importance": runs.importance(values * 2), "update": runs.update(values)}
    made = [
        runs.make(at / "pre", pre, model="a", label=word, scores=(word,)),
        runs.make(at / "post", post, model="b", init="a", label=word),
    ]
    for run in made:
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["arguments"] |= {"question_marker": word, word: word}
        manifest |= {"warnings": [word], "data": {"name": word, "classes": [word], "shape": word}}
        (run / "manifest.json").write_text(json.dumps(manifest))
    out = headtool.report(made, top_k=10, out=at / "report", quiet=True)
    page = Outline()
    page.feed((out / "report.html").read_text())
    page.close()
    return page, (out / "report.md").read_text()


def test_a_page_has_the_same_elements_whatever_it_quotes(tmp_path):
    plain, _ = outline(tmp_path, "plain")
    evil, _ = outline(tmp_path, EVIL)
    assert evil.tags == plain.tags
    assert EVIL in "".join(evil.text)


def test_no_row_of_the_markdown_is_broken_by_a_name(tmp_path):
    _, plain = outline(tmp_path, "plain")
    _, evil = outline(tmp_path, "a | b <script>")
    assert len(evil.splitlines()) == len(plain.splitlines())
    assert "<script>" not in evil
