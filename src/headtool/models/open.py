"""Open a model for reading its heads: load it, verify its layout, refuse what cannot be seen faithfully."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
import transformers

from headtool.errors import HeadtoolError, translate
from headtool.models import attention, checkpoint, layout
from headtool.models.adapter import Adapter, Kind, adapt
from headtool.models.devices import pick_device, pick_dtype, threads_for
from headtool.models.locate import Located
from headtool.models.verify import verify
from headtool.ranks import free_cores

CLASSES = {
    "causal": transformers.AutoModelForCausalLM,
    "masked": transformers.AutoModelForMaskedLM,
    "classifier": transformers.AutoModelForSequenceClassification,
    "headless": transformers.AutoModel,
}


def open_model(
    located: Located,
    *,
    device: str = "auto",
    dtype: str = "auto",
    family: str | None = None,
    threads: int = 0,
    weights: bool = True,
    classes: int | None = None,
    seed: int = 0,
    spread: dict[int | str, int] | None = None,
) -> Adapter:
    """Open a located model in eval mode, and verify that its heads are where its layout says.

    weights=False builds the model without its weights, on the meta device: shapes for a plan, nothing to run.
    classes: a model without any head gets a classifier of so many, drawn with the seed.
    spread: put the layers on GPUs, in memory and on disk, in that order, each holding so many bytes at most (accelerate).

    Raises HeadtoolError for a family that is not known or refused, files that are missing, cut or pickles, a device
    that is not there, and a model that fails the check.
    """
    plan = layout.find(located.model_type, family)
    for file in checkpoint.weight_files(located.folder):
        checkpoint.header(file)
    torch.set_num_threads(threads or free_cores())
    where = pick_device(device)
    kind = kind_of(located)
    drawn = kind == "headless" and classes is not None
    if drawn:
        kind = "classifier"
    how = {"dtype": pick_dtype(dtype, where), "attn_implementation": attention.NAME if plan.interface else "eager"}
    with quiet_libraries():
        config, tokenizer = read(located.folder)
        if drawn:
            config.num_labels = classes
        if not weights:
            with torch.device("meta"):
                model = CLASSES[kind].from_config(config, **how)
            return adapt(model, tokenizer, located, plan, kind, where, drawn)
        torch.manual_seed(seed)  # of what the checkpoint lacks
        if spread is not None:
            how |= _spread(spread)
        model = load(located, config, kind, how)
    torch.set_num_threads(threads or threads_for(sum(p.numel() for p in model.parameters())))
    if spread is None:
        model.to(where)
    model.eval().requires_grad_(False)
    adapter = adapt(model, tokenizer, located, plan, kind, where, drawn)
    with quiet_libraries():
        verify(adapter)
    return adapter


def _spread(most: dict[int | str, int]) -> dict[str, Any]:
    """What from_pretrained must be told to spread a model; what goes to disk lies in a folder that goes with the process."""
    gpus = torch.accelerator.device_count()
    if absent := [device for device in most if device != "cpu" and int(device) >= gpus]:
        hint = f"GPUs count from 0, and there are {gpus}" if gpus else "there is none here: cpu=SIZE alone"
        raise HeadtoolError(f"--max-memory {absent[0]}=...: there is no GPU {absent[0]}", hint=hint)
    folder = tempfile.mkdtemp(prefix="headtool-weights-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {"device_map": "auto", "offload_folder": folder} | ({"max_memory": most} if most else {})


def load(located: Located, config: Any, kind: Kind, how: dict[str, Any]) -> Any:
    """The model with its weights. Raises HeadtoolError where some are missing: transformers would draw them at random."""
    with explained(f"{located.folder}: its weights do not fit its config.json"):
        model, report = CLASSES[kind].from_pretrained(
            located.folder,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **how,
        )
    prefix = f"{model.base_model_prefix}."
    missing = sorted(report["missing_keys"])
    of_base = [n for n in missing if (n.startswith(prefix) or kind == "headless") and "pooler" not in n]
    if of_base:
        raise HeadtoolError(
            f"{located.folder}: {len(of_base)} weights of the model are missing, the first {of_base[0]}",
            hint="the checkpoint is of another model than its config.json, or not whole",
        )
    return model


def read(folder: Path) -> tuple[Any, Any]:
    """The configuration and the tokenizer of a model folder, neither of which may bring code of its own.

    Raises HeadtoolError where one of them cannot be read, and for a tokenizer without tokens or character offsets.
    """
    with explained(f"{folder}: its config.json is not one that transformers can use"):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with explained(f"{folder}: there is no tokenizer that can be read"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False)
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):  # without its files, some classes are empty
        hint = "a model folder holds a tokenizer.json"
        raise HeadtoolError(f"{folder}: there is no tokenizer that can be read", hint=hint)
    if not tokenizer.is_fast:
        hint = "save it with a tokenizer.json"
        raise HeadtoolError(f"{folder}: its tokenizer gives no character offsets", hint=hint)
    return config, tokenizer


def same_tokens(adapter: Adapter, before: Located) -> None:
    """Raise HeadtoolError where the checkpoint that a model was made from has other tokens than the model."""
    with quiet_libraries():
        _, theirs = read(before.folder)
    if theirs.get_vocab() != adapter.tokenizer.get_vocab():
        raise HeadtoolError(
            f"{before.named} has another tokenizer than {adapter.located.named}",
            hint="--init takes the checkpoint that the model was fine-tuned from",
        )


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Whatever transformers raises inside is the file's fault, unless the table of errors knows better."""
    try:
        yield
    except Exception as error:
        known = translate(error)
        if known is not None:
            raise known from error
        reason = next((line for line in reversed(str(error).strip().splitlines()) if line.strip()), "")
        if "ignore_mismatched_sizes" in reason:
            reason = "weights have other shapes than it says"
        elif isinstance(error, LookupError) or not reason:
            reason = f"{type(error).__name__}: {reason}"
        raise HeadtoolError(what, hint=reason.strip()[:300]) from error


def kind_of(located: Located) -> Kind:
    """What task head the checkpoint was saved with."""
    names = " ".join(located.config.get("architectures") or [])
    if "ForSequenceClassification" in names:
        return "classifier"
    if "MaskedLM" in names or "ForPreTraining" in names:
        return "masked"
    if "ForCausalLM" in names or "LMHeadModel" in names:
        return "causal"
    return "headless"


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the bars and advice of the libraries beneath: what matters of it is checked here and said in our words."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    getLogger("accelerate.big_modeling").setLevel("ERROR")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
