"""The model of a skill library: for each task an actor and a critic of its own, chosen by the task in the observation.

In: options. Out: components over the observation `{observation, task}`.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import MinLen

from policysmith.errors import ConfigError, Problem
from policysmith.parts.activations import Activation
from policysmith.policy.log_std import LogStd, stated_bounds
from policysmith.registry import register
from policysmith.types import Count, NonNegativeInt, Positive, Width

__all__ = ["moe"]


@register("moe", slot="model", tasks=True)
def moe(
    layer_width: Width = 512,
    num_layers: Count = 4,
    activation: Activation = "tanh",
    num_tasks: Count | None = None,
    experts: Annotated[list[NonNegativeInt], MinLen(1)] | None = None,
    initial_std: Positive = 1.0,
    squash: bool = False,
    log_std_min: LogStd | None = None,
    log_std_max: LogStd | None = None,
) -> dict[str, object]:
    """Experts over a Dict observation: `task`, a Discrete, says which of them acts on what `observation` holds.

    Parameters are `components.policy.actor_networks_<task>.…` and `components.state_value.critic_networks_<task>.…`.
    `num_tasks` follows from the space; stated, it is compared with it. `experts` are the numbers that the tasks'
    experts have in a library of skills: an artifact's manifest tells them.

    Args:
        layer_width: The units of each hidden layer.
        num_layers: How many layers an expert has, the last one included.
        activation: The nonlinearity.
        initial_std: Where the standard deviation starts.
        squash: Whether continuous actions pass through tanh into their bounds.
        log_std_min: The lowest logarithm of the deviation; null for -20.
        log_std_max: The highest; null for 2 where it follows from the observation, else 10 above the start.
        num_tasks: How many tasks there are; null takes the number of the space.
        experts: The expert of each task; null gives task i the expert i.
    """
    network: dict[str, object] = {"layer_width": layer_width, "num_layers": num_layers, "activation": activation}
    network["in_keys"] = ["observation.task", "features"]
    if experts is not None and (len(set(experts)) < len(experts) or num_tasks not in (None, len(experts))):
        wanted = "" if num_tasks is None else f" {num_tasks}"
        raise ConfigError([Problem("model.experts", f"must be{wanted} different numbers, found {experts}")])
    if num_tasks is not None or experts is not None:
        network["num_tasks"] = num_tasks or len(experts or ())
    deviation = {"initial_std": initial_std, **stated_bounds(log_std_min, log_std_max)}
    return {
        "features": {"type": "concat", "in_keys": "observation.observation"},
        "policy": {"type": "expert_action_head", **deviation, "squash": squash, **network},
        "state_value": {"type": "expert_value_head", **network},
    }
