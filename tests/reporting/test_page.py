"""report.html: whole in itself, well formed, and every word of a manifest escaped."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import headtool
import runs

VOID = {"meta", "link", "img", "input", "br"}
EVIL = '<script>alert(1)</script>"&$x$'


class Reader(HTMLParser):
    """Checks nesting, and keeps what tests ask for."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.in_heads = False

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        self.ids += [found["id"]] if "id" in found else []
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.in_heads = "heads" in found.get("class", "").split()
        if self.in_heads and tag == "tr":
            self.rows.append([])
        if self.in_heads and tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.in_heads and "table" in self.open and self.open[-1] in ("td", "th", "button"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    pre, grad, post = runs.pair(folder, 1)
    values = np.random.default_rng(1).normal(size=48)
    columns = {"out_raw": [None, *values[1:].tolist()], "out_se": [0.1] * 48, "out_n": [9] * 48}
    evil = runs.make(folder / "evil", {"scores_raw": columns}, model="final-1", seed=1, scores=("out",), label=EVIL)
    return headtool.report([evil, pre, grad, post], top_k=10, out=folder / "report", quiet=True)


@pytest.fixture(scope="module")
def page(report):
    reader = Reader()
    reader.feed((report / "report.html").read_text(encoding="utf-8"))
    reader.close()
    return reader


def test_it_is_nested_and_its_ids_are_unique(page):
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_it_needs_nothing_from_elsewhere(page, report):
    assert {re.match(r"#|data:", link)[0] for link in page.links} == {"#", "data:"}
    text = (report / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import|<script src", text)
    assert page.tags.count("img") == 4


def test_what_a_manifest_says_is_escaped(page, report):
    assert page.tags.count("script") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in (report / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in (report / "report.md").read_text(encoding="utf-8")


def test_the_table_has_a_row_a_head_with_its_values(page, report):
    heads = pl.read_csv(report / "heads.csv")
    titles, *rows = page.rows
    assert titles[:4] == ["layer", "head", "case", "I_pre"]
    assert len(rows) == heads.height == 48
    at = titles.index("out_post") if "out_post" in titles else titles.index("out")
    for row, values in zip(rows, heads.iter_rows(named=True), strict=True):
        assert [int(row[0]), int(row[1])] == [values["layer"], values["head"]]
        assert float(row[3]) == pytest.approx(values["I_pre"], rel=1e-4)
        value = values[titles[at]]
        assert row[at] == "" if value is None else float(row[at]) == pytest.approx(value, rel=1e-4)


def test_a_map_has_a_square_a_head(page, report):
    maps = page.ids  # titles stand in <title> of each square
    text = (report / "report.html").read_text(encoding="utf-8")
    squares = re.findall(r"<title>layer (\d+), head (\d+): (\S+)</title>", text)
    drawn = len(re.findall(r'<figure class="map">', text))
    assert maps
    assert len(squares) == drawn * 48
    assert "none" in {value for *_, value in squares}  # the head whose score is missing


def test_a_large_model_has_a_page_of_a_usable_size(tmp_path):
    layers, heads = 32, 40
    rng = np.random.default_rng(0)
    tables = {"importance": runs.importance(rng.normal(size=layers * heads))}
    run = runs.make(tmp_path / "run", tables, layers=layers, heads=heads)
    out = headtool.report(run, out=tmp_path / "report", quiet=True)
    assert (out / "report.html").read_text().count("<tr>") == 1 + layers * heads
    assert (out / "report.html").stat().st_size < 4e6


def browser() -> str | None:
    named = os.environ.get("HEADTOOL_TEST_BROWSER")  # a path; without it, what is installed
    return named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(browser() is None, reason="no Chromium here")
def test_sorting_in_a_browser(report, tmp_path):
    """A probe at the page's end clicks the headers and writes what the table then shows."""
    probe = """<script>
      const columns = ["I_pre", "out_post", "case"], told = [], cells = () => [...document.querySelectorAll("table.heads tbody tr")];
      const heads = [...document.querySelectorAll("table.heads thead th")];
      for (const name of columns) {
        const at = heads.findIndex((h) => h.textContent === name);
        for (const turn of [0, 1]) {
          heads[at].querySelector("button").click();
          told.push([name, heads[at].getAttribute("aria-sort"), cells().map((r) => r.cells[at].textContent)]);
        }
      }
      document.title = JSON.stringify(told);
    </script>"""
    page = tmp_path / "page.html"
    page.write_text((report / "report.html").read_text(encoding="utf-8").replace("</body>", probe + "</body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([browser(), *flags, Path(page).as_uri()], capture_output=True, text=True, timeout=60)
    title = re.search(r"<title>(\[.*?\])</title>", done.stdout, re.S)
    told = json.loads(title[1].replace("&amp;", "&"))
    assert [order for _, order, _ in told] == ["descending", "ascending"] * 2 + ["ascending", "descending"]
    for name, order, shown in told:
        known = [value if name == "case" else float(value) for value in shown if value]
        assert known == sorted(known, reverse=order == "descending")
        assert len(shown) == 48
        assert all(not value for value in shown[len(known) :])  # what is missing comes last, either way
