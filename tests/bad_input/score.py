"""headtool score: models, data and flags that cannot be."""

import torch

from bad_input.case import case, config, content, file, folder, model, weights, without, write

GOOD = {"question": "Which is red?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"}
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def cut(keep: int):
    return content(WEIGHTS, lambda old: old[:keep])


def header(text: bytes):
    """A safetensors file of this header, and nothing after it."""
    return content(WEIGHTS, lambda old: len(text).to_bytes(8, "little") + text)


def pickled(at):
    (at / WEIGHTS).rename(at / "pytorch_model.bin")


def small_vocabulary(tensors):
    tensors["model.embed_tokens.weight"] = torch.clone(tensors["model.embed_tokens.weight"][:300])


MODELS = (
    case("score ./nothing/here", "./nothing/here: there is no such model folder"),
    case("score 'a b'", "a b: there is no such model folder"),
    case("score ''", "MODEL is empty"),
    case("score x.json", "x.json: is no folder", "x.json is a file", file("x.json", "{}")),
    case("score ../../etc/passwd/..", "../../etc/passwd/..: there is no such model folder"),
    case("score nobody/nothing-at-all", "'nobody/nothing-at-all' is no folder here, and the hub cannot be reached and the files are not in the cache", "offline", code=1),
    case("score demo@main", "'demo@main' is no folder here, and the hub cannot be reached and the files are not in the cache", "offline", code=1),
    case("score empty", "empty: there is no config.json", "an empty folder", folder("empty")),
    case("score model", "model: there is no config.json", "config.json is missing", model(without("config.json"))),
    case("score model", "model/config.json: not JSON (...)", "config.json is cut", model(write("config.json", "{"))),
    case("score model", "model/config.json: it names no model_type", "config.json holds a list", model(write("config.json", []))),
    case("score model", "model/config.json: it names no model_type", "config.json has no model_type", model(write("config.json", {"a": 1}))),
    case("score model", "model/config.json: not JSON (...)", "config.json is not UTF-8", model(content("config.json", lambda old: b"\xff" + old))),
    case("score model", "models of type 'albert' are not supported: all of its layers are one shared layer, so a (layer, head) is not a part of the model", "model_type is albert", model(config(model_type="albert"))),
    case("score model", "models of type 'lama' are not known to headtool", "model_type is lama", model(config(model_type="lama")), hint=""),
    case("score model", "models of type 'mamba' are not supported: it has no attention heads", "model_type is mamba", model(config(model_type="mamba"))),
    case("score model", "model: its config.json is not one that transformers can use", "a number of heads that does not divide the width", model(config(num_attention_heads=6))),
    case("score model", "model: its config.json is not one that transformers can use", "hidden_size is a word", model(config(hidden_size="wide"))),
    case("score model", "the layers differ in their heads, which one table of heads cannot show", "num_hidden_layers is -1", model(config(num_hidden_layers=-1))),
    case("score model", "model: 9 weights of the model are missing, the first model.layers.4.input_layernorm.weight", "one layer more than there are weights", model(config(num_hidden_layers=5))),
    case("score model", "model/config.json: 'architectures' is no list of names", "architectures is a number", model(config(architectures=3))),
    case("score model", "model: there are no weights", "no weights", model(without(WEIGHTS))),
    case("score model", "model: the weights are pickles (pytorch_model.bin), which can run any code when opened", "the weights are a pickle", model(pickled)),
    case("score model", "model/model.safetensors: truncated, or no safetensors file (0 bytes)", "the weights are an empty file", model(cut(0))),
    case("score model", "model/model.safetensors: truncated, or no safetensors file (4 bytes)", "the weights end after 4 bytes", model(cut(4))),
    case("score model", "model/model.safetensors: truncated, or no safetensors file (100 bytes)", "the weights end in their header", model(cut(100))),
    case("score model", "model/model.safetensors: truncated: ... bytes where its header promises ...", "the last byte of the weights is missing", model(cut(-1))),
    case("score model", "model/model.safetensors: too long: ... bytes where its header promises ...", "bytes after the weights", model(content(WEIGHTS, lambda old: old + b"more"))),
    case("score model", "model/model.safetensors: its header cannot be read", "a header of nonsense", model(content(WEIGHTS, lambda old: old[:8] + b"nonsense 123" + old[20:]))),
    case("score model", "model/model.safetensors: its header cannot be read", "a header that is a list", model(header(b"[1]"))),
    case("score model", "model/model.safetensors: its header cannot be read", "a header that promises a tensor of minus 8 bytes", model(header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, -8]}}'))),
    case("score model", "model/model.safetensors: its header cannot be read", "a header whose offsets are words", model(header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}}'))),
    case("score model", "model: shards are missing: model-00001.safetensors (1 of 1)", "an index that names a missing shard", model(without(WEIGHTS), write(INDEX, {"weight_map": {"a": "model-00001.safetensors"}}))),
    case("score model", "model/model.safetensors.index.json: it names a file outside its folder: ../secret.safetensors", "an index that names a file outside its folder", model(write(INDEX, {"weight_map": {"a": "../secret.safetensors"}}))),
    case("score model", "model: there are no weights", "an index of no weights", model(without(WEIGHTS), write(INDEX, {"weight_map": {}}))),
    case("score model", "model/model.safetensors.index.json: not a safetensors index", "an index that names numbers", model(write(INDEX, {"weight_map": {"a": 1}}))),
    case("score model", "model/model.safetensors.index.json: not a safetensors index", "an index that is a list", model(write(INDEX, [1]))),
    case("score model", "model: it holds adapters of another model (adapter_config.json)", "adapters over another model (adapter_config.json)", model(write("adapter_config.json", {"base_model_name_or_path": "../other"}))),
    case("score model", "model: its config.json names a weight file (transformers_weights)", "transformers_weights names a file elsewhere", model(config(transformers_weights="../other/model.safetensors"))),
    case("score model", "model: its config.json asks for code: attn_implementation somebody/kernel", "attn_implementation names code on the hub", model(config(attn_implementation="somebody/kernel"))),
    case("score model", "model/config.json: 'id2label' does not name classes by their numbers", "id2label has names for numbers", model(config(id2label={"yes": "no"}))),
    case("score model", "model/tokenizer_config.json: it names a file outside its folder: ../other/tokenizer.4.0.0.json", "fast_tokenizer_files names a file elsewhere", model(write("tokenizer_config.json", {"fast_tokenizer_files": ["../other/tokenizer.4.0.0.json"]}))),
    case("score model", "model/tokenizer_config.json: not a tokenizer's settings", "tokenizer_config.json is cut", model(write("tokenizer_config.json", "{"))),
    case("score model", "model: there is no tokenizer that can be read", "no tokenizer", model(without("tokenizer*"))),
    case("score model", "model: there is no tokenizer that can be read", "tokenizer.json is cut", model(write("tokenizer.json", '{"version"'))),
    case("score model", "the tokenizer gives token 579, the model knows 300", "an embedding of 300 tokens under a tokenizer of more", model(weights(small_vocabulary), config(vocab_size=300))),
    case("score model", "model: 1 weights of the model are missing, the first model.layers.2.self_attn.q_proj.weight", "a projection is missing in the weights", model(weights(lambda w: w.pop("model.layers.2.self_attn.q_proj.weight") is None))),
    case("score demo --family lama", "there is no family named 'lama'", hint="did you mean 'llama'"),
    case("score demo --family gpt2", "the model has no module 'h' where its family has one"),
    case("score demo --device cuda:99", "--device cuda:99: it is not there"),
    case("score demo --device nonsense", "--device nonsense: it is not there"),
    case("score demo --device meta", "--device meta: nothing can be computed there"),
    case("score demo --scores update --init ./nothing", "./nothing: there is no such model folder"),
    case("score demo --scores update --init demo-encoder", "...encoder has another tokenizer than ...decoder"),
    case("score demo --scores update --init model", "model has another tokenizer than ...decoder", "a model with another tokenizer", model(of="demo-encoder")),
)  # fmt: skip

