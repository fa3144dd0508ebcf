"""headtool inspect-weights: files that are cut or contradict themselves, pickles, and flags that fit nothing."""

import json
from pathlib import Path

import torch

import checkpoints
from bad_input.case import case, content, file, folder, header, link, model, without, write

WEIGHTS, SHARD = "model.safetensors", "model-00002-of-00002.safetensors"
INDEX = checkpoints.INDEX
ON = "inspect-weights model"


def cut(keep: int):
    return content(WEIGHTS, lambda old: old[:keep])


def small(change):
    """A checkpoint of two tensors, in whose header the first one's entry is changed."""

    def make() -> None:
        at = checkpoints.write(Path("model"), {"a": torch.zeros(4, 4), "b": torch.zeros(2)}, {})
        header(lambda entries: change(entries["a"]))(at)

    return make


def sharded(*breaks):
    """A checkpoint in two shards, to which something is done."""

    def make() -> None:
        tensors = {f"model.layers.{i}.mlp.up_proj.weight": torch.zeros(6, 4) for i in range(4)}
        checkpoints.write(Path("model"), tensors, {"model_type": "llama"}, shards=2)
        for each in breaks:
            each(Path("model"))

    return make


def other_index(at: Path) -> None:
    index = json.loads((at / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = "model-00001-of-00002.safetensors"
    (at / INDEX).write_text(json.dumps(index))


def pickled(saved: object):
    """A model folder whose only weights are this pickle."""

    def make() -> None:
        Path("model").mkdir()
        torch.save(saved, "model/pytorch_model.bin")

    return make


class Trick:
    """What a malicious pickle would do, harmless here: it would leave a folder behind."""

    def __reduce__(self):
        import os

        return os.mkdir, ("ran",)


FILES = (
    case(ON, f"model/{WEIGHTS}: truncated, or no safetensors file (0 bytes)", "the weights are an empty file", model(cut(0))),
    case(ON, f"model/{WEIGHTS}: truncated, or no safetensors file (4 bytes)", "the weights end after 4 bytes", model(cut(4))),
    case(ON, f"model/{WEIGHTS}: truncated, or no safetensors file (100 bytes)", "the weights end in their header", model(cut(100))),
    case(ON, f"model/{WEIGHTS}: truncated: 5000 bytes where its header promises ...", "the weights end after their header", model(cut(5000))),
    case(ON, f"model/{WEIGHTS}: truncated: ... bytes where its header promises ...", "the last byte of the weights is missing", model(cut(-1))),
    case(ON, f"model/{WEIGHTS}: too long: ... bytes where its header promises ...", "bytes after the weights", model(content(WEIGHTS, lambda old: old + b"more"))),
    case(ON, f"model/{WEIGHTS}: its header cannot be read", "a header of nonsense", model(content(WEIGHTS, lambda old: old[:8] + b"nonsense 123" + old[20:]))),
    case(ON, f"model/{WEIGHTS}: a is F32 [7, 7], which 64 bytes do not hold", "a shape that its bytes do not hold", small(lambda entry: entry.update(shape=[7, 7]))),
    case(ON, f"model/{WEIGHTS}: a is BF16 [4, 4], which 64 bytes do not hold", "a type that its bytes do not hold", small(lambda entry: entry.update(dtype="BF16"))),
    case(ON, f"model/{WEIGHTS}: its header cannot be read", "a tensor without a type", small(lambda entry: entry.pop("dtype"))),
    case(ON, f"model/{WEIGHTS}: its header cannot be read", "a shape that is a word", small(lambda entry: entry.update(shape="wide"))),
    case(ON, f"model/{WEIGHTS}: its header cannot be read", "a tensor that begins before the data", small(lambda entry: entry.update(data_offsets=[-4, 0]))),
    case(ON, f"model/{WEIGHTS}: a overlaps another tensor, or leaves a gap", "a gap before a tensor", small(lambda entry: entry.update(data_offsets=[4, 64]))),
    case(ON, "model: it holds no tensors", "a file of no tensors", lambda: checkpoints.write(Path("model"), {}) and None),
    case(ON, f"model: shards are missing: {SHARD} (1 of 2)", "a shard is missing", sharded(without(SHARD))),
    case(ON, f"model/{SHARD}: truncated: ... bytes where its header promises ...", "a shard is cut", sharded(content(SHARD, lambda old: old[:-3]))),
    case(ON, f"model/{INDEX}: it puts model.norm.weight in model-00001-of-00002.safetensors, which does not hold it (1 such tensors)", "an index of another checkpoint", sharded(other_index)),
    case(ON, f"model/{INDEX}: not a safetensors index", "the index is cut", sharded(write(INDEX, "{"))),
    case(ON, f"model/{INDEX}: it names a file outside its folder: ../x", "an index that names a file outside its folder", sharded(write(INDEX, {"weight_map": {"a": "../x"}}))),
    case(ON, "model/config.json: not JSON (...)", "config.json is cut", model(write("config.json", "{"))),
    case(ON, "model/config.json: not JSON (not an object)", "config.json holds a list", model(write("config.json", []))),
    case(ON, "model/config.json: not JSON (...)", "config.json is deep as a well", model(write("config.json", "[" * 100_000))),
    case(f"{ON} --embedding --no-figures", "model: its tokenizer.json cannot be read", "tokenizer.json is not UTF-8", model(content("tokenizer.json", lambda old: b"\xff" + old))),
    case(f"{ON} --embedding --no-figures", "model: its tokenizer.json cannot be read", "a token whose number is a word", model(write("tokenizer.json", {"model": {"vocab": {"a": "x"}}}))),
    case("inspect-weights link", "link: a link to gone, which is not there", "`link` is a link to a folder that is gone", link("link", "gone")),
    case(ON, "model/pytorch_model.bin: a pickle, which can run any code when opened", "the weights are a pickle", pickled({"a": torch.zeros(2)})),
    case(f"{ON}/pytorch_model.bin", "model/pytorch_model.bin: a pickle, which can run any code when opened", "the weights are a pickle", pickled({"a": torch.zeros(2)})),
    case(f"{ON} --allow-pickle", "model/pytorch_model.bin: torch.load refuses it under weights_only=True", "a pickle that would run code", pickled({"w": Trick()})),
    case(f"{ON} --allow-pickle", "model/pytorch_model.bin: it holds no dictionary of tensors", "a pickle of a number", pickled({"step": 3})),
    case(ON, "model: there are no weights", "an empty folder", folder("model")),
    case(ON, "model: there are no weights", "a folder of models", model(name="model/ckpt_final"), hint="there are models in it: model/ckpt_final"),
    case(f"{ON}.txt", "model.txt: neither a model folder nor a weight file", "model.txt is a text", file("model.txt", "x")),
    case("inspect-weights ./model", "./model: there is no such model folder"),
)  # fmt: skip

FLAGS = (
    case("inspect-weights", "missing argument 'PATH_OR_ID'"),
    case("inspect-weights demo --rank-tol 0", "--rank-tol 0: neither 'numpy' nor a factor between 0 and 1"),
    case("inspect-weights demo --rank-tol much", "--rank-tol much: neither 'numpy' nor a factor between 0 and 1"),
    case("inspect-weights demo --rank-tol nan", "--rank-tol nan: neither 'numpy' nor a factor between 0 and 1"),
    case("inspect-weights demo --zero-eps -1", "--zero-eps -1.0: not a number from 0"),
    case("inspect-weights demo --zero-eps nan", "--zero-eps nan: not a number from 0"),
    case("inspect-weights demo --alpha --spectrum none", "--alpha is fitted to spectra"),
    case("inspect-weights demo --include *.nothing", "demo: no tensor fits --include and --exclude"),
    case("inspect-weights demo --spectrum some", "invalid value for '--spectrum': ..."),
    case("inspect-weights demo --format xml", "invalid value for '--format': ..."),
    case("inspect-weights demo --k-max 2", "invalid value for '--k-max': ..."),
    case("inspect-weights demo --clusters 0", "invalid value for '--clusters': ..."),
    case("inspect-weights demo --sample 5", "invalid value for '--sample': ..."),
    case("inspect-weights demo --k-max 5", "--k-max is of the clusters of the embedding"),
    case("inspect-weights demo --embedding --clusters 3 --k-max 5", "--k-max chooses the number that --clusters gives"),
    case("inspect-weights demo --embedding --clusters 4000", "--clusters 4000: model.embed_tokens.weight has 580 rows"),
    case("inspect-weights demo --rank-tol 1e-3 --spectrum none", "--rank-tol is of spectra"),
    case("inspect-weights demo --include ''", "--include is empty"),
    case("inspect-weights demo --diff ''", "--diff is empty"),
    case("inspect-weights demo --family nothing", "there is no family named 'nothing'"),
    case("inspect-weights demo --diff ./nothing/here", "./nothing/here: there is no such model folder"),
    case("inspect-weights demo --diff demo-encoder", "the two checkpoints have no tensor in common"),
    case("inspect-weights demo --embedding --include *norm*", "demo: there is no word embedding among its tensors"),
    case("inspect-weights demo --shard 3/2", "--shard 3/2: not of the form i/n with 1 <= i <= n"),
)  # fmt: skip

CASES = (*FILES, *FLAGS)
