"""The model most tasks start with: an actor and a critic of a few dense layers."""

from __future__ import annotations

from typing import Literal

from policysmith.parts.activations import Activation
from policysmith.parts.norms import Norm
from policysmith.policy.log_std import LogStd, stated_bounds
from policysmith.registry import register
from policysmith.types import Dropout, Positive, Width

__all__ = ["mlp"]


@register("mlp", slot="model")
def mlp(
    hidden: list[Width] = [64, 64],  # noqa: B006 - read only
    activation: Activation = "tanh",
    norm: Norm | None = None,
    dropout: Dropout = 0.0,
    shared: bool = False,
    std: Literal["independent", "dependent"] = "independent",
    initial_std: Positive = 1.0,
    squash: bool = False,
    log_std_min: LogStd | None = None,
    log_std_max: LogStd | None = None,
) -> dict[str, object]:
    """Dense actor and critic over any observation space; separate trunks unless `shared`.

    Args:
        hidden: The units of each hidden layer.
        activation: The nonlinearity behind each layer.
        norm: The normalisation before each nonlinearity; null for none.
        dropout: The share of hidden units that training sets to 0.
        std: Whether the deviation of continuous actions is a parameter or follows from the observation.
        initial_std: Where the standard deviation starts.
        squash: Whether continuous actions pass through tanh into their bounds.
        log_std_min: The lowest logarithm of the deviation; null for -20.
        log_std_max: The highest; null for 2 where it follows from the observation, else 10 above the start.
        shared: Whether actor and critic share the hidden layers.
    """
    layers: dict[str, object] = {"hidden": hidden, "activation": activation, "norm": norm, "dropout": dropout}
    trunk = {"type": "mlp", "in_keys": "observation", **layers}
    head: dict[str, object] = {"type": "action_head", "std": std, "initial_std": initial_std, "squash": squash}
    head |= stated_bounds(log_std_min, log_std_max)
    if shared:
        return {
            "trunk": trunk,
            "policy": {**head, "in_keys": "trunk"},
            "state_value": {"type": "value_head", "in_keys": "trunk"},
        }
    return {
        "actor": trunk,
        "critic": trunk,
        "policy": {**head, "in_keys": "actor"},
        "state_value": {"type": "value_head", "in_keys": "critic"},
    }