DATA = (
    case("score demo --data no.jsonl", "no.jsonl: there is no such file"),
    case("score demo --data ''", "--data is empty"),
    case("score demo --data '~nosuchuser/x.jsonl'", "~nosuchuser/x.jsonl: there is no such file"),
    case("score demo --data nobody/nothing-at-all", "the hub cannot be reached", "offline", code=1),
    case("score demo-encoder --task mnli --out run", "the hub cannot be reached", "offline", code=1, keeps=True),
    case("score demo --data https://user:password@example.org/rows.jsonl", "https://***@example.org/rows.jsonl: there is no such file"),
    case("score demo --data a.jsonl", "a.jsonl: the file is empty", "an empty file", file("a.jsonl")),
    case("score demo --data a.jsonl", "a.jsonl: there is no row in it", "blank lines alone", file("a.jsonl", "", "  ")),
    case("score demo --data a.json", "a.json: there is no row in it", "an empty list", file("a.json", "[]")),
    case("score demo --data a.json", "a.json: neither a list of objects nor one object a line", "a number", file("a.json", "3")),
    case("score demo --data a.json", "a.json: not JSON (...)", "a slip in line 2", file("a.json", "[", '  {"text": "a"},,', "]")),
    case("score demo --data a.txt", "a.txt: there is no row in it", "blank lines alone", file("a.txt", " ", "")),
    case("score demo --data a.csv", "a.csv: there is no row in it", "a header alone", file("a.csv", "text,label")),
    case("score demo --data a.csv", "a.csv: 1 of 1 rows cannot be read; the first: a.csv:2: too many or too few columns", "a row with too many columns", file("a.csv", "text", "a,b,c")),
    case("score demo --data a.csv", "a.csv: 1 of 1 rows cannot be read; the first: a.csv:2: its text is not valid Unicode", "bytes that are no UTF-8", file("a.csv", raw=b"text\nhel\xfflo\n")),
    case("score demo --data a.tsv", "a.tsv:2: its fields are of no known shape: wort", "a column of another name", file("a.tsv", "wort", "a")),
    case("score demo --data a.xlsx", "a.xlsx: files of this kind are not read", "a kind of file that is not read", file("a.xlsx", "x")),
    case("score demo --data a.parquet", "a.parquet: not a Parquet file that can be read", "no Parquet file", file("a.parquet", "PAR1 not")),
    case("score demo --data nothing", "nothing: not a data set that can be read", "an empty folder", folder("nothing")),
    case("score demo --data code", "code: not a data set that can be read", "a folder with a loading script", file("code/code.py", "open('ran', 'w')")),
    case("score demo --data set", "set: it names a file outside its folder: ...secret.jsonl", "a folder whose README.md names a file outside it", file("secret.jsonl", {"text": "a"}), file("set/README.md", "---", "configs:", "- config_name: default", "  data_files: ../secret.jsonl", "---")),
    case("score demo --data a.jsonl", "a.jsonl:1: its fields are of no known shape: quest, ion", "fields of no known shape", file("a.jsonl", {"quest": 1, "ion": 2}), hint="name them with --field"),
    case("score demo --data a.jsonl", "a.jsonl: 1 of 1 rows cannot be read; the first: a.jsonl:1: the field 'question' is no text", "a question that is a number", file("a.jsonl", GOOD | {"question": 3})),
    case("score demo --data a.jsonl", "a.jsonl: 1 of 1 rows cannot be read; the first: a.jsonl:1: the lists 'text' and 'label' of 'choices' are empty, or of unequal length", "a text more than labels", file("a.jsonl", GOOD | {"choices": {"text": ["a"], "label": []}})),
    case("score demo --data a.jsonl", "a.jsonl: 1 of 11 rows cannot be read; the first: a.jsonl:6: not JSON (...)", "line 6 is cut", file("a.jsonl", *[GOOD] * 5, '{"question": "Which', *[GOOD] * 5)),
    case("score demo --data a.jsonl", "a.jsonl: 1 of 1 rows cannot be read; the first: a.jsonl:1: not JSON (...)", "a list in brackets, deep as a well", file("a.jsonl", "[" * 100_000)),
    case("score demo --data a.jsonl", "a.jsonl: 1 of 1 rows cannot be read; the first: a.jsonl:1: its text is not valid Unicode", "half of a surrogate pair", file("a.jsonl", '{"text": "\\ud800"}')),
    case("score demo --data a.jsonl --field text=query.txt", "a.jsonl: 1 of 1 rows cannot be read; the first: a.jsonl:1: it has no field 'query.txt'", "no such field", file("a.jsonl", {"query": {"text": "Which?"}})),
    case("score demo --data a.jsonl --field text", "--field text: not of the form NAME=PATH", "any rows", file("a.jsonl", {"text": "a"})),
    case("score demo --data a.jsonl --task pairs", "a.jsonl: 1 of 1 rows cannot be read; the first: a.jsonl:1: it has no field 'premise'", "rows of another shape", file("a.jsonl", {"text": "a"})),
    case("score demo --data a.jsonl --out run", "a.jsonl: the task span was found in none of the rows", "rows without a task span", file("a.jsonl", {"instruction": "Say something."}), code=1, keeps=True),
    case("score demo --task multiple_choise", "there is no task named 'multiple_choise'", hint="did you mean 'multiple_choice'?"),
    case("score demo --task text", "the task 'text' is a shape of rows, and needs them"),
    case("score demo --task demo --data a.txt", "--task demo brings its own rows, --data others", "any rows", file("a.txt", "x")),
    case("score demo-encoder --data a.jsonl --scores gradient", "a.jsonl:1: the label 7 is none of the 3 classes", "labels that the classifier does not have", file("a.jsonl", *[{"text": "a", "label": 7}] * 3)),
)  # fmt: skip

