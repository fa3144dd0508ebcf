"""Tiny random models in folders, with the demo tokenizer, to be fine-tuned."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer

from families import CONFIGS
from headtool.models.locate import locate
from headtool.models.open import quiet_libraries

# transformers has no classifier for these
WITHOUT = ("granite",)


def tiny_folder(folder: Path, family: str = "bert", auto=transformers.AutoModel, **more) -> Path:
    """A folder with a model of a family, of random weights large enough to matter, and a tokenizer."""
    with quiet_libraries():
        tokenizer = AutoTokenizer.from_pretrained(locate("demo-encoder").folder)
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
        size = {"vocab_size": len(tokenizer), "max_position_embeddings": 128, "n_positions": 128}
        torch.manual_seed(0)
        model = auto.from_config(AutoConfig.for_model(family, **CONFIGS[family] | size | ids | more))
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=1.0 / parameter.shape[-1] ** 0.5)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def rows_of(file: Path, *rows: object) -> Path:
    """A file of JSON lines."""
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def easy_rows(n: int, labels=("bad", "good")) -> list[dict]:
    """Rows whose class is written in them."""
    words = ("cold", "warm", "dirty", "clean")
    return [
        {"text": f"the {words[i % 3]} lion is {'red' if i % 2 else 'blue'}.", "label": labels[i % 2]} for i in range(n)
    ]
