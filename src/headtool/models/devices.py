"""Where and in what numbers a model runs: device, dtype, threads; and what a GPU must be told to give what is asked."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import psutil
import torch

from headtool.errors import HeadtoolError
from headtool.ranks import free_cores

SMALL = 5_000_000  # parameters
T = TypeVar("T")
_as_it_comes: dict[
    torch.device, str
] = {}  # GPUs on which a command met work that is not done the same way twice, and what
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}


def pick_device(device: str) -> torch.device:
    """Auto is the GPU if there is one; of several, cuda is that of the process's rank on its node.

    Raises HeadtoolError for a device that is not there.
    """
    asked, local = device, os.environ.get("LOCAL_RANK", "0")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device == "cuda":
        device = f"cuda:{local}"
    try:
        wanted = torch.device(device)
        torch.empty(1, device=wanted)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        of = f" for LOCAL_RANK {local}" if asked != device and local != "0" else ""
        hint = f"there is {', '.join(there)}"
        raise HeadtoolError(f"--device {asked}: {device if of else 'it'} is not there{of}", hint=hint) from error
    if wanted.type == "meta":
        raise HeadtoolError("--device meta: nothing can be computed there", hint="cpu, cuda or mps")
    if wanted.type == "cuda":
        _settle(wanted)
    return wanted


def _settle(gpu: torch.device) -> None:
    """Have a CUDA GPU give what is asked, the same each time: fp32 that is fp32, sums in one order where there is a way.

    cuDNN's attention is left out: it plans anew for each shape, some 0.2 s on an H100, and here shapes are many.
    """
    _as_it_comes.pop(gpu, None)
    torch.cuda.set_device(gpu)
    torch.backends.cudnn.allow_tf32 = False  # of convolutions; products are not rounded unless asked
    torch.backends.cuda.enable_cudnn_sdp(False)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without, cuBLAS says that it may not repeat itself
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    warnings.filterwarnings("ignore", message=".*deterministic")


@contextlib.contextmanager
def coarsely(where: torch.device) -> Iterator[None]:
    """On a CUDA GPU products of float32 matrices inside are TF32's: factors of 11 bits, sums of 24, several times faster."""
    if where.type != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def repeatably(where: torch.device, work: Callable[[], T]) -> T:
    """What the work gives, the same each time on a GPU too, where all of it can be; else as it comes, of which `caveat` tells.
    Work that fails for that is done again.

    Attention's backward pass adds up in any order unless PyTorch is told to fail where it cannot do better.
    """
    if where.type != "cuda" or where in _as_it_comes:
        return work()
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        return work()
    except RuntimeError as error:
        reason = str(error)
        if "deterministic" not in reason.lower():
            raise
        cublas = "CUBLAS_WORKSPACE_CONFIG" in reason
        _as_it_comes[where] = (
            "CUBLAS_WORKSPACE_CONFIG=:4096:8 was not set before the first product in this process, so cuBLAS"
            if cublas
            else reason.partition(" does not have")[0]
        )
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    return work()


def caveat(where: torch.device) -> str:
    """What is to be said where something was not computed the same way each time; else nothing."""
    what = _as_it_comes.get(where)
    if what is None:
        return ""
    return f"{what} adds up in no fixed order on this GPU: the same call gives the same numbers up to rounding only"


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


def free_bytes(where: torch.device) -> int:
    """What a device has room for now; of one that shares the machine's memory, what that has."""
    if where.type == "cuda":
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(where)[0])
    return int(psutil.virtual_memory().available)
