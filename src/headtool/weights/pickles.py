"""PyTorch pickles, where --allow-pickle says that they may be read: the only place here that imports torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headtool.errors import HeadtoolError
from headtool.weights.source import Tensor

CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


class Pickled:
    """The tensors of pickles, read by torch.load with weights_only=True, which runs no code, and mapped, not copied."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder = folder
        self.tensors: list[Tensor] = []
        self._bytes: dict[str, np.ndarray] = {}
        for name in names:
            self._open(folder / name)

    def read(self, file: str, start: int, out: memoryview) -> None:
        np.frombuffer(out, np.uint8)[:] = self._bytes[file][start : start + len(out)]

    def companion(self, name: str) -> Path | None:
        return self.folder / name

    def _open(self, file: Path) -> None:
        import torch

        try:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # many classes, one meaning
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise HeadtoolError(f"{file}: torch.load refuses it under weights_only=True", hint=reason[:200]) from error
        content = content.get("state_dict", content) if isinstance(content, dict) else content
        if not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
            raise HeadtoolError(f"{file}: it holds no dictionary of tensors", hint="optimiser states are no weights")
        for name, tensor in content.items():
            code = CODES.get(str(tensor.dtype).removeprefix("torch."), str(tensor.dtype))
            key = f"{file.name}/{name}"
            flat = tensor.detach().contiguous().reshape(-1)
            self._bytes[key] = flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)
            self.tensors.append(Tensor(name, code, tuple(tensor.shape), key, 0, self._bytes[key].size))
