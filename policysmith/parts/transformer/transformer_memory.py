"""The transformer as a memory: one step in, one step out, and the keys of an episode's last steps as state.

In: (B, F) and a state, or (B, T, F), a state and the steps that begin an episode. Out: (B, D) or (B, T, D), next state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from policysmith.config.options import options_of
from policysmith.ops.reset_state import State, reset_state
from policysmith.ops.timeline import Timeline, over_memory
from policysmith.parts.transformer.blocks import EncoderBlock
from policysmith.parts.transformer.causality import refuse_mixing
from policysmith.parts.transformer.recipe import BlockRecipe
from policysmith.parts.transformer.slots import Position, build_part, projection
from policysmith.registry import part, register
from policysmith.types import Count, FlatFeatures, Repeats, Width

__all__ = ["TransformerMemory", "gtrxl"]

Aux = dict[str, Tensor] | None
STEP = "position"


@register("transformer_memory", stateful=True, causal=True)
class TransformerMemory(nn.Module):
    """Causal transformer over an episode: each layer sees the last `context` steps. (F,) a step → (dim,).

    Features are projected to `dim` (default: F). The state holds `position` (B,), the steps done in the episode, and
    each layer's cache of `context` steps as `layers.<i>.<name>`. Stepping and `unroll` give the same outputs. Raises
    ValueError for parts whose steps see later ones, which are not there yet.

    Args:
        dim: The width of the tokens; that of the input by default.
        layers: How many blocks it has.
        context: How many steps each layer sees, the present one included.
        position: How a token knows its place.
        final_norm: Whether the last block is followed by a norm.
        block_norm: Whether every block is followed by a norm.
    """

    @options_of(EncoderBlock)
    def __init__(
        self,
        in_features: FlatFeatures,
        dim: Width | None = None,
        layers: Repeats = 2,
        context: Count = 64,
        *,
        position: Position = "rope",
        final_norm: bool = True,
        block_norm: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        dim = dim or in_features
        recipe = BlockRecipe(dim, options, block_norm)
        refuse_mixing(recipe.slots, "and the later steps of an episode are not there yet when it acts")
        self.context = context
        self.project = projection(in_features, dim)
        self.position = build_part("position", position, dim)
        self.blocks = recipe.encoder(layers)
        self.norm = recipe.final_norm(final_norm)

    def initial_state(self, batch: int) -> State:
        """The state of `batch` rows at the beginning of an episode."""
        device = next(self.parameters()).device
        state = {STEP: torch.zeros(batch, dtype=torch.int64, device=device)}
        for index, block in enumerate(self.blocks):
            cache = block.initial_cache(batch, self.context)  # type: ignore[operator]
            state |= {f"{_prefix(index)}{name}": tensor for name, tensor in cache.items()}
        return state

    def forward(self, x_BF: Tensor, state: State, aux: Aux = None) -> tuple[Tensor, State]:
        """One step: x (B, F) → (B, dim), next state. Rows that begin an episode come with the initial state."""
        timeline, done = over_memory(state[STEP], None, 1, self.context, self.position)  # type: ignore[arg-type]
        y_BTD, state = self._run(x_BF.unsqueeze(1), timeline, done, state, aux)
        return y_BTD.squeeze(1), state

    def unroll(
        self, x_BTF: Tensor, state: State, first_BT: Tensor | None = None, aux: Aux = None
    ) -> tuple[Tensor, State]:
        """T steps at once: x (B, T, F) → (B, T, dim), state after the last; `first_BT` marks what begins an episode."""
        if first_BT is not None:
            state = reset_state(state, self.initial_state(1), first_BT[:, 0])
        T = x_BTF.shape[1]
        timeline, done = over_memory(state[STEP], first_BT, T, self.context, self.position)  # type: ignore[arg-type]
        return self._run(x_BTF, timeline, done, state, aux)

    def _run(self, x_BTF: Tensor, timeline: Timeline, done: Tensor, state: State, aux: Aux) -> tuple[Tensor, State]:
        x = self.position.embed(self.project(x_BTF), timeline.positions)  # type: ignore[operator]
        after: State = {STEP: done}
        for index, block in enumerate(self.blocks):
            prefix = _prefix(index)
            cache = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
            x, cache = block(x, timeline, cache, aux)
            after |= {f"{prefix}{name}": tensor for name, tensor in cache.items()}
        return self.norm(x), after


@register("gtrxl", stateful=True, causal=True)
@options_of(TransformerMemory, ("residual", "placement", "block_norm"))
def gtrxl(in_features: FlatFeatures, *, bias: float = 2.0, **options: Any) -> TransformerMemory:
    """Gated Transformer-XL (arXiv 1910.06764): a transformer memory with pre-norm and GRU gates for residuals.

    `bias` starts the gates near the identity. Positions are by default rotary, where the paper has Transformer-XL's
    relative ones, and gradients pass into the cached steps of a chunk.

    Args:
        bias: Where the gates' bias starts; 2 keeps a block near the identity at first.
    """
    residual = part("residual", {"type": "gtrxl", "bias": bias})
    return TransformerMemory(in_features, residual=residual, placement="pre", **options)


def _prefix(index: int) -> str:
    return f"layers.{index}."
