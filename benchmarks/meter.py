"""What a benchmark spends, on a CPU or on a GPU."""

from __future__ import annotations

import time


def now(device: str) -> float:
    """CPU seconds, or of a GPU that has done all it was told, the wall's."""
    if device == "cpu":
        return time.process_time()
    import torch

    torch.accelerator.synchronize()
    return time.perf_counter()


def peak(device: str) -> int:
    """Bytes of this process, or of the tensors on its GPU."""
    from headtool.record import clock

    return clock.peak_memory() if device == "cpu" else clock.device_memory() or 0
