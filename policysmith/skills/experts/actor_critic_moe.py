"""ActorCriticMoE: an actor and a critic for each task, chosen row by row by the task's id.

In: observations x (B, D) and task ids (B,). Out: logits (B, A) and values (B,). B rows, D features, A actions.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from policysmith.errors import ShapeError
from policysmith.parts.activations import Activation
from policysmith.parts.task_experts import ExpertNetwork, run_experts
from policysmith.policy.actions import ActionDistribution
from policysmith.policy.masks import legal_masks

__all__ = ["ActorCriticMoE"]


class ActorCriticMoE(nn.Module):
    """`num_tasks` experts, each an actor and a critic of `num_layers` linear layers; speaks `ActorCriticProtocol`.

    Parameters are named `actor_networks_<i>.layers_<0|2|…>.{weight,bias}` and `critic_networks_<i>.…`. Hidden layers
    start orthogonal with gain √2, the actor's last with 0.01, the critic's with 1; biases are zero. Experts that no row
    asks for compute nothing and get no gradient, so an optimiser leaves them as they are (gradients must be None where
    there are none, as `zero_grad()` makes them).

    `in_features=None` takes the number of features from the first call, as torch's lazy modules do: make that call
    before the parameters go to an optimiser.
    """

    def __init__(
        self,
        action_dim: int,
        layer_width: int = 512,
        num_layers: int = 4,
        *,
        num_tasks: int,
        activation: Activation = "tanh",
        in_features: int | None = None,
    ) -> None:
        super().__init__()
        sizes = {"action_dim": action_dim, "layer_width": layer_width, "num_tasks": num_tasks}
        if wrong := [f"{name}={size}" for name, size in sizes.items() if size < 1]:
            raise ValueError(f"{', '.join(wrong)}: must be at least 1")
        self.action_dim, self.num_tasks, self.in_features = action_dim, num_tasks, in_features
        self.actions = ActionDistribution(spaces.Discrete(action_dim))
        network = (layer_width, num_layers, activation)
        for prefix, outputs, role in (("actor", action_dim, "policy_out"), ("critic", 1, "value_out")):
            for index in range(num_tasks):
                expert = ExpertNetwork(in_features, outputs, *network, role)
                expert.start()
                self.add_module(f"{prefix}_networks_{index}", expert)

    def forward(self, x: Any, task_id: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B, D) and ids (B,), or one mapping `{observation, task}` → logits (B, A), value (B,).

        Raises ValueError for an id that names no expert, `ShapeError` for another number of features than before.
        """
        x_BD, task_B = self._read(x, task_id)
        logits_BA, value_B1 = run_experts([self._bank("actor"), self._bank("critic")], x_BD, task_B)
        return logits_BA, value_B1.squeeze(-1)

    def get_action_and_value(
        self, obs: Any, legal_mask: Any = None, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Observation → (action (B,), log_prob (B,), value (B,)); by default the observation's own `action_mask`."""
        logits_BA, value_B = self(obs)
        actions, log_prob_B = self.actions.choose(logits_BA, self._masks(obs, legal_mask, logits_BA), deterministic)
        return actions[0], log_prob_B, value_B

    def evaluate_actions(self, obs: Any, actions: Tensor, legal_mask: Any = None) -> tuple[Tensor, Tensor, Tensor]:
        """Observation and actions (B,) → (log_prob (B,), entropy (B,), value (B,)), differentiable."""
        logits_BA, value_B = self(obs)
        masks = self._masks(obs, legal_mask, logits_BA)
        return *self.actions.evaluate(logits_BA, [actions], masks), value_B

    def get_value(self, obs: Any) -> Tensor:
        """Observation → value (B,); only critics run."""
        return run_experts([self._bank("critic")], *self._read(obs, None))[0].squeeze(-1)

    def _bank(self, role: str) -> list[nn.Module]:
        modules: Any = self._modules
        return [modules[f"{role}_networks_{index}"] for index in range(self.num_tasks)]

    def _read(self, x: Any, task_id: Tensor | None) -> tuple[Tensor, Tensor]:
        if task_id is None:
            if isinstance(x, Tensor):
                raise ShapeError("the task of each row is missing: pass task_id, or a mapping {observation, task}")
            x, task_id = x["observation"], x["task"]
        assert task_id is not None
        if self.in_features is None:
            self._size(x.shape[-1])
        if x.dim() != 2 or x.shape[1] != self.in_features:
            raise ShapeError(f"observation has shape {tuple(x.shape)}, expected (B, {self.in_features})")
        return x, task_id

    @torch.no_grad()
    def _size(self, in_features: int) -> None:
        """Every expert gets its size at once: the next call may ask for any of them."""
        for role in ("actor", "critic"):
            for network in self._bank(role):
                network.size(in_features)  # type: ignore[operator]
        self.in_features = in_features

    def _masks(self, obs: Any, mask: Any, logits_BA: Tensor) -> list[Tensor]:
        if mask is None and not isinstance(obs, Tensor) and "action_mask" in obs.keys():  # noqa: SIM118 - TensorDict
            mask = obs["action_mask"]
        if mask is None:
            return []
        return legal_masks(self.actions.space, mask, len(logits_BA), logits_BA.device, strict=False)
