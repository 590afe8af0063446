"""StatefulModule: a component that remembers, by a manager of its state. B rows, T steps.

In: a mapping with the state before under `<name>/<key>` (absent: the initial one) and `is_init` where episodes begin.
Out: the same mapping, with the state after. Nothing is kept here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from policysmith.errors import WiringError
from policysmith.graph.component import AUX, Key, read_key, write_key
from policysmith.graph.memory_component import FIRST
from policysmith.ops.reset_state import State, reset_state
from policysmith.registry import Infer, PartSpec, Slot, register
from policysmith.wrappers.managers import MANAGER, MemoryManager, as_manager
from policysmith.wrappers.wrapper import Inner, Wrapper, add_report, last_part

__all__ = ["StatefulModule"]


@register("stateful", slot="wrapper", owns_weights=True)
class StatefulModule(Wrapper):
    """Threads a state through a component: a manager says what is kept between steps, and what it becomes.

    `state_manager` is a module with `in_keys`, `out_keys`, a forward that takes a mapping, and `initial_state(batch)`,
    which names what is kept and how it starts. For each name it reads `current_<name>`, as the component may, and
    writes `next_<name>`; the component runs first. Or it is a part with memory (`gru`, `lstm` …), which then stands
    behind the component's first output and replaces it; described by a type, it needs the `out_shape` of a row there.

    A mapping whose `is_init` is (B, T), or a TensorDict of batch (B, T), is a sequence: it gives what T steps would.
    `name` is where the state lies, by default the first output's. The manager's weights lie under `state_manager.`
    beside the bare keys of `state_dict`.

    Args:
        state_manager: What computes the next state from the output and the state.
    """

    state_manager: Any

    def __init__(
        self,
        module: Inner,
        state_manager: Annotated[nn.Module | PartSpec | str, Slot("component")] = "gru",
        name: Annotated[str, Infer("component")] = "",
        out_shape: Annotated[tuple[int, ...], Infer("out_shape")] = (),
    ) -> None:
        super().__init__(module)
        self.name = name or last_part(self.out_keys[0])
        manager = as_manager(state_manager, self.out_keys[0], out_shape)
        self.__dict__[MANAGER] = manager  # no child: the dictionary of children is the component's
        manager.train(self.training)
        if both := set(super().initial_state(1)) & set(manager.initial_state(1)):
            raise WiringError(f"state {', '.join(sorted(both))} of {self.name!r} is kept already: one memory is enough")

    def initial_state(self, batch: int) -> State:
        """The manager's, and that of the component inside."""
        return {**super().initial_state(batch), **self.state_manager.initial_state(batch)}

    def forward(self, mapping: Any) -> Any:
        """One step, or as many as the mapping has."""
        first, in_tensordict = mapping.get(FIRST, None), isinstance(mapping, TensorDictBase)
        if not (mapping.ndim > 1 if in_tensordict else first is not None and first.dim() > 1):
            return self._step(mapping, first)
        x = read_key(mapping, self.in_keys[0])
        if first is None:
            first = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        parallel = isinstance(self.state_manager, MemoryManager) and not super().initial_state(1) and not in_tensordict
        return (self._parallel if parallel else self._sequence)(mapping, first.reshape(x.shape[:2]).bool())

    def _step(self, mapping: Any, first: Tensor | None) -> Any:
        batch = len(read_key(mapping, self.in_keys[0]))
        state, initial = self._state(mapping, batch), self.state_manager.initial_state(batch)
        if first is not None:
            state = reset_state(state, initial, first.reshape(batch).bool())
        for name, tensor in state.items():
            mapping[f"current_{name}"] = tensor
        result = self.state_manager(self.module(mapping))
        for name in state:
            result[self._key(name)] = result[f"next_{name}"]
        return result

    def _sequence(self, mapping: Any, first_BT: Tensor) -> Any:
        """Step by step: the component may read the state."""
        rows, steps = first_BT.shape
        inputs = [key for key in (*self.in_keys, *self.state_manager.in_keys) if _has(mapping, key)]
        carried = {self._key(name): start for name, start in self.initial_state(rows).items()}
        carried |= {key: _first(mapping, key) for key in carried if mapping.get(key, None) is not None}
        results: list[Any] = []
        for t in range(steps):
            step = _at(mapping, inputs, t)
            step.update({**carried, FIRST: first_BT[:, t]})
            results.append(self._step(step, first_BT[:, t]))
            carried = {key: results[-1][key] for key in carried}
        for key in (*self.out_keys, *self.state_manager.out_keys):
            write_key(mapping, key, torch.stack([read_key(result, key) for result in results], 1))
        if not isinstance(mapping, TensorDictBase):  # whose entries are of every step
            mapping.update(carried)
        _add_reports(mapping, results, self.reports)
        return mapping

    def _parallel(self, mapping: dict[Any, Any], first_BT: Tensor) -> Any:
        """The component over all rows at once, then the memory over the sequence."""
        rows = first_BT.shape
        flat: dict[Any, Any] = {AUX: mapping[AUX]} if AUX in mapping else {}
        for key in self.in_keys:
            write_key(flat, key, read_key(mapping, key).flatten(0, 1))
        result = self.module(flat)
        for name in self.reports:
            if name in result:
                add_report(mapping, mapping, name, result[name])
        first_key, *others = self.out_keys
        x_BTF = read_key(result, first_key).flatten(1).unflatten(0, rows)
        y, after = self.state_manager.unroll(x_BTF, self._state(mapping, rows[0]), first_BT)
        write_key(mapping, first_key, y)
        for key in others:
            write_key(mapping, key, read_key(result, key).unflatten(0, rows))
        mapping.update({self._key(name): tensor for name, tensor in after.items()})
        return mapping

    def _state(self, mapping: Any, batch: int) -> State:
        """The manager's state in a mapping, by name; what is absent is initial."""
        initial = self.state_manager.initial_state(batch)
        found = {name: mapping.get(self._key(name), None) for name in initial}
        return {name: start if found[name] is None else found[name] for name, start in initial.items()}

    def _key(self, name: str) -> str:
        return f"{self.name}/{name}"

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the component and of the manager."""
        self.state_manager.train(mode)
        return super().train(mode)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Those of the component, then those of the manager."""
        memo = set() if memo is None else memo
        yield from super().named_modules(memo, prefix, remove_duplicate)
        below = f"{prefix}.{MANAGER}" if prefix else MANAGER
        yield from self.state_manager.named_modules(memo, below, remove_duplicate)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self.state_manager._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        self.state_manager.state_dict(destination=destination, prefix=f"{prefix}{MANAGER}.", keep_vars=keep_vars)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        below = f"{prefix}{MANAGER}."
        super()._load_from_state_dict({k: v for k, v in state_dict.items() if not k.startswith(below)}, prefix, *rest)
        _load(self.state_manager, below, state_dict, *rest)


