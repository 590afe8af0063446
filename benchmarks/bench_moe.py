"""Mixtures of experts: training beside every expert on every token and beside a loop by hand; acting; grouped products.

In: nothing. Out: rows of the result table. Both sides of a row share one set of weights.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.harness import Comparison, Row, compare, latency

DIM, EXPERTS, TOP_K, TOKENS = 256, 8, 2, 4096
ACTING = (1, 16)  # rows of the acting benchmark
GROUPED = ((32, 16), (32, 128), (64, 16), (64, 128))  # (dim, rows) within the limits of `ops.grouped`


def _mixture(dim: int) -> nn.Module:
    from policysmith.parts.feedforward import MixtureOfExperts

    return MixtureOfExperts(dim, EXPERTS, TOP_K)


# the peers' side


def _route(moe: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    values, chosen = moe.router.gate(x).topk(TOP_K)
    return values.softmax(-1), chosen


def _dense(moe: nn.Module, x: Tensor) -> Tensor:
    """Every expert on every token, mixed by a matrix of gates."""
    gates, chosen = _route(moe, x)
    weights = torch.zeros(len(x), EXPERTS).scatter(1, chosen, gates)
    outputs = torch.stack([expert(x) for expert in moe.experts], 1)
    return torch.einsum("ne,ned->nd", weights, outputs)


def _loop(moe: nn.Module, x: Tensor) -> Tensor:
    """Tokens sorted by expert, and a loop over the experts."""
    gates, chosen = _route(moe, x)
    flat = chosen.flatten()
    order = flat.argsort()
    rows = order // TOP_K
    pieces = x.index_select(0, rows).split(torch.bincount(flat, minlength=EXPERTS).tolist())
    outputs = torch.cat([expert(piece) for expert, piece in zip(moe.experts, pieces, strict=True) if len(piece)])
    return torch.zeros_like(x).index_add(0, rows, outputs * gates.flatten()[order].unsqueeze(1))


# the benchmarks


def moe_training() -> list[Row]:
    """Forward and backward of 4,096 tokens."""
    moe, x = _mixture(DIM), torch.randn(TOKENS, DIM, requires_grad=True)
    dense = _compare_training(moe, x, moe, lambda x: _dense(moe, x), rounds=15)
    loop = _compare_training(moe, x, moe, lambda x: _loop(moe, x), rounds=15)
    name = f"forward + backward, {EXPERTS} experts top-{TOP_K}, {TOKENS:,} × {DIM}"
    return [latency(f"{name}, peer: all experts", dense, 0.25), latency(f"{name}, peer: loop by hand", loop, 1.05)]


def moe_acting() -> list[Row]:
    """Forward without gradients: the module and its frozen copy, beside the loop by hand."""
    rows = []
    moe = _mixture(DIM).eval()
    frozen = moe.frozen()
    for batch in ACTING:
        x = torch.randn(batch, DIM)
        for name, ours in (("mixture", moe), ("frozen mixture", frozen)):
            with torch.no_grad():
                comparison = compare(lambda ours=ours, x=x: ours(x), lambda x=x: _loop(moe, x), rounds=31)
            rows.append(latency(f"forward, {name}, batch {batch}, peer: loop by hand", comparison, None))
    return rows


def moe_grouped() -> list[Row]:
    """`F.grouped_mm` beside the loop over experts, forward and backward, where `ops.grouped` takes it."""
    from policysmith.ops import grouped_linear

    rows, limits = [], grouped_linear.MEASURED_FASTER
    for dim, batch in GROUPED:
        moe, x = _mixture(dim), torch.randn(batch, dim, requires_grad=True)

        def looped(x: Tensor, moe: nn.Module = moe) -> Tensor:
            grouped_linear.MEASURED_FASTER = {}
            try:
                return moe(x)
            finally:
                grouped_linear.MEASURED_FASTER = limits

        comparison = _compare_training(moe, x, moe, looped, rounds=31)
        rows.append(latency(f"forward + backward, grouped product, {batch} × {dim}, peer: loop", comparison, None))
    return rows


def _compare_training(
    moe: nn.Module, x: Tensor, ours: Callable[[Tensor], Tensor], peer: Callable[[Tensor], Tensor], rounds: int
) -> Comparison:
    def step(function: Callable[[Tensor], Tensor]) -> None:
        moe.zero_grad()
        x.grad = None
        function(x).square().mean().backward()

    return compare(lambda: step(ours), lambda: step(peer), rounds=rounds, inner=1)
