"""Who am I among the processes of a run: rank and world size from torchrun's environment, or --shard i/n."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass

from headtool.errors import HeadtoolError


@dataclass(frozen=True)
class Share:
    """One process's share of the work: unit u is its own when u % count == index."""

    index: int = 0
    count: int = 1
    launched: bool = False  # by torchrun: all processes of the run live at the same time, and index 0 merges

    def owns(self, unit: int) -> bool:
        return unit % self.count == self.index


def share(shard: str | None) -> Share:
    """The share given by --shard i/n (i from 1) or by RANK and WORLD_SIZE; the whole when there is neither."""
    try:
        world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    except ValueError as error:
        raise HeadtoolError(
            "RANK or WORLD_SIZE is no number", hint="torchrun sets them; unset them otherwise"
        ) from error
    if not 0 <= rank < world:
        hint = "torchrun sets them; unset them otherwise"
        raise HeadtoolError(f"RANK {rank} is none of WORLD_SIZE {world}", hint=hint)
    if shard is None:
        return Share(rank, world, launched=world > 1)
    if world > 1:
        raise HeadtoolError("--shard and torchrun are two ways of sharing one run", hint="use one of them")
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", shard)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise HeadtoolError(f"--shard {shard}: not of the form i/n with 1 <= i <= n", hint="for example --shard 1/4")
    return Share(int(match[1]) - 1, int(match[2]))


def free_cores() -> int:
    """The cores that this process may use: its affinity, and the quota of its control group."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        cores = min(cores, max(1, int(quota) // int(period)))  # "max" is no number: no quota
    return cores
