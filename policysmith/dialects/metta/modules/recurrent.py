"""Component modules that remember: a registered memory under keys of its own. B rows, T steps, L layers, H features.

In: a step (B, F) or a sequence (B, T, F), the state before, and `is_init` where episodes begin. Out: features, and the
state after. Nothing is kept here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from policysmith.dialects.metta.modules.layers import Keys, build_part
from policysmith.graph.component import Key
from policysmith.graph.memory_component import MemoryComponent
from policysmith.graph.shape_errors import shape_error

__all__ = ["GRUModule", "LSTMModule", "MemoryModule"]


class MemoryModule(MemoryComponent):
    """A registered memory as a component: (B, F) is one step, (B, T, F) a sequence, (*, H) comes out.

    The state is read from and written to `<name>/…`; absent it is the initial one. `name` is by default the first
    output's; a policy calls it by the component's name. `options` are the part's own.
    """

    part_type: ClassVar[str]
    in_keys, out_keys = ["input"], ["output"]

    def __init__(
        self,
        in_features: int,
        hidden_size: int = 128,
        num_layers: int = 1,
        name: str | None = None,
        in_keys: Keys = None,
        out_keys: Keys = None,
        **options: Any,
    ) -> None:
        stated = {"hidden_size": hidden_size, "num_layers": num_layers, **options}
        module = build_part(self.part_type, context={"flat_features": in_features}, **stated)
        super().__init__(module, "", 1, in_keys, out_keys)
        self.name, self.in_features = name or _last(self.out_keys[0]), in_features

    def shape_error(self, tensors: Sequence[Tensor]) -> str | None:
        """The input, where it has other features than it must."""
        return shape_error(self, tensors, (self.in_features,))


class LSTMModule(MemoryModule):
    """Long short-term memory, `lstm`: the state is `<name>/h` and `<name>/c`, (B, L, H) each."""

    part_type = "lstm"


class GRUModule(MemoryModule):
    """Gated recurrent unit, `gru`: the state is `<name>/h`, (B, L, H)."""

    part_type = "gru"


def _last(key: Key) -> str:
    return key if isinstance(key, str) else key[-1]
