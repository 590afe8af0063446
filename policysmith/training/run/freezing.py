"""Components that learn from recorded data alone are held while the policy learns in an environment.

In: a policy. Out: the same, in which `online_update: false` components ask for no gradients until the context ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from policysmith.errors import ConfigError, Problem
from policysmith.policy.actor_critic import ActorCritic

__all__ = ["offline_components_frozen"]


@contextmanager
def offline_components_frozen(policy: ActorCritic) -> Iterator[None]:
    """Hold every component whose configuration says `online_update: false`; raises `ConfigError` where nothing is left.

    Weights that such a component shares with another are held with it.
    """
    held = [node.name for node in policy.plan.nodes if not node.spec.online_update]
    parameters = [p for name in held for p in policy.components[name].parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        if held and not any(p.requires_grad for p in policy.parameters()):
            names = ", ".join(map(repr, held))
            raise ConfigError([Problem("model", f"online_update: false holds {names}, and nothing else learns")])
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
