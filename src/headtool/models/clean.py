"""One clean pass of a model, recorded layer by layer, and the model resumed from any layer of it.

It is the whole model that is called, and no architecture is rebuilt: blocks before the layer pass the recorded hidden
state through, and the layer's attention gives the output it is told to give. docs/design/importance.md says why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from headtool.models import packed
from headtool.models.losses import instead

if TYPE_CHECKING:
    from headtool.models.adapter import Adapter

# Written out in Python by transformers; the fused kernel is the same function.
TANH_GELU = ("NewGELUActivation", "FastGELUActivation")


class Clean:
    """What a pass left at every layer: fill it by running the model inside recording()."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.entering: list[torch.Tensor] = []  # the hidden state entering each block
        self.left: list[torch.Tensor] = []  # the hidden state that each block returned
        self.leaving: list[Any] = []  # what else each block returned
        self.heads: list[torch.Tensor] = []  # the heads' outputs side by side, the input of W_O
        self.written: list[torch.Tensor] = []  # what W_O made of them
        self.attention: list[Any] = []  # what each attention module returned
        self.shortcut: list[str] = []  # how the attention module can be skipped: its output is "heads", "out", or ""

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record the one pass that is run inside."""
        with contextlib.ExitStack() as stack:
            for layer in range(self.adapter.geometry.layers):
                block, out = self.adapter.block(layer), self.adapter.out(layer)
                attention = self.adapter.attention(layer)
                for handle in (
                    block.register_forward_pre_hook(self._record_entering, with_kwargs=True),
                    block.register_forward_hook(self._record_leaving),
                    out.register_forward_pre_hook(lambda module, args: self.heads.append(args[0])),
                    attention.register_forward_hook(lambda module, args, output: self.attention.append(output)),
                    out.register_forward_hook(self._record_shortcut, prepend=True),  # before any that change it
                ):
                    stack.callback(handle.remove)
            yield
        for layer, shortcut in enumerate(self.shortcut):
            returned = first(self.attention[layer])
            if shortcut != "heads" and returned is not self.written[layer]:
                self.shortcut[layer] = ""  # more is done inside the module than its output projection

    @contextlib.contextmanager
    def resumed(self, layer: int, hidden: torch.Tensor) -> Iterator[None]:
        """Let the blocks before a layer do nothing, and a hidden state enter the layer."""

        def enter(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})

        with contextlib.ExitStack() as stack:
            for earlier in range(layer):
                stack.enter_context(instead(self.adapter.block(earlier), self._pass_through(earlier)))
            handle = self.adapter.block(layer).register_forward_pre_hook(enter, with_kwargs=True)
            stack.callback(handle.remove)
            yield

    @contextlib.contextmanager
    def writing(self, layer: int, y: torch.Tensor) -> Iterator[None]:
        """Let a layer's output projection give y (batch, position, width); its attention is skipped where it can be."""
        returned = self.attention[layer]
        others = () if isinstance(returned, torch.Tensor) else tuple(None for _ in returned[1:])
        whole = y if isinstance(returned, torch.Tensor) else (y, *others)
        with contextlib.ExitStack() as stack:
            stack.enter_context(instead(self.adapter.out(layer), lambda *args, **kwargs: y))
            if self.shortcut[layer]:
                stack.enter_context(instead(self.adapter.attention(layer), lambda *args, **kwargs: whole))
            yield

    def _pass_through(self, layer: int) -> Callable[..., Any]:
        others = self.leaving[layer]

        def forward(*args: Any, **kwargs: Any) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            return hidden if others is None else (hidden, *others)

        return forward

    def _record_entering(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.entering.append(args[0] if args else kwargs["hidden_states"])

    def _record_leaving(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        self.left.append(first(output))
        self.leaving.append(None if isinstance(output, torch.Tensor) else tuple(output[1:]))

    def _record_shortcut(self, module: Any, args: tuple[Any, ...], output: torch.Tensor) -> None:
        layer = len(self.shortcut)
        before = len(self.attention) == layer + 1  # the attention module is done: its output is what W_O takes
        same = before and first(self.attention[layer]) is args[0]
        self.shortcut.append("heads" if same else "out")
        self.written.append(output)


def first(output: Any) -> torch.Tensor:
    """The tensor that a module returns, alone or before others."""
    return output if isinstance(output, torch.Tensor) else output[0]


@contextlib.contextmanager
def fused(adapter: Adapter) -> Iterator[None]:
    """Let what is the same sooner stand in: torch's tanh GELU for the one that transformers writes out step by step, linear
    maps whose weights are packed.
    """
    with contextlib.ExitStack() as stack:
        for module in adapter.base.modules():
            if type(module).__name__ in TANH_GELU:
                stack.enter_context(instead(module, lambda x: functional.gelu(x, approximate="tanh")))
        for module, forward in packed.forwards(adapter.base):
            stack.enter_context(instead(module, forward))
        yield
