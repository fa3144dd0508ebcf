"""A tiny random model of every family, built from its config: 2 or 3 layers, widths of a few dozen."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import transformers
from transformers import AutoConfig

from headtool.models import attention, layout
from headtool.models.adapter import Adapter, adapt
from headtool.models.batches import Batch
from headtool.models.locate import Located
from headtool.models.open import CLASSES

VOCABULARY = 97
LLAMA = dict(
    vocab_size=VOCABULARY, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, head_dim=8,
    intermediate_size=40, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, decoder_sparse_step=1)
BERT = dict(
    vocab_size=VOCABULARY, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, intermediate_size=40,
    max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, num_labels=3,
)  # fmt: skip
CONFIGS: dict[str, dict] = {
    "llama": LLAMA | {"head_dim": 12},
    "granite": LLAMA | {"attention_multiplier": 0.2},
    "smollm3": LLAMA | {"num_hidden_layers": 4},
    "mistral": LLAMA | {"sliding_window": 5},
    "ministral": LLAMA | {"sliding_window": 5},
    "qwen2": LLAMA,
    "qwen2_moe": LLAMA | EXPERTS | {"shared_expert_intermediate_size": 24},
    "qwen3": LLAMA | {"head_dim": 12},
    "qwen3_moe": LLAMA | EXPERTS,
    "mixtral": LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma": LLAMA,
    "gemma2": LLAMA | {"sliding_window": 5, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 9},
    "gemma3_text": LLAMA | {"sliding_window": 5, "num_hidden_layers": 7, "query_pre_attn_scalar": 9},
    "olmo2": LLAMA | {"num_key_value_heads": 6},
    "olmo3": LLAMA | {"num_key_value_heads": 6, "sliding_window": 5, "num_hidden_layers": 4},
    "gpt_oss": LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 5},
    "phi3": LLAMA | {"sliding_window": 5},
    "gpt2": dict(vocab_size=VOCABULARY, n_embd=48, n_layer=3, n_head=6, n_positions=64, bos_token_id=1, eos_token_id=2, pad_token_id=0),
    "gpt_neox": {k: v for k, v in BERT.items() if k != "num_labels"},
    "opt": dict(
        vocab_size=VOCABULARY, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, ffn_dim=40, word_embed_proj_dim=48,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    ),
    "bloom": dict(vocab_size=VOCABULARY, hidden_size=48, n_layer=2, n_head=6, pad_token_id=0, bos_token_id=1, eos_token_id=2),
    "falcon": dict(
        vocab_size=VOCABULARY, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, num_kv_heads=2, new_decoder_architecture=True,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    ),
    "bert": BERT,
    "electra": BERT | {"embedding_size": 24},
    "roberta": BERT | {"pad_token_id": 1, "bos_token_id": 0},
    "xlm-roberta": BERT | {"pad_token_id": 1, "bos_token_id": 0},
    "camembert": BERT | {"pad_token_id": 1, "bos_token_id": 0},
    "distilbert": dict(vocab_size=VOCABULARY, dim=48, n_layers=2, n_heads=6, hidden_dim=40, max_position_embeddings=64, pad_token_id=0, num_labels=3),
    "modernbert": BERT | {"num_hidden_layers": 3, "local_attention": 8, "global_attn_every_n_layers": 3, "cls_token_id": 1, "sep_token_id": 2},
    "deberta-v2": BERT | {
        "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"], "share_att_key": True,
        "norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0,
    },
}  # fmt: skip
# The same family in another shape.
VARIANTS: dict[str, tuple[str, dict]] = {
    "falcon, multi-query": (
        "falcon",
        CONFIGS["falcon"] | {"new_decoder_architecture": False, "multi_query": True, "parallel_attn": True},
    ),
    "falcon, alibi": (
        "falcon",
        CONFIGS["falcon"] | {"new_decoder_architecture": False, "multi_query": False, "alibi": True, "num_kv_heads": 6},
    ),
    "gpt2, scaled by layer": ("gpt2", CONFIGS["gpt2"] | {"scale_attn_by_inverse_layer_idx": True}),
    "deberta-v2, own position keys": (
        "deberta-v2",
        CONFIGS["deberta-v2"] | {"share_att_key": False, "conv_kernel_size": 3, "conv_act": "gelu"},
    ),
}
ALL = (*CONFIGS, *VARIANTS)


@cache
def tiny(name: str, kind: str = "", dtype: torch.dtype = torch.float32) -> Adapter:
    """An adapter over a tiny random model; its weights are drawn large enough that heads differ."""
    family, settings = VARIANTS.get(name) or (name, CONFIGS[name])
    torch.manual_seed(len(name))
    config = AutoConfig.for_model(family, **settings)
    plan = layout.find(family)
    kind = kind or ("causal" if plan.causal else "classifier")
    model = CLASSES[kind].from_config(config, attn_implementation=attention.NAME if plan.interface else "eager")
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 1.5 / parameter.shape[-1] ** 0.5
    model.to(dtype).eval().requires_grad_(False)
    located = Located(folder=None, label=name, model_id=name, revision=None, config=config.to_dict())  # type: ignore[arg-type]
    tokenizer = type("NoTokenizer", (), {"pad_token_id": config.pad_token_id, "model_max_length": 10**9})()
    return adapt(model, tokenizer, located, plan, kind, torch.device("cpu"))  # type: ignore[arg-type]


def random_batch(adapter: Adapter, lengths=(11, 7, 9), *, left: bool = False, seed: int = 0) -> Batch:
    """Random tokens padded on the right or, the same tokens, on the left."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.full((len(lengths), width), adapter.pad)
    mask = torch.zeros(len(lengths), width, dtype=torch.int64)
    span = torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, length in enumerate(lengths):
        tokens = torch.randint(3, VOCABULARY, (length,), generator=generator)
        start = width - length if left else 0
        ids[row, start : start + length] = tokens
        mask[row, start : start + length] = 1
        span[row, start + 2 : start + 5] = True
    return Batch(ids, mask, np.arange(len(lengths)), None, span)


transformers.utils.logging.set_verbosity_error()
