"""Adam with gradient clipping in as few kernel launches as torch offers.

`torch.optim.Adam(fused=True)` runs the arithmetic; its Python wrapping, and that of `clip_grad_norm_`, costs more than
the kernels for small networks, so `step_guard` takes the norm with `_foreach` kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from policysmith.policy.parameter_exchange import Follower
from policysmith.training.optim.step_guard import StepGuard

__all__ = ["Adam", "laid_out_as"]


class Adam:
    """torch's fused Adam over a list of parameters, with clipping of the global gradient norm.

    `state()` and `load_state()` are flat mappings of tensors, fit for safetensors.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], learning_rate: float = 1e-3, eps: float = 1e-8) -> None:
        self._adam = torch.optim.Adam(list(parameters), lr=learning_rate, eps=eps, fused=True)
        self._on_gradients: list[Callable[[], None]] = []
        self.followers: list[Follower] = []  # who goes along when a swap exchanges parameters
        self.guard = StepGuard()

    @property
    def torch_optimizer(self) -> torch.optim.Optimizer:
        """torch's own, which holds the moments."""
        return self._adam

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        parameters: list[nn.Parameter] = self._adam.param_groups[0]["params"]
        return parameters

    @property
    def learning_rate(self) -> float:
        """The step size α."""
        return float(self._adam.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        for group in self._adam.param_groups:
            group["lr"] = value

    def advance(self, progress: float, learning_rate: float) -> None:
        """Set the step size for a progress in [0, 1]."""
        self.learning_rate = learning_rate

    def on_gradients(self, look: Callable[[], None]) -> None:
        """Have `look` called in every step, between backward and clipping."""
        self._on_gradients.append(look)

    def step(self, loss: Tensor | Iterable[Tensor], max_grad_norm: float | None = None) -> None:
        """Backward, clip to `max_grad_norm`, update; gradients of several losses, made one by one, add up.

        No update is made by a loss or gradients that are not finite; `guard` counts them.
        """
        self.guard.step([self._adam], self.parameters, loss, max_grad_norm, self._on_gradients)

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts: `<index>/<name>` → tensor."""
        state = self._adam.state_dict()["state"]
        return {f"{i}/{name}": t.detach().clone() for i, entry in state.items() for name, t in entry.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        entries: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            index, name = key.split("/")
            if name != "step":
                tensor = laid_out_as(self.parameters[int(index)], tensor)
            entries.setdefault(int(index), {})[name] = tensor
        self._adam.load_state_dict({"state": entries, "param_groups": self._adam.state_dict()["param_groups"]})


@torch.no_grad()
def laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A copy of a whole tensor as its parameter lies: in memory, which fused kernels walk, and over processes."""
    if isinstance(parameter, DTensor):
        return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
