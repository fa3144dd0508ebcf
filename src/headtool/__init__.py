"""headtool: study the attention heads of transformer models.

Every command is a function here too: headtool.score("demo") returns the path of its run directory. What is refused or fails
raises headtool.HeadtoolError, whose hint says what to do.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "__version__", "causal_predict", "causal_train", "doctor", "download", "finetune", "inject", "inspect_weights",
    "report", "score",
]  # fmt: skip

if TYPE_CHECKING:
    from headtool.commands.causal_predict import command as causal_predict
    from headtool.commands.causal_train import command as causal_train
    from headtool.commands.doctor import command as doctor
    from headtool.commands.download import command as download
    from headtool.commands.finetune import command as finetune
    from headtool.commands.inject import command as inject
    from headtool.commands.inspect_weights import command as inspect_weights
    from headtool.commands.report import command as report
    from headtool.commands.score import command as score
    from headtool.errors import HeadtoolError as HeadtoolError


def __dir__() -> list[str]:
    return [*__all__, "HeadtoolError"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from headtool.functions import function

        made = function(importlib.import_module(f"headtool.commands.{name}").command, name)
        globals()[name] = made
        return made
    if name == "HeadtoolError":
        from headtool.errors import HeadtoolError

        return HeadtoolError
    raise AttributeError(f"module 'headtool' has no attribute {name!r}")
