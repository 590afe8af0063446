"""The two heads of a policy of experts: each task has an actor and a critic of its own.

In: task ids (B,) and features (B, F). Out: action parameters (B, P), or state value (B,).
"""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor, nn

from policysmith.config.signatures import Repeated
from policysmith.parts.activations import Activation
from policysmith.parts.task_experts import ExpertNetwork, run_experts
from policysmith.policy.log_std import LogStd, log_std_range
from policysmith.registry import register
from policysmith.types import ActionLayout, EventShapes, NumEmbeddings, Positive, Repeats, Width

__all__ = ["ExpertActionHead", "ExpertValueHead"]


class _Networks(nn.Module):
    """One network a task, under the names `<prefix>_<task>`."""

    def __init__(
        self, prefix: str, event_shapes: EventShapes, num_tasks: int, out_features: int, **options: object
    ) -> None:
        super().__init__()
        if len(event_shapes) != 2 or event_shapes[0] != () or len(event_shapes[1]) != 1:
            found = ", ".join(str(tuple(shape)) for shape in event_shapes)
            raise ValueError(f"reads a task id () and features (F,), found {found}")
        for index in range(num_tasks):
            network = ExpertNetwork(event_shapes[1][0], out_features, **options)  # type: ignore[arg-type]
            self.add_module(f"{prefix}_{index}", network)

    def run(self, task_B: Tensor, x_BF: Tensor) -> Tensor:
        return run_experts([list(self.children())], x_BF, task_B)[0]


@register("expert_action_head", role="policy", indices=True)
class ExpertActionHead(_Networks):
    """Task ids (B,) and features (B, F) → distribution parameters (B, P), by the network of each row's task.

    A Box has a deviation that depends on the state, so that all of an expert is in its network.

    Args:
        layer_width: The units of each hidden layer.
        num_layers: How many layers an expert has, the last one included.
        activation: The nonlinearity.
        std: The deviation follows from the observation.
        initial_std: Where the standard deviation starts.
        squash: Whether continuous actions pass through tanh into their bounds.
        log_std_min: The lowest logarithm of the deviation; null for -20.
        log_std_max: The highest; null for 2 where it follows from the observation, else 10 above the start.
    """

    def __init__(
        self,
        event_shapes: EventShapes,
        num_tasks: Annotated[NumEmbeddings, Repeated()],
        layout: ActionLayout,
        layer_width: Width = 512,
        num_layers: Repeats = 4,
        activation: Activation = "tanh",
        std: Literal["dependent"] = "dependent",
        initial_std: Positive = 1.0,
        squash: bool = False,
        log_std_min: LogStd | None = None,
        log_std_max: LogStd | None = None,
    ) -> None:
        log_std_range(std, initial_std, log_std_min, log_std_max)
        options = {"layer_width": layer_width, "num_layers": num_layers, "activation": activation}
        wanted = sum(size for size, _ in layout)
        super().__init__("actor_networks", event_shapes, num_tasks, wanted, role="policy_out", **options)

    def forward(self, task: Tensor, x: Tensor) -> Tensor:
        """task (B,), x (B, F) → (B, P)."""
        return self.run(task, x)


@register("expert_value_head", role="value", indices=True)
class ExpertValueHead(_Networks):
    """Task ids (B,) and features (B, F) → state value (B,), by the network of each row's task.

    Args:
        layer_width: The units of each hidden layer.
        num_layers: How many layers an expert has, the last one included.
        activation: The nonlinearity.
    """

    def __init__(
        self,
        event_shapes: EventShapes,
        num_tasks: Annotated[NumEmbeddings, Repeated()],
        layer_width: Width = 512,
        num_layers: Repeats = 4,
        activation: Activation = "tanh",
    ) -> None:
        options = {"layer_width": layer_width, "num_layers": num_layers, "activation": activation}
        super().__init__("critic_networks", event_shapes, num_tasks, 1, role="value_out", **options)

    def forward(self, task: Tensor, x: Tensor) -> Tensor:
        """task (B,), x (B, F) → (B,)."""
        return self.run(task, x).squeeze(-1)
