"""What a GPU is told, as far as it shows without one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from headtool.errors import HeadtoolError
from headtool.models import devices
from headtool.scores.ablation import enough_of

GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def as_it_was():
    yield
    devices._as_it_comes.clear()
    torch.use_deterministic_algorithms(False)


def strict() -> bool:
    return torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("put_ does not have a deterministic implementation, but you set", "put_ adds up in no fixed order"),
        ("Deterministic behavior was enabled with ..., but CUBLAS_WORKSPACE_CONFIG ...", "so cuBLAS adds up in no"),
    ],
)
def test_work_that_has_no_one_order_is_done_again(says, told):
    modes = []

    def work():
        modes.append(strict())
        if modes[-1]:
            raise RuntimeError(says)
        return 7

    assert devices.caveat(GPU) == ""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert devices.repeatably(GPU, work) == 7
    assert modes == [True, False]
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert told in devices.caveat(GPU)
    assert devices.repeatably(GPU, work) == 7  # at once
    assert modes == [True, False, False]
    assert told in devices.caveat(GPU)


def test_work_that_has_one_is_done_strictly_and_once():
    modes = []
    devices.repeatably(GPU, lambda: modes.append(strict()))
    devices.repeatably(torch.device("cpu"), lambda: modes.append(strict()))
    assert modes == [True, False]
    assert devices.caveat(GPU) == ""


def test_another_error_is_another_error():
    def work():
        raise RuntimeError("CUDA error: an illegal memory access")

    with pytest.raises(RuntimeError, match="illegal"):
        devices.repeatably(GPU, work)
    assert not strict()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_process_is_told_which_gpu_is_lacking(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(HeadtoolError, match="--device cuda: cuda:1 is not there for LOCAL_RANK 1"):
        devices.pick_device("cuda")


def test_batches_are_filled_up_where_it_pays():
    def model(device, causal):
        return SimpleNamespace(
            runs_on=torch.device(device), layout=SimpleNamespace(causal=causal), geometry=SimpleNamespace(heads=8)
        )

    assert enough_of(model("cuda", True), 4096) == 512
    assert enough_of(model("cpu", True), 4096) == 0
    assert enough_of(model("cuda", False), 4096) == 0
