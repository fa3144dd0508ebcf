"""Output norms: how large what a head says is."""

from __future__ import annotations

import torch

from headtool.scores.views import OutputView

NAMES = ("out", "resid")
NEEDS = "output"


def out(view: OutputView) -> torch.Tensor:
    """The L2 norm of each head's output at the query: (batch, head, query), float32.

    out = |z_h|, z_h the head's slice of the input of the output projection.

    Source: Kobayashi et al. 2020, "Attention is Not Only a Weight: Analyzing Transformers with Vector Norms".
    """
    return torch.linalg.vector_norm(view.z.float(), dim=-1).transpose(1, 2)


def resid(view: OutputView) -> torch.Tensor:
    """The L2 norm of what each head adds to the residual stream at the query: (batch, head, query), float32.

    resid = |W_O[:, h] z_h|. With W_O[:, h] = Q R (Q orthonormal) this is |R z_h|: head_dim numbers, not width.

    Source: Kobayashi et al. 2020, as for out, with the output projection applied.
    """
    assert view.factors is not None
    written = torch.einsum("bqhd,hed->bhqe", view.z.float(), view.factors)
    return torch.linalg.vector_norm(written, dim=-1)


def factors(out_weight: torch.Tensor) -> torch.Tensor:
    """R of the QR decomposition of each head's part of W_O, (head, head_dim, width) -> (head, head_dim, head_dim)."""
    return torch.linalg.qr(out_weight.float().transpose(1, 2), mode="r").R
