"""What surrounds one branch of a block: where it is normalised, its dropout, and how it rejoins the stream."""

from __future__ import annotations

from torch import Tensor, nn

from policysmith.parts.transformer.slots import PartLike, Placement, build_part

__all__ = ["Branch"]


class Branch(nn.Module):
    """The norms, dropout and residual around a branch f of the stream x (B, T, D).

    `pre` (arXiv 2002.04745): x ⊕ f(norm(x)). `post` (arXiv 1706.03762): norm(x ⊕ f(x)). `sandwich` (arXiv 2105.13290):
    x ⊕ norm(f(norm(x))). ⊕ is the residual; dropout falls on what joins the stream. f lies between `enter` and `leave`.
    """

    def __init__(self, dim: int, norm: PartLike, residual: PartLike, placement: Placement, dropout: float) -> None:
        super().__init__()
        self.norm_in = build_part("norm", norm, dim) if placement != "post" else nn.Identity()
        self.norm_out = build_part("norm", norm, dim) if placement == "sandwich" else nn.Identity()
        self.norm_after = build_part("norm", norm, dim) if placement == "post" else nn.Identity()
        self.residual = build_part("residual", residual, dim)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def enter(self, x: Tensor) -> Tensor:
        """The stream → what the branch reads."""
        return self.norm_in(x)

    def leave(self, x: Tensor, y: Tensor) -> Tensor:
        """The stream and what the branch gave → the next stream."""
        return self.norm_after(self.residual(x, self.dropout(self.norm_out(y))))