def _at(mapping: Any, keys: Sequence[Key], t: int) -> Any:
    """The entries of one step: those of `keys`, or all of a TensorDict; with a sink of its own where there is one."""
    if isinstance(mapping, TensorDictBase):
        return mapping[:, t].copy()
    step: dict[Any, Any] = {AUX: {}} if AUX in mapping else {}
    for key in keys:
        write_key(step, key, read_key(mapping, key)[:, t])
    return step


def _first(mapping: Any, key: str) -> Tensor:
    """The state before the first step: a TensorDict holds that of every step."""
    tensor: Tensor = mapping[key]
    return tensor[:, 0] if isinstance(mapping, TensorDictBase) else tensor


def _has(mapping: Any, key: Key) -> bool:
    try:
        return isinstance(read_key(mapping, key), Tensor)
    except KeyError:
        return False


def _add_reports(mapping: Any, results: Sequence[Any], names: Sequence[str]) -> None:
    """What was reported at each step, as its mean over them."""
    sinks = [result.get(AUX, None) or {} for result in results if not isinstance(result, TensorDictBase)]
    for name in sinks[0] if sinks else ():
        add_report(mapping, mapping, name, torch.stack([sink[name] for sink in sinks]).mean(0))
    for name in names:
        if name in results[0].keys():  # noqa: SIM118 - a TensorDict is no dict
            add_report(mapping, mapping, name, torch.stack([result[name].mean() for result in results]).mean())


def _load(module: nn.Module, prefix: str, state_dict: Mapping[str, Any], *rest: Any) -> None:
    """What `load_state_dict` does below a module."""
    module._load_from_state_dict(state_dict, prefix, *rest)
    for name, child in module._modules.items():
        if child is not None:
            _load(child, f"{prefix}{name}.", state_dict, *rest)