FLAGS = (
    case("score demo --scores entropi", "there is no score named 'entropi'"),
    case("score demo --scores ,", "--scores is empty"),
    case("score demo --scores out;ent", "there is no score named 'out;ent'"),
    case("score demo --limit -1", "invalid value for '--limit': ..."),
    case("score demo --limit 0", "invalid value for '--limit': ..."),
    case("score demo --limit many", "invalid value for '--limit': ..."),
    case("score demo --subset -4", "--subset -4: neither 'all' nor a number from 1"),
    case("score demo --subset some", "--subset some: neither 'all' nor a number from 1"),
    case("score demo --batch-size 0", "--batch-size 0: neither 'auto' nor a number from 1"),
    case("score demo --batch-size ²", "--batch-size ²: neither 'auto' nor a number from 1"),
    case("score demo --max-length 1", "invalid value for '--max-length': ..."),
    case("score demo-encoder --max-length 3", "--max-length 3 leaves no room beside the tokenizer's special tokens"),
    case("score demo --top-k 0", "invalid value for '--top-k': ..."),
    case("score demo --query middle", "invalid value for '--query': ..."),
    case("score demo --norm minmax", "invalid value for '--norm': ..."),
    case("score demo --dtype int8", "invalid value for '--dtype': ..."),
    case("score demo --threads -1", "invalid value for '--threads': ..."),
    case("score demo --seed -1", "invalid value for '--seed': ..."),
    case(f"score demo --seed {2**70}", "invalid value for '--seed': ..."),
    case("score demo --shard 3/2", "--shard 3/2: not of the form i/n with 1 <= i <= n"),
    case("score demo --shard 0/2", "--shard 0/2: not of the form i/n with 1 <= i <= n"),
    case("score demo --shard half", "--shard half: not of the form i/n with 1 <= i <= n"),
    case("score demo --force --shard 1/2 --out run", "--force with several processes: one would remove what another has begun"),
    case("score demo --lambda-ent nan", "--lambda-ent nan: not a finite number"),
    case("score demo --lambda-task inf", "--lambda-task inf: not a finite number"),
    case("score demo --memory much", "--memory much: neither 'auto' nor a size"),
    case("score demo --memory 0GB", "--memory 0GB: neither 'auto' nor a size"),
    case("score demo --ablate median", "invalid value for '--ablate': ..."),
    case("score demo --scores ablation --ablate-error 0", "--ablate-error 0.0: not a number above 0"),
    case("score demo --scores ablation --ablate-error nan", "--ablate-error nan: not a number above 0"),
    case("score demo --scores ablation --ablate-budget -3", "--ablate-budget -3.0: not a number above 0"),
    case("score demo --ablate-error 0.1", "--ablate-error and --ablate-budget are about ablation"),
    case("score demo --scores ablation --ablate-until top-k", "--ablate-until top-k needs --ablate-error or --ablate-budget"),
    case("score demo --scores ablation --ablate-error 0.1 --shard 1/2 --out run", "--ablate-error decides after each round, so all shares must run at the same time"),
    case("score demo --scores update", "update needs the checkpoint before fine-tuning"),
    case("score demo --scores ent_rel --query first --limit 4 --out run", "no score is defined for any example", code=1, keeps=True),
    case("score demo --scores ent --exclude-bos --query first --limit 4 --out run", "no score is defined for any example", code=1, keeps=True),
    case("score demo --out file", "file is a file", "`file` is a file", file("file", "x")),
    case("score demo --out file/below", "file/below cannot be made: not a directory: file/below", "`file` is a file", file("file", "x")),
    case("score demo --out mine", "mine is not empty and holds no run", "a folder with a file of its own", file("mine/letter.txt", "x")),
    case("score demo --out " + "x" * 300, "the name is too long: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx/manifest.json"),
    case("score demo --limit 4 --out run", "run holds another run (report, done)", "a run of another command in `run`", file("run/manifest.json", {"identity": "x", "command": "report", "status": "done"})),
)  # fmt: skip

CASES = (*MODELS, *DATA, *FLAGS)
