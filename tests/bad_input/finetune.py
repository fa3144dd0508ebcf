"""headtool finetune: rows, labels and numbers that cannot be trained on."""

from bad_input.case import case, config, content, file, folder, model, without

GOOD = {"text": "the cold lion is red.", "label": "bad"}, {"text": "the warm lion is blue.", "label": "good"}
CHOICE = {"question": "a", "choices": {"text": ["b"], "label": ["A"]}, "answerKey": "A"}


def trained(*rows: object, more: str = ""):
    """Trained and evaluated on these rows."""
    return "finetune demo-encoder --train a.jsonl --eval a.jsonl" + more, file("a.jsonl", *rows)


def of(given: str, line: str, *rows: object, more: str = ""):
    command, scene = trained(*rows, more=more)
    return case(command, line, given, scene)


DEMO = "finetune demo-encoder --task demo"
FLAGS = (
    case(f"{DEMO} --epochs 0", "--epochs 0.0: not a number above 0, up to a million"),
    case(f"{DEMO} --epochs nan", "--epochs nan: not a number above 0, up to a million"),
    case(f"{DEMO} --epochs 1e300", "--epochs 1e+300: not a number above 0, up to a million"),
    case(f"{DEMO} --lr 0", "--lr 0.0: not a number above 0", hint="for example --lr 2e-05"),
    case(f"{DEMO} --lr -1e-5", "--lr -1e-05: not a number above 0"),
    case(f"{DEMO} --lr inf", "--lr inf: not a number above 0"),
    case(f"{DEMO} --lr fast", "invalid value for '--lr': no number"),
    case(f"{DEMO} --weight-decay -1", "--weight-decay -1.0: not a number from 0"),
    case(f"{DEMO} --warmup 1", "--warmup 1.0: not a share from 0 to below 1"),
    case(f"{DEMO} --batch-size 0", "invalid value for '--batch-size': ..."),
    case(f"{DEMO} --batch-size 7", "--batch-size 7 cannot be shared by 2 processes", "started by torchrun, as one of two", env={"WORLD_SIZE": "2", "RANK": "0"}),
    case(f"{DEMO} --max-length 1", "invalid value for '--max-length': ..."),
    case(f"{DEMO} --subset some", "--subset some: neither 'all' nor a number from 1"),
    case(f"{DEMO} --save-steps -1", "invalid value for '--save-steps': ..."),
    case(f"{DEMO} --lora-rank 0", "invalid value for '--lora-rank': ..."),
    case(f"{DEMO} --lora-rank 4", "--lora-rank without --lora"),
    case(f"{DEMO} --lora --lora-dropout 1", "--lora-dropout 1.0: not a share from 0 to below 1"),
    case(f"{DEMO} --lora --lora-targets q,dense", "there is no LoRA target named 'dense'"),
    case(f"{DEMO} --lora --lora-targets ,", "--lora-targets is empty"),
    case(f"{DEMO} --dtype fp16 --device cpu", "--dtype fp16: a CPU does not train in it"),
    case(f"{DEMO} --device cuda:99", "--device cuda:99: it is not there"),
    case(f"{DEMO} --text-field a", "the fields of the task 'demo' are known"),
    case(f"{DEMO} --lora", "--lora needs the package peft", "peft is not installed", absent="peft", hint="pip install 'headtool[lora]'"),
    case(f"{DEMO} --out run", "run holds another run (finetune, done)", "a run of other arguments in `run`", file("run/manifest.json", {"identity": "x", "command": "finetune", "status": "done"})),
    case(f"{DEMO} --limit 16 --epochs 1 --lr 1e38 --warmup 0 --threads 1 --out run", "the evaluation loss is nan at step 1", code=1, keeps=True),
    case(f"{DEMO} --text-field ''", "--text-field is empty"),
    case("finetune demo-encoder --task '' --train a.jsonl", "--task is empty"),
    case(f"{DEMO} --out mine", "mine is not empty and holds no run", "a folder with somebody's own checkpoint", file("mine/ckpt_final/weights", "x")),
    case(f"{DEMO} --limit 64 --lr 1e30 --warmup 0 --threads 1 --out run", "the loss is nan at step 2", code=1, keeps=True),
)  # fmt: skip

