"""Where and in what numbers a model runs: device, dtype, threads."""

from __future__ import annotations

import os

import torch

from headtool.errors import HeadtoolError
from headtool.ranks import free_cores

SMALL = 5_000_000  # parameters
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}


def pick_device(device: str) -> torch.device:
    """Auto is the GPU if there is one. Raises HeadtoolError for a device that is not there."""
    if device == "auto":
        local = os.environ.get("LOCAL_RANK", "0")
        return torch.device(
            f"cuda:{local}" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        wanted = torch.device(device)
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise HeadtoolError(f"--device {device}: it is not there", hint=f"there is {', '.join(there)}") from error
    if wanted.type == "meta":
        raise HeadtoolError("--device meta: nothing can be computed there", hint="cpu, cuda or mps")
    return wanted


def pick_double(device: str) -> torch.device:
    """A device that knows float64: auto is a CUDA GPU if there is one. Raises HeadtoolError for one that does not."""
    where = pick_device(device)
    if where.type != "mps":
        return where
    if device == "auto":
        return torch.device("cpu")
    raise HeadtoolError(f"--device {device}: it has no float64, in which numbers are kept", hint="--device cpu")


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Auto is fp32 on a CPU, and on a GPU bf16, else fp16."""
    if dtype != "auto":
        return DTYPES[dtype]
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float16


def threads_for(parameters: int) -> int:
    """How many threads a model is worth: a small one is done before they have met, and slower with several."""
    return 1 if parameters < SMALL else free_cores()
