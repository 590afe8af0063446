"""The transformer as a model: over windows that the environment gives, or over the episode as it goes on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Gt

from policysmith.config.options import error_at, located
from policysmith.parts.mlp import Width
from policysmith.parts.norms import Norm
from policysmith.parts.residual import Residual
from policysmith.parts.transformer.core import Architecture, DecoderInput
from policysmith.parts.transformer.extractors import Extractor
from policysmith.parts.transformer.pool import Pooling
from policysmith.parts.transformer.slots import Attention, Count, Dropout, Feedforward, Placement, Position
from policysmith.registry import PartSpec, Slot, register

__all__ = ["transformer"]

HeadTrunk = Annotated[PartSpec | str, Slot("component")]


@register("transformer", slot="model", window=True)
def transformer(
    dim: Width = 128,
    layers: Count = 2,
    decoder_layers: Count | None = None,
    architecture: Architecture = "decoder_only",
    context: Count | None = None,
    attention: Attention = "mha",
    feedforward: Feedforward = "mlp",
    norm: Norm = "layer",
    position: Position = "rope",
    residual: Residual = "add",
    placement: Placement = "pre",
    dropout: Dropout = 0.0,
    causal: bool | None = None,
    final_norm: bool = True,
    block_norm: bool = False,
    decoder_input: DecoderInput | None = None,
    queries: Count | None = None,
    extractor: Extractor | None = None,
    pooling: Pooling | None = None,
    head: HeadTrunk | None = None,
    std: Literal["independent", "dependent"] = "independent",
    initial_std: Annotated[float, Gt(0)] = 1.0,
    squash: bool = False,
    temperature: Annotated[float, Gt(0)] = 1.0,
    batch_coupled: bool = False,
) -> dict[str, Any]:
    """Transformer actor-critic over a window (T, F), or with `context` over an episode of single observations.

    Without `context` an observation is a sequence: an `extractor` of convolutions if wanted, a stack, and `pooling` of
    its outputs (default: the last). With it the policy remembers the last `context` steps in each layer. `head`
    is a component before the action head, and another before the value head: `{type: mlp, hidden: [64]}`.
    `batch_coupled: true` consents to batch normalisation.
    """
    blocks: dict[str, Any] = {
        "dim": dim, "layers": layers, "attention": attention, "feedforward": feedforward, "norm": norm,
        "position": position, "residual": residual, "placement": placement, "dropout": dropout,
        "final_norm": final_norm, "block_norm": block_norm,
    }  # fmt: skip
    windows = {"decoder_layers": decoder_layers, "causal": causal, "decoder_input": decoder_input, "queries": queries}
    if context is None:
        trunk = _window({**blocks, **windows, "architecture": architecture}, extractor, pooling)
    else:
        _check_memory(architecture, {**windows, "extractor": extractor, "pooling": pooling})
        trunk = {"memory": {"type": "transformer_memory", "in_keys": "observation", "context": context, **blocks}}
    action = {"std": std, "initial_std": initial_std, "squash": squash, "temperature": temperature}
    return {**trunk, **_heads(list(trunk)[-1], head, action)}


def _heads(features: str, head: PartSpec | str | None, action: dict[str, Any]) -> dict[str, Any]:
    """The two heads, each behind a component of its own where one is asked for."""
    before = {} if head is None else {name: {**_written(head), "in_keys": features} for name in ("actor", "critic")}
    actor, critic = before or (features, features)
    return {
        **before,
        "policy": {"type": "action_head", "in_keys": actor, **action},
        "state_value": {"type": "value_head", "in_keys": critic},
    }


def _written(part: PartSpec | str) -> dict[str, Any]:
    return {"type": part} if isinstance(part, str) else part.encode()


def _window(stack: dict[str, Any], extractor: Any, pooling: Pooling | None) -> dict[str, Any]:
    """The components over a whole window; the extractor is as causal as the stack."""
    trunk: dict[str, Any] = {}
    if stack["decoder_input"] == "target":
        raise located(
            "transformer",
            [error_at(("decoder_input",), "a window has no target beside it: use queries or shifted", "target")],
        )
    if extractor is not None:
        causal = stack["architecture"] == "decoder_only" or bool(stack["causal"])
        trunk["extractor"] = {
            "type": "sequence_extractor", "in_keys": "observation", "extractor": extractor, "causal": causal,
        }  # fmt: skip
    trunk["stack"] = {"type": "transformer_stack", "in_keys": "extractor" if trunk else "observation", **stack}
    trunk["pooling"] = {"type": "sequence_pool", "in_keys": "stack", "kind": pooling or "last"}
    return trunk


def _check_memory(architecture: Architecture, windows: dict[str, Any]) -> None:
    """Nothing that only a whole window can have is stated; every such option is a problem at its place."""
    stated = {name: value for name, value in windows.items() if value is not None and (name, value) != ("causal", True)}
    if architecture != "decoder_only":
        stated["architecture"] = architecture
    if stated:
        reason = "needs a whole window, and with context the steps come one by one: remove it, or context"
        raise located("transformer", [error_at((name,), reason, value) for name, value in stated.items()])
