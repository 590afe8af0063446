"""What a policy keeps between steps: the names of its state's tensors, in order. B rows.

In: a plain dict `<component>/<name>` → tensor with the batch first. Out: the tensors as programs take them, and back. A
policy without memory has an empty state, which is right for any number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.compiler import is_compiling

from policysmith.errors import ShapeError, did_you_mean
from policysmith.graph.plan import Plan
from policysmith.ops.reset_state import State, reset_state

__all__ = ["StateLayout"]


class StateLayout:
    """The state of a plan's components: `keys` in order, `writers` the edge of the component that writes each.

    `components` are the live ones: they know their initial state. `memories` names those that have one.
    """

    def __init__(self, plan: Plan, components: nn.ModuleDict) -> None:
        nodes = [node for node in plan.nodes if node.measure.state]
        self.memories = tuple(node.name for node in nodes)
        self.writers = {f"{n.name}/{key}": n.spec.out_keys[0] for n in nodes for key, _ in n.measure.state}
        self.keys = tuple(self.writers)
        self._names, self._components = frozenset(self.keys), components

    def initial(self, batch: int) -> State:
        """The state of `batch` rows before their first step."""
        state: State = {}
        for name in self.memories:
            begun: State = self._components[name].initial_state(batch)  # type: ignore[operator]
            state.update((f"{name}/{key}", tensor) for key, tensor in begun.items())
        return state

    def begun(self, state: Mapping[str, Tensor] | None, first: Tensor | None, batch: int) -> list[Tensor]:
        """The state's tensors in order, rows whose episode begins (`first`) started anew; None begins every row."""
        if not self.keys and not state:
            return []
        if state is None:
            return self.ordered(self.initial(batch), batch)
        given = self.ordered(state, batch)
        if first is None or (not is_compiling() and first.device.type == "cpu" and not first.any()):
            return given
        named = dict(zip(self.keys, given, strict=True))
        return list(reset_state(named, self.initial(1), first.reshape(batch).bool()).values())

    def ordered(self, state: Mapping[str, Tensor], batch: int) -> list[Tensor]:
        """The tensors of a state in order; `ShapeError` names what is missing, unknown, or of another batch."""
        if not isinstance(state, Mapping) or set(state) != self._names:
            found = ", ".join(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
            hint = did_you_mean(str(next(iter(state), "")), self.keys) if isinstance(state, Mapping) else ""
            raise ShapeError(
                f"the state must hold {', '.join(self.keys) or 'nothing'}; found {found or 'nothing'}{hint}. "
                "Begin with init_state(batch)"
            )
        tensors = [state[key] for key in self.keys]
        if [tensor.size(0) for tensor in tensors].count(batch) != len(tensors):
            raise ShapeError(f"the state has {len(tensors[0])} rows for {batch} observations")
        return tensors

    def named(self, tensors: Sequence[Tensor]) -> State:
        """The tensors in order → the plain dict."""
        return dict(zip(self.keys, tensors, strict=True))
