"""headtool causal-train: rows without numbers, models without a head, numbers that cannot be meant."""

from bad_input.case import case, config, file, model

OUT = "causal-train demo"
TWENTY = [{"text": "a", "price": 1}] * 20


def of(given: str, line: str, *rows: object, more: str = " --value-field price", **how):
    """Trained on these rows."""
    return case(f"causal-train demo --data a.jsonl{more}", line, given, file("a.jsonl", *rows), **how)


FLAGS = (
    case(f"{OUT} --epochs 0", "--epochs 0.0: not a number above 0, up to a million"),
    case(f"{OUT} --lr nan", "--lr nan: not a number above 0"),
    case(f"{OUT} --gamma0 0", "--gamma0 0.0: not a number above 0 and below 1e6"),
    case(f"{OUT} --gamma0 -1", "--gamma0 -1.0: not a number above 0 and below 1e6"),
    case(f"{OUT} --gate-alpha 1.5", "--gate-alpha 1.5: not a share from 0 to 1"),
    case(f"{OUT} --reg-weight -1", "--reg-weight -1.0: not a number from 0"),
    case(f"{OUT} --threshold inf", "--threshold inf: not a finite number"),
    case(f"{OUT} --b-noise -0.1", "--b-noise -0.1: not a number from 0 to below 1e6"),
    case(f"{OUT} --b-noise 1e308", "--b-noise 1e+308: not a number from 0 to below 1e6"),
    case(f"{OUT} --causal-dim 0", "invalid value for '--causal-dim': ..."),
    case(f"{OUT} --head both", "invalid value for '--head': ..."),
    case(f"{OUT} --distribution caucy", "invalid value for '--distribution': ..."),
    case(f"{OUT} --experiment all", "invalid value for '--experiment': ..."),
    case(f"{OUT} --number-pattern [0-9", "--number-pattern [0-9: no regular expression (...)"),
    case(f"{OUT} --task additon", "there is no made data set named 'additon'", hint="did you mean 'addition'?"),
    case(f"{OUT} --task ,", "--task is empty"),
    case(f"{OUT} --task ''", "--task is empty"),
    case(f"{OUT} --number-pattern ''", "--number-pattern is empty"),
    case(f"{OUT} --report-to ''", "--report-to is empty"),
    case(f"{OUT} --experiment comprehensive --task addition", "--task and --experiment comprehensive contradict each other: it is a list of made sets"),
    case(f"{OUT} --experiment ablation --distribution normal", "--distribution is what --experiment ablation varies"),
    case(f"{OUT} --head softmax --ovr-reduction mean", "--ovr-reduction is of the one-vs-rest loss"),
    case(f"{OUT} --data x.jsonl --eval ''", "--eval is empty"),
    case(f"{OUT} --negatives 5000", "--negatives 5000: the model knows 580 tokens"),
    case(f"{OUT} --value-field price", "--value-field without --data"),
    case(f"{OUT} --eval x.jsonl", "--eval without --data"),
    case(f"{OUT} --head softmax --negatives 4", "--negatives is of the one-vs-rest loss"),
    case(f"{OUT} --report-to mlflow", "--report-to mlflow: not one of none, tensorboard, wandb"),
    case(f"{OUT} --report-to tensorboard", "--report-to tensorboard: it is not installed", "tensorboard is not installed", absent="tensorboard", hint="pip install tensorboard"),
    case(f"{OUT} --report-to wandb", "--report-to wandb: it is not installed", "wandb is not installed", absent="wandb", hint="pip install wandb"),
    case(f"{OUT} --dtype fp16 --device cpu", "--dtype fp16: a CPU does not train in it"),
    case(f"{OUT} --data nothing.jsonl", "nothing.jsonl: there is no such file"),
)  # fmt: skip

ROWS = (
    of("texts without a number", "there is no number in the training rows", *[{"text": "no number"}] * 20, more=""),
    of("prices of null", "a.jsonl: 20 of 20 rows cannot be read; the first: a.jsonl:1: its value is missing", *[{"text": "a", "price": None}] * 20),
    of("rows without a price", "a.jsonl: 20 of 20 rows cannot be read; the first: a.jsonl:1: it has no field 'price'; it has text", *[{"text": "a"}] * 20),
    of("a price that is a word", "a.jsonl: 20 of 20 rows cannot be read; the first: a.jsonl:1: its value is no number: much", *[{"text": "a", "price": "much"}] * 20),
    of("a price of Infinity", "a.jsonl: 20 of 20 rows cannot be read; the first: a.jsonl:1: its value is not finite: ...", *[{"text": "a", "price": float("inf")}] * 20),
    of("a price of NaN", "a.jsonl: 20 of 20 rows cannot be read; the first: a.jsonl:1: its value is not finite: ...", *[{"text": "a", "price": float("nan")}] * 20),
    of("a price of 1,5", "a.jsonl: 20 of 20 rows cannot be read; the first: a.jsonl:1: its value is no number: 1,5", *[{"text": "a", "price": "1,5"}] * 20),
    of("a price of true", "a.jsonl: 20 of 20 rows cannot be read; the first: a.jsonl:1: its value is no number: True", *[{"text": "a", "price": True}] * 20),
    of("a text that is a number", "a.jsonl: 20 of 20 rows cannot be read; the first: a.jsonl:1: the field 'text' is no text", *[{"text": 3, "price": 1}] * 20),
    of("one row", "a.jsonl: one row cannot be trained on and held out", TWENTY[0]),
    of("texts that hold the token of numbers", "all rows hold the token <NUM>, which stands for a number", *[{"text": "say <NUM>", "price": 1}] * 20),
    of("an empty file", "a.jsonl: the file is empty", more=""),
    case(f"{OUT} --task addition --examples 8 --subset 2 --epochs 1 --no-baselines --warmup 0 --lr 1e30 --out run -q", "basic: the evaluation loss is nan on addition", code=1, keeps=True),
    of("a number of 1e300, as it is", "the loss is nan at step 1", *[{"text": "a 1e300", "price": 1.0}] * 20, more=" --value-field price --number-encoding linear --epochs 1 --no-baselines --out run -q", code=1, keeps=True),
)  # fmt: skip

MODELS = (
    case("causal-train demo-encoder", "demo-encoder is an encoder: it predicts no next token"),
    case("causal-train model", ".../model has no language model head", "a decoder without its head", model(config(architectures=["LlamaModel"]))),
    case("causal-train nowhere/at/all", "nowhere/at/all: there is no such model folder"),
)  # fmt: skip

CASES = (*FLAGS, *ROWS, *MODELS)
