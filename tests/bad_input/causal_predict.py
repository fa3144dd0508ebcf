"""headtool causal-predict: no text, no causal model, numbers that cannot be meant."""

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

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


def facts(settings: dict | None = None, **changes: object):
    """Other values in causal.json."""

    def change(at: Path) -> None:
        known = json.loads((at / "causal.json").read_text())
        told = known | changes | {"settings": known["settings"] | (settings or {})}
        (at / "causal.json").write_text(json.dumps(told))

    return change


def not_numbers(at: Path) -> None:
    tensors = load_file(at / "causal.safetensors")
    save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, at / "causal.safetensors")


FLAGS = (
    case("causal-predict run 'Say 7' --interval 1", "--interval 1.0: not a level between 0 and 1"),
    case("causal-predict run 'Say 7' --temperature 0", "--temperature 0.0: not a number above 0"),
    case("causal-predict run 'Say 7' --top-p 0", "--top-p 0.0: not a share above 0, at most 1"),
    case("causal-predict run 'Say 7' --shared noise", "--shared noise is of --mode causal"),
    case("causal-predict run 'Say 7' --temperature 2", "--temperature is of --mode compatible"),
    case("causal-predict run 'Say 7' --number --new-tokens 3", "--new-tokens without a token: --number gives one number"),
    case("causal-predict run 'Say 7' --number --mode compatible", "--mode compatible samples tokens, --number takes none"),
    case("causal-predict run 'Say 7' --mode greedy", "invalid value for '--mode': ..."),
    case("causal-predict run 'Say 7' --new-tokens 0", "invalid value for '--new-tokens': ..."),
)  # fmt: skip

A_RUN = "a run of causal-train"
TEXTS = (
    case("causal-predict run ''", "there is no text", A_RUN, run()),
    case("causal-predict run", "there is no text", f"{A_RUN}, and nothing on stdin", run(), stdin="\n"),
    case("causal-predict run 'say <NUM>'", "'say <NUM>': its text holds the token <NUM>, which stands for a number", A_RUN, run()),
    case("causal-predict run \udcff", "'\\udcff': the text is not valid Unicode", "a byte that is no UTF-8", run()),
    case("causal-predict run 'Say 7' --new-tokens 300", "the text has ... tokens and --new-tokens 300 more, and the model has room for 256", A_RUN, run()),
    case("causal-predict run '" + "word " * 300 + "'", "the text has ... tokens, and the model has room for 256", A_RUN, run()),
)  # fmt: skip

MODELS = (
    case("causal-predict none Say", "none: there is no such directory"),
    case("causal-predict model Say", "model holds a model without a causal part", "a model that is none of causal-train", model()),
    case("causal-predict folder Say", "folder holds no causal model", "a folder of something else", file("folder/letter.txt", "x")),
    case("causal-predict run Say", "run is a run of headtool score, not of causal-train", "a run of headtool score", file("run/manifest.json", {"command": "score", "status": "done"})),
    case("causal-predict run Say", "run/manifest.json: no manifest of a run", "manifest.json holds a list", file("run/manifest.json", [])),
    case("causal-predict run Say", "run/manifest.json: no manifest of a run", "manifest.json is deep as a well", file("run/manifest.json", "[" * 100_000)),
    case("causal-predict run Say", "run: this run is not done (running)", "a run that is still running", file("run/manifest.json", {"command": "causal-train", "status": "running"}), code=1),
    case("causal-predict run Say", "run/model/causal.safetensors: truncated: ... bytes where its header promises ...", "the last bytes of causal.safetensors are missing", run(content("causal.safetensors", lambda old: old[:-8]))),
    case("causal-predict run Say", "run/model: causal.safetensors is missing", "causal.safetensors is missing", run(without("causal.safetensors"))),
    case("causal-predict run Say", "run/model/causal.safetensors: its weights do not fit causal.json", "causal.json says 3 dimensions", run(facts({"causal_dim": 3}))),
    case("causal-predict run Say", "run/model/causal.safetensors: it holds numbers that are not finite", "weights of NaN", run(not_numbers)),
    case("causal-predict run Say", "run/model/causal.json: not the settings of a causal model (causal_dim x)", "causal_dim is a word", run(facts({"causal_dim": "x"}))),
    case("causal-predict run Say", "run/model/causal.json: not the settings of a causal model (gamma0 x)", "gamma0 is a word", run(facts({"gamma0": "x"}))),
    case("causal-predict run Say", "run/model/causal.json: not the settings of a causal model (token 3)", "the token of numbers is 3", run(facts(token=3))),
    case("causal-predict run Say", "run/model/causal.json: its token <NUM> is not the tokenizer's 1000000000", "the number of that token is another", run(facts(num=10**9))),
    case("causal-predict run Say", "run/model/causal.json: not the settings of a causal model (...)", "the pattern is a number", run(facts(pattern=3))),
    case("causal-predict run Say", "run/model/causal.json: not the settings of a causal model (...)", "causal.json is deep as a well", run(write("causal.json", "[" * 100_000))),
    case("causal-predict run Say", "run/model/causal.json: not the settings of a causal model (...)", "causal.json is cut", run(write("causal.json", "{"))),
)  # fmt: skip

CASES = (*FLAGS, *TEXTS, *MODELS)