ROWS = (
    case("finetune demo-encoder", "there is nothing to train on"),
    case("finetune demo-encoder --eval x.jsonl", "--eval without --train"),
    case("finetune demo-encoder --task pairs", "there is nothing to train on"),
    case("finetune demo-encoder --task multiple_choice", "the rows of the task 'multiple_choice' have no class"),
    case("finetune demo-encoder --task stsb", "stsb is a regression: its labels are no classes"),
    case("finetune demo-encoder --task mnly", "there is no task named 'mnly'"),
    case("finetune demo-encoder --train nothing.jsonl", "nothing.jsonl: there is no such file"),
    case("finetune demo-encoder --train ''", "--train is empty"),
    case("finetune demo-encoder --train x.jsonl --text-field2 b", "--text-field2 without --text-field"),
    case("finetune demo-encoder --train x.jsonl --task pairs --text-field b", "--task pairs is not what the named fields make"),
    case("finetune demo-encoder --train x.jsonl --field label", "--field label: not of the form NAME=PATH"),
    case("finetune demo-encoder --train a.jsonl --label-field stars", "a.jsonl: 8 of 8 rows cannot be read; the first: a.jsonl:1: it has no field 'stars'; it has text, label", "rows of `text` and `label`", file("a.jsonl", *GOOD * 4)),
    case("finetune demo-encoder --train a.jsonl", "a.jsonl: one row cannot be trained on and held out", "two rows, of which a tenth is held out", file("a.jsonl", GOOD[0])),
    of("an empty file", "a.jsonl: the file is empty"),
    of("rows without fields", "a.jsonl:1: its fields are of no known shape:", "{}", "{}"),
    of("a line that is not JSON", "a.jsonl: 1 of 1 rows cannot be read; the first: a.jsonl:1: not JSON (...)", "not json"),
    of("rows without a label", "a.jsonl:1: it has no label", {"text": "a"}, {"text": "b"}),
    of("labels 0 and 0.5", "a.jsonl:2: the label 0.5 is no class", {"text": "a", "label": 0}, {"text": "b", "label": 0.5}),
    of("labels 0 and -1", "a.jsonl:2: the label -1 is below 0", {"text": "a", "label": 0}, {"text": "b", "label": -1}),
    of("labels 0 and 7", "a.jsonl: no row has the label 1 of 0 to 7", {"text": "a", "label": 0}, {"text": "b", "label": 7}),
    of("one label alone", "a.jsonl: all rows have the label 0", {"text": "a", "label": 0}, {"text": "b", "label": 0}),
    of("a label that is a list", "a.jsonl:1: the label [] is no class", {"text": "a", "label": []}, {"text": "b", "label": [1]}),
    of("a label that is huge", "a.jsonl: no row has the label 1 of 0 to 1000000000000000000000000000000", {"text": "a", "label": 0}, {"text": "b", "label": 10**30}),
    of("rows of multiple choice", "a.jsonl: rows of the shape multiple_choice have no class", CHOICE),
    of("texts and labels 0 and 3", "a.jsonl:2: the label 3 is none of the 3 classes", {"premise": "a", "hypothesis": "b", "label": 0}, {"premise": "a", "hypothesis": "b", "label": 3}, more=" --task mnli"),
    case("finetune demo-encoder --train a.jsonl --eval b.jsonl", "b.jsonl:1: the label 'fair' is none of the 2 classes", "a label that was not trained on", file("a.jsonl", *GOOD * 4), file("b.jsonl", {"text": "c", "label": "fair"})),
)  # fmt: skip

MODELS = (
    case("finetune ./nothing --task demo", "./nothing: there is no such model folder"),
    case("finetune demo --task demo --family lama", "there is no family named 'lama'"),
    case("finetune model --task demo", "model: there is no config.json", "an empty folder", folder("model")),
    case("finetune model --task demo", "model: there are no weights", "no weights", model(without("model.safetensors"), of="demo-encoder")),
    case("finetune model --task demo", "model: there is no tokenizer that can be read", "no tokenizer", model(without("tokenizer*"), of="demo-encoder")),
    case("finetune model --task demo", "model/model.safetensors: truncated: ... bytes where its header promises ...", "the last byte of the weights is missing", model(content("model.safetensors", lambda old: old[:-1]), of="demo-encoder")),
    case("finetune model --task demo", "model: 16 weights of the model are missing or of another shape, the first deberta.encoder.layer.4.attention.output.LayerNorm.bias", "one layer more than there are weights", model(config(num_hidden_layers=5), of="demo-encoder")),
)  # fmt: skip

CASES = (*FLAGS, *ROWS, *MODELS)
