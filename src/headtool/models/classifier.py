"""Open a model as a classifier of sequences to be trained, and save it: what is kept of it, what is drawn anew."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from headtool.errors import HeadtoolError
from headtool.models import checkpoint, layout
from headtool.models.adapter import Adapter, adapt
from headtool.models.devices import pick_device, threads_for
from headtool.models.locate import Located
from headtool.models.open import explained, quiet_libraries, read
from headtool.ranks import free_cores


@dataclass(frozen=True)
class Classifier:
    """A classifier, its tokenizer as it was on disk, and the names of the parameters that were drawn at random."""

    adapter: Adapter
    tokenizer: Any
    fresh: tuple[str, ...]


def class_names(located: Located) -> tuple[str, ...] | None:
    """What a checkpoint's own classifier calls its classes, in the order of their numbers; None without one."""
    if not any("ForSequenceClassification" in name for name in located.config.get("architectures") or []):
        return None
    named = located.config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # what transformers takes without any
    return tuple(str(named[key]) for key in sorted(named, key=int))


def fits(own: Sequence[str] | None, names: Sequence[str]) -> bool:
    """Can a checkpoint's own classifier be trained on, with these classes?

    It must have as many, of the same names in the same order, in any case; names like LABEL_0 say nothing and fit any.
    """
    if own is None or len(own) != len(names):
        return False
    said = all(name != f"LABEL_{i}" for i, name in enumerate(own))
    return not said or [name.casefold() for name in own] == [name.casefold() for name in names]


def open_classifier(
    located: Located,
    names: Sequence[str],
    *,
    device: str = "auto",
    double: bool = False,
    family: str | None = None,
    threads: int = 0,
    seed: int = 0,
    weights: bool = True,
) -> Classifier:
    """Open a model as a classifier of the named classes, in float32 (or float64), on its device.

    What its checkpoint lacks (a classifier, for some families a pooler) is drawn with the seed; so is a classifier of
    other classes. weights=False builds it on the meta device: shapes for a plan.

    Raises HeadtoolError for a family without a classifier, for files that are missing, cut or pickles, and where
    weights of the model itself are missing or of another shape.
    """
    plan = layout.find(located.model_type, family)
    for file in checkpoint.weight_files(located.folder):
        checkpoint.header(file)
    torch.set_num_threads(threads or free_cores())
    where = pick_device(device)
    if located.model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        hint = "finetune takes models that transformers can classify sequences with"
        raise HeadtoolError(f"transformers has no classifier for models of type '{located.model_type}'", hint=hint)
    with quiet_libraries():
        config, tokenizer = read(located.folder)
        _settle_padding(located, config, tokenizer)
        config.id2label = dict(enumerate(names))
        config.label2id = {name: i for i, name in enumerate(names)}
        config.problem_type = "single_label_classification"
        dtype = torch.float64 if double else torch.float32
        if weights:
            model, fresh = _load(located, config, names, dtype, seed)
            model.to(where)
        else:
            with torch.device("meta"):
                model = transformers.AutoModelForSequenceClassification.from_config(config, dtype=dtype)
            fresh = ()
    model.eval()
    torch.set_num_threads(threads or threads_for(sum(p.numel() for p in model.parameters())))
    adapter = adapt(model, copy.deepcopy(tokenizer), located, plan, "classifier", where)  # reading rows changes it
    return Classifier(adapter, tokenizer, fresh)


def _load(
    located: Located, config: Any, names: Sequence[str], dtype: torch.dtype, seed: int
) -> tuple[Any, tuple[str, ...]]:
    auto = transformers.AutoModelForSequenceClassification
    torch.manual_seed(seed)
    with explained(f"{located.folder}: its weights do not fit its config.json"):
        model, report = auto.from_pretrained(
            located.folder, config=config, use_safetensors=True, trust_remote_code=False,
            output_loading_info=True, dtype=dtype,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    fresh = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    prefix = f"{model.base_model_prefix}."
    of_base = sorted(name for name in fresh if name.startswith(prefix) and "pooler" not in name)
    if of_base:
        raise HeadtoolError(
            f"{located.folder}: {len(of_base)} weights of the model are missing or of another shape, the first {of_base[0]}",
            hint="the checkpoint is of another model than its config.json, or not whole",
        )
    own = class_names(located)
    if own is not None and not fits(own, names) and not fresh:  # as many classes, but others
        final = head_modules(model)[-1]
        for name, parameter in model.get_submodule(final).named_parameters(prefix=final):
            if parameter.shape[0] == len(names):
                fresh.add(name)
                with torch.no_grad():
                    std = getattr(config, "initializer_range", 0.02)
                    parameter.normal_(0.0, std) if parameter.dim() > 1 else parameter.zero_()
    return model, tuple(sorted(fresh))


def _settle_padding(located: Located, config: Any, tokenizer: Any) -> None:
    """A decoder's classifier reads the last token that is no padding, so it must know which token is."""
    if tokenizer.pad_token_id is None:
        stand_in = tokenizer.eos_token or tokenizer.unk_token
        if stand_in is None:
            hint = "give its tokenizer a pad_token, and save it"
            raise HeadtoolError(f"{located.folder}: its tokenizer has no token to pad with", hint=hint)
        tokenizer.pad_token = stand_in
    config.pad_token_id = tokenizer.pad_token_id


def head_modules(model: Any) -> tuple[str, ...]:
    """The parts of a classifier that are not the base model and have weights, in the model's order."""
    base = model.base_model_prefix
    return tuple(name for name, part in model.named_children() if name != base and any(True for _ in part.parameters()))


def save(
    model: Any, tokenizer: Any, folder: Path, scratch: Path, beside: Callable[[Path], None] = lambda half: None
) -> None:
    """Save a checkpoint as safetensors with its tokenizer: the folder is there whole or not at all.

    scratch is a folder on the same disk, where it is written first; beside may write more files there.
    """
    half = scratch / f"{folder.name}.half"
    shutil.rmtree(half, ignore_errors=True)
    with quiet_libraries():
        model.save_pretrained(half)
        tokenizer.save_pretrained(half)
    beside(half)
    mode = (half / "config.json").stat().st_mode
    for file in half.iterdir():  # weights are written for their owner alone
        file.chmod(mode)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(half, folder)
