"""LoRA: low-rank deltas beside the frozen linear layers of a component. O outputs, I inputs, R rank.

In: a component. Out: the same component, whose few new parameters alone learn; `merged` gives it back without them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policysmith.graph.module_view import bare
from policysmith.registry import register
from policysmith.types import Count, Positive
from policysmith.wrappers.wrapper import Inner, Wrapper

__all__ = ["LoRA", "LoRALinear"]


@register("lora", slot="wrapper", owns_weights=True)
class LoRA(Wrapper):
    """Low-rank adaptation (arXiv 2106.09685): W + alpha/rank · B A for every linear layer, B (O, R), A (R, I).

    `target` is a shell pattern, or several, of the names of `nn.Linear` layers inside the component (a component that
    is one has the name ""). Every parameter there was is frozen; A starts random and B at zero, so at first nothing
    changes. `state_dict` has the bare keys and besides, beside each layer's weight, `lora_A` and `lora_B`: a bare
    checkpoint loads (its deltas are zero), and `merged_state_dict()` is a bare one. The layers themselves are adapted,
    so what stands inside computes with the deltas too. Raises ValueError where no layer matches.

    Args:
        rank: The rank of each correction.
        alpha: The correction is multiplied by alpha / rank; null takes alpha = rank.
        target: The names of the layers that are corrected; patterns such as 'layers.*'.
    """

    transparent = True

    def __init__(
        self,
        module: Inner,
        rank: Count = 8,
        alpha: Positive | None = None,
        target: list[str] | str = "*",
    ) -> None:
        super().__init__(module)
        if rank < 1:
            raise ValueError(f"rank={rank} must be ≥ 1")
        layers = _targets(self, [target] if isinstance(target, str) else target)
        module.requires_grad_(False)
        for layer in layers:
            adapt(layer, rank, 1.0 if alpha is None else alpha / rank)

    def merged(self) -> nn.Module:
        """A copy of what stands inside, with the deltas in its weights and plain layers again."""
        inner = copy.deepcopy(self.module)
        for layer in bare(inner).modules():
            if isinstance(layer, LoRALinear):
                layer.merge()
        return inner

    def merged_state_dict(self) -> dict[str, Tensor]:
        """The state of the component without the wrapper, deltas included: its keys are the bare ones."""
        return self.merged().state_dict()


class LoRALinear(nn.Linear):
    """A linear layer with a delta; `weight` is what it computes with, its own weight lies under that name in the state.

    Made by `adapt`, never by itself.
    """

    scaling: float
    lora_A: nn.Parameter
    lora_B: nn.Parameter

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """W + scaling · B A (O, I): for who reads the weight instead of calling the layer."""
        return torch.addmm(self.frozen_weight, self.lora_B, self.lora_A, alpha=self.scaling)

    @property
    def frozen_weight(self) -> Tensor:
        """W (O, I), as it was before."""
        return nn.Module.__getattr__(self, "weight")  # type: ignore[return-value]

    def forward(self, input: Tensor) -> Tensor:
        """input (*, I), named as by `nn.Linear`, → (*, O), through the bottleneck of R features."""
        delta = F.linear(F.linear(input, self.lora_A), self.lora_B)
        return F.linear(input, self.frozen_weight, self.bias) + self.scaling * delta

    @torch.no_grad()
    def merge(self) -> None:
        """Take the delta into the weight and be a plain layer again, in place."""
        self._parameters["weight"] = nn.Parameter(self.weight, self.frozen_weight.requires_grad)
        del self._parameters["lora_A"], self._parameters["lora_B"], self.__dict__["scaling"]
        _become(self, nn.Linear)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        *rest: Any,
    ) -> None:
        """A state without deltas is one whose deltas are zero."""
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, *rest)
        names = [f"{prefix}lora_A", f"{prefix}lora_B"]
        if not any(name in state_dict for name in names):
            missing_keys[:] = [name for name in missing_keys if name not in names]
            with torch.no_grad():
                self.lora_B.zero_()


def adapt(layer: nn.Linear, rank: int, scaling: float) -> None:
    """Give a linear layer a delta of no effect, in place: all who hold the layer have it then."""
    weight = layer.weight.detach()
    down, up = weight.new_empty(rank, layer.in_features), weight.new_zeros(layer.out_features, rank)
    nn.init.kaiming_uniform_(down, a=math.sqrt(5))
    layer.register_parameter("lora_A", nn.Parameter(down))
    layer.register_parameter("lora_B", nn.Parameter(up))
    layer.scaling = scaling  # type: ignore[assignment]
    _become(layer, LoRALinear)


def _become(layer: nn.Module, kind: type[nn.Module]) -> None:
    """Change a layer's class, and have compiled code look at the classes of its modules.

    It stays the same object, as under `torch.nn.utils.parametrize`, which does likewise: components hold their module's
    very dictionaries, and tied layers are held in several places, so another object would be missed by some of them.
    """
    layer.__class__ = kind
    layer.register_forward_hook(lambda *_: None).remove()


def _targets(view: nn.Module, patterns: Sequence[str]) -> list[nn.Linear]:
    root = bare(view)
    linear = {name: layer for name, layer in root.named_modules() if type(layer) is nn.Linear}
    found = [layer for name, layer in linear.items() if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not found:
        names = ", ".join(map(repr, linear)) or "none (or they are adapted already)"
        raise ValueError(f"no linear layer matches {', '.join(map(repr, patterns))}; there are: {names}")
    return found
