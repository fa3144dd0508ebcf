"""The house rules: floors, light imports, generated files that are current."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import headtool
from headtool import folder
from headtool.cli import COMMANDS, module_of

SOURCE = Path(headtool.__file__).parent
ROOT = Path(__file__).parents[1]
FLOORS = [
    {"options", "completion", "configuration", "errors", "console", "folder", "ranks", "redact"},
    {"record"},
    {"models"},
    {"scores", "tasks", "figures", "training", "reporting", "faults", "weights", "checkup", "causal"},
    {"commands"},
    {"cli", "functions"},
    {"__main__", "__init__"},
]
# Imports between rooms of one floor, and from the light ground upwards, that are meant.
MEANT = {
    ("scores", "figures"),
    ("scores", "tasks"),
    ("faults", "figures"),
    ("faults", "tasks"),
    ("reporting", "figures"),
    ("weights", "figures"),
    ("causal", "figures"),
    ("causal", "tasks"),
    ("causal", "training"),
    ("completion", "models"),
    ("completion", "tasks"),
    ("completion", "causal"),
    ("completion", "folder"),
    ("options", "completion"),
    ("options", "configuration"),
    ("configuration", "errors"),
    ("folder", "errors"),
    ("options", "errors"),
    ("ranks", "errors"),
    ("console", "errors"),
    ("console", "redact"),
}
HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "polars",
    "numpy",
    "matplotlib",
    "sklearn",
    "scipy",
    "safetensors",
    "huggingface_hub",
)


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def floor(name: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


def imports(file: Path):
    """The rooms of headtool that a file imports from, anywhere in it but under TYPE_CHECKING."""
    tree = ast.parse(file.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "headtool":
            names = [node.module] if "." in node.module else [f"headtool.{alias.name}" for alias in node.names]
            yield from (name for name in names if name not in ("headtool.__version__",))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("headtool."))


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda f: str(f.relative_to(SOURCE)))
def test_imports_go_downwards(file):
    parts = file.relative_to(SOURCE).with_suffix("").parts
    here = parts[0]
    for module in imports(file):
        there = room(module)
        if there == here or (here, there) in MEANT:
            continue
        assert floor(there) < floor(here), f"{here} imports {there}"


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--version"],
        ["score", "--help"],
        ["report", "--help"],
        ["report"],
        ["finetune", "--help"],
        ["inject", "--help"],
        ["doctor", "--help"],
        ["download", "--help"],
        ["inspect-weights", "--help"],
        ["inspect-weights"],
        ["causal-train", "--help"],
        ["causal-predict", "--help"],
        ["scor"],
        ["score", "demo", "--limit", "-1"],
    ],
)
def test_the_shell_is_light(args):
    code = f"""
import sys
sys.argv = ["headtool", *{args!r}]
try:
    from headtool.cli import main
    main()
finally:
    print("HEAVY", [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith("HEAVY []\n")
    assert done.returncode == (0 if "--help" in args or "--version" in args else 2)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("headtool sc", {"score"}),
        ("headtool rep", {"report"}),
        ("headtool inject demo --detect ran", {"range"}),
        ("headtool inject demo --sites q,sc", {"q,scores"}),
        ("headtool score de", {"demo", "demo-encoder"}),
        ("headtool finetune demo --lora-t", {"--lora-targets"}),
        ("headtool score demo --scores en", {"ent", "ent_rel"}),
        ("headtool score demo --scores out,ent,ta", {"out,ent,task"}),
        ("headtool score demo --family gpt", {"gpt2", "gpt_neox", "gpt_oss"}),
        ("headtool score demo --task mu", {"multiple_choice"}),
        ("headtool score demo --exclude", {"--exclude-bos"}),
        ("headtool score demo --query l", {"last"}),
        ("headtool inspect-weights de", {"demo", "demo-encoder"}),
        ("headtool inspect-weights demo --k-m", {"--k-method", "--k-max"}),
    ],
)
def test_tab_completes_and_is_light(line, expected, tmp_path):
    words = line.split(" ")
    env = {"_HEADTOOL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "PATH": ""}
    code = f"""
import atexit, os, sys
sys.argv = ["headtool"]
def check():
    heavy = [name for name in {HEAVY!r} if name in sys.modules]
    if heavy:
        print("HEAVY", heavy, file=sys.stderr)
atexit.register(check)
from headtool.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "HEAVY" not in done.stderr
    assert set(done.stdout.split()) == expected


def test_generated_files_are_current():
    """completions/, docs/cli.md, docs/tables.md, docs/families.md and the README's tables, byte for byte."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        generate = importlib.import_module("generate")
    finally:
        sys.path.remove(str(ROOT / "tools"))
    for file, text in generate.files().items():
        assert (ROOT / file).read_text(encoding="utf-8") == text, f"{file} is stale: python tools/generate.py"


@pytest.mark.parametrize("check", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join)
def test_the_checkers_are_content(check):
    done = subprocess.run([sys.executable, "-m", *check], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_score_is_a_function_with_a_formula_and_a_unit():
    from headtool.record.tables import SCORES

    names = folder.names("headtool.scores")
    assert set(names) == set(SCORES)
    for name in names:
        function = getattr(folder.load("headtool.scores", name, "score"), name)
        assert inspect.getdoc(function)
        assert inspect.getdoc(function).startswith("The ")


@pytest.mark.parametrize(
    "package", ["headtool.scores", "headtool.tasks", "headtool.models.architectures", "headtool.faults.detectors"]
)
def test_no_name_is_declared_twice(package):
    declared = [
        name
        for file in sorted((SOURCE / Path(*package.split(".")[1:])).glob("*.py"))
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "NAMES"
        for name in ast.literal_eval(node.value)
    ]
    assert len(declared) == len(set(declared))
    assert set(declared) == set(folder.names(package))


def test_the_python_face_is_the_command_line():
    for name in COMMANDS:
        function = getattr(headtool, name.replace("-", "_"))
        assert function.__wrapped__ is importlib.import_module(module_of(name)).command
    assert {name.replace("-", "_") for name in COMMANDS} | {"__version__"} == set(headtool.__all__)
    with pytest.raises(AttributeError):
        headtool.nothing  # noqa: B018
