"""A function whose derivatives are computed along with it, so that no graph is kept."""

from __future__ import annotations

import torch


class Known(torch.autograd.Function):
    """formula(x, spread) -> its value, its derivative by x, its derivative by spread; element by element."""

    @staticmethod
    def forward(ctx, formula, x, spread):
        value, by_x, by_spread = formula(x, spread)
        ctx.save_for_backward(by_x, by_spread)
        return value

    @staticmethod
    def backward(ctx, grad):
        by_x, by_spread = ctx.saved_tensors
        return None, grad * by_x, grad * by_spread
