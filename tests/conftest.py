"""What all tests share: one thread a process, no hub, no GPU, a folder of their own."""

from __future__ import annotations

import os

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", NO_COLOR="1")
if os.environ.get("GPU") != "1":  # what a CPU finds is the same everywhere; tests/device asks for the GPU by name
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
for name in [name for name in os.environ if name.startswith("HEADTOOL_")]:
    del os.environ[name]

import pytest  # noqa: E402 - after the environment
import torch  # noqa: E402 - after the environment it reads

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def warm():
    """headtool in processes of its own that start in no time."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    from trouble.warm import Warm

    made = Warm()
    yield made
    made.close()
