"""headtool causal-predict: no text, no causal model, numbers that cannot be meant."""

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path

import headtool
from bad_input.case import case, content, file, model, without, write


@functools.cache
def made() -> Path:
    """A small run of causal-train, made once."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    return headtool.causal_train(
        "demo", task="addition", examples=4, subset="2", epochs=1, baselines=False, threads=1, quiet=True,
        out=Path(folder) / "run",
    )  # fmt: skip


def run(*breaks):
    """A copy of that run, to whose model something is done."""

    def make() -> None:
        shutil.copytree(made(), "run")
        for each in breaks:
            each(Path("run/model"))

    return make


def dimension_3(at: Path) -> None:
    facts = json.loads((at / "causal.json").read_text())
    (at / "causal.json").write_text(json.dumps(facts | {"settings": facts["settings"] | {"causal_dim": 3}}))


FLAGS = (
    case("causal-predict run 'Say 7' --interval 1", "--interval 1.0: not a level between 0 and 1, for example 0.95"),
    case("causal-predict run 'Say 7' --temperature 0", "--temperature 0.0: not a number above 0"),
    case("causal-predict run 'Say 7' --top-p 0", "--top-p 0.0: not a share above 0, at most 1"),
    case("causal-predict run 'Say 7' --shared noise", "--shared noise is of --mode causal"),
    case("causal-predict run 'Say 7' --mode greedy", "invalid value for '--mode': ..."),
    case("causal-predict run 'Say 7' --new-tokens 0", "invalid value for '--new-tokens': ..."),
)  # fmt: skip

A_RUN = "a run of causal-train"
TEXTS = (
    case("causal-predict run ''", "there is no text", A_RUN, run()),
    case("causal-predict run", "there is no text", f"{A_RUN}, and nothing on stdin", run(), stdin="\n"),
    case("causal-predict run 'say <NUM>'", "'say <NUM>': its text holds the token <NUM>, which stands for a number", A_RUN, run()),
    case("causal-predict run '" + "word " * 300 + "'", "the text has ... tokens, and the model has room for 256", A_RUN, run()),
)  # fmt: skip

MODELS = (
    case("causal-predict none Say", "none: there is no such directory"),
    case("causal-predict model Say", "model holds a model without a causal part", "a model that is none of causal-train", model()),
    case("causal-predict folder Say", "folder holds no causal model", "a folder of something else", file("folder/letter.txt", "x")),
    case("causal-predict run Say", "run is a run of headtool score, not of causal-train", "a run of headtool score", file("run/manifest.json", {"command": "score", "status": "done"})),
    case("causal-predict run Say", "run: this run is not done (running)", "a run that is still running", file("run/manifest.json", {"command": "causal-train", "status": "running"}), code=1),
    case("causal-predict run Say", "run/model/causal.safetensors: truncated: ... bytes where its header promises ...", "the last bytes of causal.safetensors are missing", run(content("causal.safetensors", lambda old: old[:-8]))),
    case("causal-predict run Say", "run/model: causal.safetensors is missing", "causal.safetensors is missing", run(without("causal.safetensors"))),
    case("causal-predict run Say", "run/model/causal.safetensors: its weights do not fit causal.json", "causal.json says 3 dimensions", run(dimension_3)),
    case("causal-predict run Say", "run/model/causal.json: not the settings of a causal model (...)", "causal.json is cut", run(write("causal.json", "{"))),
)  # fmt: skip

CASES = (*FLAGS, *TEXTS, *MODELS)
