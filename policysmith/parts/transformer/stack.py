"""The transformer as a component over windows: every observation is a whole sequence.

In: (B, T, F), and where asked for a target (B, T', F') and padding (B, T). Out: (B, T, D), or a token a decoder input.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from policysmith.config.options import options_of
from policysmith.parts.transformer.core import DynamicTransformerCore
from policysmith.parts.transformer.slots import projection
from policysmith.registry import register
from policysmith.types import EventShapes, Width

__all__ = ["TransformerStack"]


@register("transformer_stack")
class TransformerStack(nn.Module):
    """Transformer over a window (T, F) → (T, dim); options as in `DynamicTransformerCore`.

    Features are projected to `dim` (default: F). A second sequence among the inputs is the decoder's target; an input
    with one number a step, named `padding` by a mapping of `in_keys`, is not 0 where the window holds no token.

    Args:
        dim: The width of the tokens; that of the input by default.
    """

    @options_of(DynamicTransformerCore)
    def __init__(self, event_shapes: EventShapes, dim: Width | None = None, **options: Any) -> None:
        super().__init__()
        (features, *others), wants_target = _widths(event_shapes), options["decoder_input"] == "target"
        if len(others) != wants_target:
            raise ValueError(
                f"{1 + len(others)} sequences among the inputs, where {1 + wants_target} are expected: a target "
                "beside the source goes with decoder_input: target"
            )
        dim = dim or features
        self.project, self.project_target = projection(features, dim), projection((others or [dim])[0], dim)
        self.core = DynamicTransformerCore(dim, **options)

    def forward(
        self,
        source: Tensor,
        target: Tensor | None = None,
        padding: Tensor | None = None,
        aux: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """source (B, T, F) → (B, T, dim); with a decoder (B, its tokens, dim)."""
        target = None if target is None else self.project_target(target)
        return self.core(self.project(source), target, None if padding is None else padding != 0, aux)


def _widths(event_shapes: tuple[tuple[int, ...], ...]) -> list[int]:
    """The features of each sequence among the inputs."""
    first = event_shapes[0]
    if len(first) != 2:
        raise ValueError(
            f"a window (T, features) is expected first, found {tuple(first)}; for one step at a time use "
            "transformer_memory"
        )
    return [shape[-1] for shape in event_shapes if len(shape) == 2]
