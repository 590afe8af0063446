"""The transformer as a model: over windows that the environment gives, or over the episode as it goes on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from policysmith.config.options import error_at, located, options_of
from policysmith.parts.transformer.core import DynamicTransformerCore
from policysmith.parts.transformer.extractors import Extractor
from policysmith.parts.transformer.pool import Pooling
from policysmith.policy.log_std import LogStd, stated_bounds
from policysmith.registry import PartSpec, Slot, register
from policysmith.types import Count, Positive, Width

__all__ = ["transformer"]

WINDOW_ONLY = ("architecture", "decoder_layers", "causal", "decoder_input", "queries")
HeadTrunk = Annotated[PartSpec | str, Slot("component")]


@register("transformer", slot="model", window=True)
@options_of(DynamicTransformerCore)
def transformer(
    dim: Width = 128,
    *,
    context: Count | None = None,
    extractor: Extractor | None = None,
    pooling: Pooling | None = None,
    head: HeadTrunk | None = None,
    std: Literal["independent", "dependent"] = "independent",
    initial_std: Positive = 1.0,
    squash: bool = False,
    temperature: Positive = 1.0,
    log_std_min: LogStd | None = None,
    log_std_max: LogStd | None = None,
    batch_coupled: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Transformer actor-critic over a window (T, F), or with `context` over an episode of single observations.

    Without `context` an observation is a sequence: an `extractor` of convolutions if wanted, a stack, and `pooling` of
    its outputs (default: the last). With it the policy remembers the last `context` steps in each layer. `head`
    is a component before the action head, and another before the value head: `{type: mlp, hidden: [64]}`.
    `batch_coupled: true` consents to batch normalisation.

    Args:
        std: Whether the deviation of continuous actions is a parameter or follows from the observation.
        initial_std: Where the standard deviation starts.
        squash: Whether continuous actions pass through tanh into their bounds.
        log_std_min: The lowest logarithm of the deviation; null for -20.
        log_std_max: The highest; null for 2 where it follows from the observation, else 10 above the start.
        temperature: What the logits of discrete actions are divided by.
        context: How many steps the policy remembers; null for observations that are whole windows.
        extractor: Convolutions over the window before the stack.
        pooling: How the tokens of a window become one vector.
        head: A component before each of the two heads, each with weights of its own.
        batch_coupled: Consents to parts whose rows depend on each other, such as batch normalisation.
    """
    if context is None:
        trunk = _window({"dim": dim, **options}, extractor, pooling)
    else:
        windows = {name: options.pop(name) for name in WINDOW_ONLY}
        _check_memory({**windows, "extractor": extractor, "pooling": pooling})
        memory = {"type": "transformer_memory", "in_keys": "observation", "context": context, "dim": dim, **options}
        trunk = {"memory": memory}
    action = {"std": std, "initial_std": initial_std, "squash": squash, "temperature": temperature}
    action |= stated_bounds(log_std_min, log_std_max)
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


def _check_memory(windows: dict[str, Any]) -> None:
    """Nothing that only a whole window can have is stated; every such option is a problem at its place."""
    allowed = {("causal", True), ("architecture", "decoder_only")}
    stated = {name: value for name, value in windows.items() if value is not None and (name, value) not in allowed}
    if stated:
        reason = "needs a whole window, and with context the steps come one by one: remove it, or context"
        raise located("transformer", [error_at((name,), reason, value) for name, value in stated.items()])
