"""Whatever stands in a file or on the command line: a result, or one line that says what is wrong. Never a traceback."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from headtool import options, ranks
from headtool.commands import score
from headtool.errors import translate
from headtool.faults import asked
from headtool.models import checkpoint, locate
from headtool.tasks import labels, load, rows

settings.register_profile("fuzz", deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
settings.load_profile("fuzz")
SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=12)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def refused_or(function, *args):
    """The result, or None where the call is refused. Anything else that is raised is a bug."""
    try:
        return function(*args)
    except Exception as error:
        known = translate(error)
        if known is None:
            raise
        assert str(known)
        return None


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


# -- the command line -------------------------------------------------------------------------------------------------

LISTS = {
    "scores": score._names,
    "detectors": asked.detectors,
    "share": ranks.share,
    "number": lambda text: options.number_or("all", text, "--subset"),
    "memory": options.memory,
    "numbers": lambda text: options.numbers(text, "--bits"),
    "fields": lambda text: load._mapping([text]),
    "data": rows.find,
    "model": locate.locate,
}
SYNTAX = st.text("0123456789-,.:/x entoulambGBké²∞\0", max_size=12) | st.text(max_size=12)


@pytest.mark.parametrize("parse", LISTS.values(), ids=LISTS)
@given(text=SYNTAX)
@example(text="0-31,3")
@example(text="9" * 5000)
@example(text="a" * 300)
@example(text="\0")
@example(text="~\0")
def test_the_syntax_of_a_flag(parse, text):
    refused_or(parse, text)


# -- configuration files ------------------------------------------------------------------------------------------------


def run_with(file: Path) -> tuple[int, str]:
    """headtool score with this configuration, as far as it gets without a model."""
    from headtool.cli import main

    said, before = io.StringIO(), sys.argv
    sys.argv = ["headtool", "score", "./there/is/no/model", "--config", str(file)]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            main()
    except SystemExit as stopped:
        return int(stopped.code or 0), said.getvalue()
    finally:
        sys.argv = before
    raise AssertionError


def check_refusal(file: Path) -> None:
    code, said = run_with(file)
    assert "Traceback" not in said, said
    assert code == 2
    assert said.count("headtool: error: ") == 1


NAMES = st.sampled_from(
    [
        "scores",
        "limit",
        "field",
        "subset",
        "lambda-ent",
        "out",
        "force",
        "seed",
        "query",
        "debug",
        "json",
        "model",
        "help",
    ]
)


@given(st.dictionaries(NAMES | st.text(max_size=6), JSON, max_size=4))
def test_any_settings_in_yaml(given_settings):
    import yaml

    given_settings.pop("debug", None)  # asks for tracebacks
    with folder() as at:
        (at / "a.yaml").write_bytes(yaml.safe_dump(given_settings, allow_unicode=True).encode("utf-8", "surrogatepass"))
        check_refusal(at / "a.yaml")


@given(
    st.binary(max_size=60) | st.text("[]{}:,-?!&*#|>'\"%@` \n\tab1.=", max_size=40).map(str.encode),
    st.sampled_from([".yaml", ".toml"]),
)
@example(b"&a [*a]", ".yaml")
@example(b"limit: &a [*a]", ".yaml")
@example(b"[" * 5000, ".yaml")
@example(b"a = " + b"[" * 5000, ".toml")
@example(b"limit: 2001-01-01", ".yaml")
@example(b"limit = 2001-01-01", ".toml")
@example(b"? [a]\n: b", ".yaml")
@example(b"1: 2", ".yaml")
@example(b"seed: " + b"9" * 5000, ".yaml")
def test_any_bytes_of_a_configuration(content, suffix):
    with folder() as at:
        (at / f"a{suffix}").write_bytes(content)
        check_refusal(at / f"a{suffix}")


# -- rows ---------------------------------------------------------------------------------------------------------------


def read_all(file: Path) -> None:
    """Everything that a run does with rows before there is a model."""
    chosen = refused_or(lambda: load.choose(data=str(file), task=None, encoder=False, subset=3))
    if chosen is not None:
        examples = list(chosen.examples())
        assert examples
        found = refused_or(labels.read, chosen)
        if found is not None:
            refused_or(labels.classes, found, None, None)


SUFFIX = st.sampled_from(rows.SUFFIXES)
FIELD = st.sampled_from(
    [
        "question",
        "choices",
        "answerKey",
        "text",
        "label",
        "instruction",
        "input",
        "output",
        "answer",
        "premise",
        "hypothesis",
        "sentence1",
        "sentence2",
        "sentence",
    ]
)
ROW = st.dictionaries(FIELD, JSON | st.fixed_dictionaries({"text": JSON, "label": JSON}), max_size=6)


@given(st.binary(max_size=80) | st.text('[]{}:,"\\ \n\r\tab1.\0é', max_size=60).map(str.encode), SUFFIX)
@example(b"PAR1PAR1", ".parquet")
@example(b"PAR1" + b"\0" * 40 + b"PAR1", ".parquet")
@example(b'"' + b"a" * 200_000, ".csv")
@example(b"text\n" + b"a" * 200_000, ".csv")
@example(b"text\0\na\0", ".csv")
@example(b"text,text\na,b", ".csv")
@example(b'{"data": [{"text": 1}, 2]}', ".json")
@example(b'{"text": "a", "text": "b"}', ".json")
@example(b"\xff\xfe{\x00}\x00", ".json")
@example(b"9" * 5000, ".json")
@example(b"9" * 5000, ".jsonl")
@example(b"NaN", ".jsonl")
@example(b'{"text": "a", "label": NaN}', ".jsonl")
@example(b'{"text": "a", "label": 1e999}', ".jsonl")
def test_any_bytes_of_any_kind_of_file(content, suffix):
    with folder() as at:
        (at / f"a{suffix}").write_bytes(content)
        read_all(at / f"a{suffix}")


@given(st.lists(ROW, min_size=1, max_size=3))
def test_any_values_of_known_fields(made):
    with folder() as at:
        (at / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
        read_all(at / "a.jsonl")


@given(
    st.lists(
        st.dictionaries(
            FIELD, st.lists(st.text(max_size=4), max_size=2) | st.none() | st.text(max_size=5), min_size=1, max_size=4
        ),
        min_size=1,
        max_size=3,
    ),
    st.data(),
)
@settings(max_examples=60)
def test_a_parquet_file_cut_or_changed_anywhere(made, data):
    import polars as pl

    with folder() as at:
        try:
            frame = pl.DataFrame(made, strict=False)
        except (pl.exceptions.PolarsError, TypeError):
            return
        frame.write_parquet(at / "a.parquet")
        read_all(at / "a.parquet")
        content = bytearray((at / "a.parquet").read_bytes())
        where = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[where] ^= data.draw(st.integers(1, 255))
        else:
            del content[where:]
        (at / "a.parquet").write_bytes(content or b"x")
        read_all(at / "a.parquet")


# -- model folders --------------------------------------------------------------------------------------------------------

NUMBER = st.integers(-3, 40) | JSON
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "X"]) | JSON,
        "shape": st.lists(NUMBER, max_size=3) | JSON,
        "data_offsets": st.lists(NUMBER, min_size=2, max_size=2) | JSON,
    },
)


@given(
    st.dictionaries(st.text(max_size=8) | st.just("__metadata__"), ENTRY | JSON, max_size=4) | JSON,
    st.binary(max_size=40),
    st.integers(-9, 9),
)
@example({}, b"", 0)
@example({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 10**30]}}, b"", 0)
def test_any_header_of_safetensors(header, after, off):
    text = json.dumps(header).encode()
    with folder() as at:
        (at / "a.safetensors").write_bytes(max(0, len(text) + off).to_bytes(8, "little") + text + after)
        found = refused_or(checkpoint.header, at / "a.safetensors")
        if found:
            assert max(entry["data_offsets"][1] for entry in found.values()) == len(after) - off or off


@given(st.binary(max_size=60))
@example(b"\xff" * 8)
@example((5000).to_bytes(8, "little") + b"[" * 5000)
def test_any_bytes_of_safetensors(content):
    with folder() as at:
        (at / "a.safetensors").write_bytes(content)
        refused_or(checkpoint.header, at / "a.safetensors")


@given(
    st.fixed_dictionaries(
        {"weight_map": st.dictionaries(st.text(max_size=4), st.text("./\\a:\0", max_size=6) | JSON, max_size=4) | JSON}
    )
    | JSON
)
def test_any_index(index):
    with folder() as at:
        (at / checkpoint.INDEX).write_text(json.dumps(index))
        for file in refused_or(checkpoint.weight_files, at) or ():
            assert file.resolve().parent == at.resolve()


@given(
    st.dictionaries(
        st.sampled_from(["model_type", "architectures", "id2label", "transformers_weights", "attn_implementation"]),
        JSON | st.sampled_from(["llama", "bert"]),
    )
)
def test_any_config(config):
    with folder() as at:
        (at / "config.json").write_text(json.dumps(config))
        (at / "tokenizer_config.json").write_text(json.dumps(config.get("architectures")))
        (at / "model.safetensors").write_bytes(b"")
        found = refused_or(locate.locate, str(at))
        if found is not None:
            from headtool.models import classifier, layout
            from headtool.models.open import kind_of

            refused_or(layout.find, found.model_type, None)
            refused_or(classifier.class_names, found)
            assert kind_of(found)
            assert found.fingerprint()


@given(
    st.dictionaries(
        st.sampled_from(["status", "identity", "tables", "checkpoints", "model", "inputs", "arguments"]),
        JSON | st.just("done") | st.fixed_dictionaries({"importance": st.fixed_dictionaries({"sha256": JSON})}),
    )
)
def test_any_manifest(manifest):
    from headtool.console import Console
    from headtool.ranks import Share
    from headtool.record.run import Run
    from headtool.reporting.source import read

    with folder() as at:
        (at / "manifest.json").write_text(json.dumps(manifest))
        refused_or(read, at)
        console = Console(quiet=True)
        made = lambda: Run.start("score", {}, {}, label="x", out=at, force=False, console=console, share=Share())  # noqa: E731
        with contextlib.redirect_stderr(io.StringIO()):
            refused_or(made)
            blank = Run.start("score", {}, {}, label="x", out=at / "new", force=False, console=console, share=Share())
            with blank:
                blank.finish()
            whole = json.loads((at / "new" / "manifest.json").read_text())
            (at / "new" / "manifest.json").write_text(
                json.dumps(whole | manifest | {"identity": whole["identity"], "status": "done"})
            )
            again = refused_or(
                lambda: Run.start(
                    "score", {}, {}, label="x", out=at / "new", force=False, console=console, share=Share()
                )
            )
            if again is not None:
                with again:
                    pass
