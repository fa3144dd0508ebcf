"""Time and memory of a run, by phase: for the manifest and for the closing summary."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Clock:
    """Wall and CPU seconds by phase, and the counters that rates are made of."""

    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside; a phase entered again goes on counting."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall
            self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - cpu

    def count(self, **more: float) -> None:
        """Add to the counters: examples, tokens, attention_flops ..."""
        for name, value in more.items():
            self.counts[name] = self.counts.get(name, 0) + value

    def rate(self, name: str, phase: str) -> float | None:
        """A counter by the wall time of a phase, per second; None where either is missing."""
        seconds = self.wall.get(phase, 0.0)
        return self.counts[name] / seconds if seconds > 0 and name in self.counts else None

    def as_dict(self) -> dict[str, Any]:
        rounded = {name: {"wall_s": round(self.wall[name], 4), "cpu_s": round(self.cpu[name], 4)} for name in self.wall}
        return {"phases": rounded, "counts": self.counts}


def peak_memory() -> int:
    """The largest resident set of this process so far, in bytes."""
    try:  # Linux: getrusage would count what the parent held when it started us
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_memory() -> int | None:
    """The most memory that tensors took on the CUDA device, in bytes; None without one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return int(torch.cuda.max_memory_allocated())


def human_bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n < 1000 or unit == "TB":
            return f"{n:.0f} {unit}" if unit in ("B", "kB", "MB") else f"{n:.2f} {unit}"
        n /= 1000
    raise AssertionError
