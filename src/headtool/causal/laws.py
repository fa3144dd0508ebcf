"""What --distribution may be, each a module of the same functions.

A law is closed under linear maps once its width is held in a number that adds up, its spread: the scale of a Cauchy,
the variance of a normal. For independent X_i with loc m_i and spread s_i,

    sum_i a_i X_i + b  has  loc  sum_i a_i m_i + b,  spread  sum_i weigh(a_i) s_i.
"""

from __future__ import annotations

from types import ModuleType

from headtool.causal import cauchy, normal
from headtool.errors import unknown

LAWS: dict[str, ModuleType] = {"cauchy": cauchy, "normal": normal}


def law(name: str) -> ModuleType:
    """The law of a name. Raises HeadtoolError for one that is not known."""
    if name not in LAWS:
        raise unknown("distribution", name, LAWS)
    return LAWS[name]
