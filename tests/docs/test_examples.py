"""What the documents and the help show is run as it stands there: blocks of ```sh, and the examples of every command.

Blocks of one page run one after the other in one folder. Settings that make them quick come from HEADTOOL_* variables.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headtool.cli import COMMANDS, module_of
from hub import serve

ROOT = Path(__file__).parents[2]
QUICK = {
    "HEADTOOL_LIMIT": "16", "HEADTOOL_SUBSET": "16", "HEADTOOL_THREADS": "1", "HEADTOOL_TIMEOUT": "0.1", "HEADTOOL_CALIBRATE": "4",
    "HEADTOOL_SEQUENCES": "4", "HEADTOOL_EXAMPLES": "40", "HEADTOOL_RUNS": "1", "HEADTOOL_SEEDS": "1",
}  # fmt: skip
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*/README.md"))]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUNNABLE = {page: blocks for page in PAGES if (blocks := BLOCK.findall(page.read_text(encoding="utf-8")))}


@pytest.fixture(scope="module")
def path(warm, tmp_path_factory):
    """A PATH on which `headtool` is this tree's."""
    return f"{warm.command(tmp_path_factory.mktemp('bin')).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub on this machine for what the documents download, and a `headtool` that starts anew: the hub's address is read
    when its library is imported.
    """
    command = tmp_path_factory.mktemp("bin") / "headtool"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m headtool "$@"\n')
    command.chmod(0o755)
    with serve(repository="Qwen/Qwen3-0.6B") as server:
        path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
        yield server.environment(tmp_path_factory.mktemp("home")) | {"PATH": path}


def run(script, path, folder, hub):
    env = os.environ | QUICK | {"PATH": path} | (hub if "download" in script else {})
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], env=env, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page(page, path, tmp_path, hub):
    for block in RUNNABLE[page]:
        run(block, path, tmp_path, hub)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_the_help(name, path, tmp_path, hub):
    told = inspect.getdoc(importlib.import_module(module_of(name)).command)
    examples = re.findall(r"^\[bold\](.*)\[/\]$", told, re.MULTILINE)
    assert examples
    assert all(f"headtool {name}" in example for example in examples)
    for example in examples:
        run(example, path, tmp_path, hub)


def test_every_command_has_a_page_with_blocks_that_run():
    for name in COMMANDS:
        assert any(f"headtool {name}" in block for block in RUNNABLE[ROOT / "docs" / f"{name}.md"]), name


def test_every_link_leads_somewhere():
    """Links to files, and to sections of them."""
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
