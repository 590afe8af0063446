"""The self-attention types at sizes that tell heads, levels and windows apart, each with its slow twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from policysmith.ops.reset_state import reset_state
from policysmith.ops.timeline import over_memory
from policysmith.parts.position.alibi import alibi_slopes
from policysmith.registry import part
from tests.reference.attention import slow_heads, turned
from tests.reference.latent_attention import slow_latent_attention

DIM, HEADS = 24, 6  # six heads: one more than a pyramid has levels
TIGHT = {"rtol": 1e-10, "atol": 1e-10}

Near = Callable[[int, int], bool]  # index of the query, index of the key


@dataclass(frozen=True)
class Case:
    """A type, its options, and which keys its heads see of those that the timeline shows."""

    type: str
    options: dict[str, Any] = field(default_factory=dict)
    sees: Callable[[int, int], bool] = lambda h, distance: True

    def build(self, dtype: torch.dtype = torch.float64, **more: Any) -> nn.Module:
        """The module with random weights, those of norms and biases too."""
        torch.manual_seed(0)
        module = part("attention", {"type": self.type, "heads": HEADS, **self.options, **more}).build(dim=DIM)
        for parameter in module.parameters():
            with torch.no_grad():
                parameter.copy_(torch.randn_like(parameter) * 0.4 + (parameter.dim() == 1))
        return module.to(dtype)

    def slow(self, module: nn.Module, x_TF: Tensor, near: Near, position: str) -> Tensor:
        """The slow twin on one row whose first token is at step 0."""
        weights = dict(module.named_parameters())

        def visible(h: int, i: int, j: int) -> bool:
            return near(i, j) and self.sees(h, abs(i - j))

        if self.type == "mla":
            sizes = (module.kv_rank, module.rope_dim)
            return slow_latent_attention(weights, x_TF, HEADS, *sizes, visible, TURNS[position], BIASES[position])
        kv_heads = {"gqa": self.options.get("kv_heads", 2), "mqa": 1}.get(self.type, HEADS)
        return slow_heads(
            weights, x_TF, x_TF, HEADS, kv_heads, visible, TURNS[position], bias=BIASES[position]
        )  # fmt: skip


def _plain(x: Tensor, step: int) -> Tensor:
    return x


TURNS = {
    "none": _plain,
    "alibi": _plain,
    "rope": turned,
    "half_rope": lambda x, step: turned(x, step, 0.5, 50.0),
}
SLOPES = alibi_slopes(HEADS)
BIASES = {name: lambda h, distance: 0.0 for name in TURNS} | {"alibi": lambda h, distance: -SLOPES[h] * distance}
POSITIONS = {
    "none": "none",
    "alibi": "alibi",
    "rope": "rope",
    "half_rope": {"type": "rope", "fraction": 0.5, "base": 50.0},
}


def position(name: str) -> nn.Module:
    return part("position", POSITIONS[name]).build(dim=DIM)


def _in_pyramid(h: int, distance: int) -> bool:
    level = min(h, 4)
    return distance <= 2**level or distance % 2 ** (1 + level) == 0


CASES = {
    "mha": Case("mha"),
    "mha-normed": Case("mha", {"qk_norm": True, "bias": True, "head_dim": 6}),
    "gqa": Case("gqa", {"kv_heads": 3}),
    "gqa-normed": Case("gqa", {"qk_norm": True, "bias": True}),
    "mqa": Case("mqa"),
    "mla": Case("mla", {"rope_dim": 4}),
    "mla-sized": Case(
        "mla", {"kv_rank": 7, "q_rank": 5, "rope_dim": 4, "nope_dim": 3, "value_dim": 8, "bias": True}
    ),
    "window": Case("window", {"size": 3}, lambda h, distance: distance < 3),
    "pyramid": Case("pyramid", {"bias": True}, _in_pyramid),
}  # fmt: skip

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_position = pytest.mark.parametrize("name", POSITIONS)


def tokens(rows: int, T: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(rows, T, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def remembered(module: nn.Module, code: nn.Module, x: Tensor, first: Tensor, chunks, context: int, cache=None):
    """Run a memory chunk by chunk, resetting rows as the graph does; → outputs, cache and counter at the end."""
    done = torch.zeros(len(x), dtype=torch.int64)
    cache = module.initial_cache(len(x), context) if cache is None else cache
    outputs, start = [], 0
    for length in chunks:
        begun = first[:, start : start + length]
        cache = reset_state(cache, module.initial_cache(1, context), begun[:, 0])
        timeline, done = over_memory(done, begun, length, context, code)
        y, cache = module(x[:, start : start + length], timeline, cache)
        outputs.append(y)
        start += length
    return torch.cat(outputs, 1), cache, done


def episodes(first: list[bool]) -> list[slice]:
    """The runs of steps that a row's starts cut it into."""
    cuts = [0, *(t for t, begins in enumerate(first) if begins and t), len(first)]
    return [slice(a, b) for a, b in pairwise(cuts)]


def gradients(y: Tensor, module: nn.Module, *inputs: Tensor) -> dict[str, Tensor]:
    """Of a weighted sum of y, by parameter and input."""
    named = {n: p for n, p in module.named_parameters()} | {f"input {i}": t for i, t in enumerate(inputs)}
    weight = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)
    return dict(zip(named, torch.autograd.grad((y * weight).sum(), list(named.values())), strict=True))


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], **tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], **(tolerance or TIGHT), msg=lambda m, n=name: f"{n}: {m}")
