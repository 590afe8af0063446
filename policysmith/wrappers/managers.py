"""State managers: what a `StatefulModule` is told by what it should remember.

In: a module that manages, a part with memory, or the description of one. Out: something with keys and a first state.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

import policysmith.parts  # noqa: F401 - importing registers the memories that a name may mean
from policysmith.errors import WiringError
from policysmith.graph.component import Component, Key
from policysmith.graph.memory_component import has_memory
from policysmith.ops.init import initialize
from policysmith.ops.reset_state import State
from policysmith.registry import part

__all__ = ["MANAGER", "MemoryManager", "as_manager"]

MANAGER = "state_manager"


class MemoryManager(Component):
    """A part with memory as a manager of state: it reads an output (B, *event), and writes its own in its place."""

    def __init__(self, memory: nn.Module, key: Key) -> None:
        super().__init__()
        self.memory = memory
        self.names = list(memory.initial_state(1))  # type: ignore[operator]
        self.in_keys = [key, *(f"current_{name}" for name in self.names)]
        self.out_keys = [key, *(f"next_{name}" for name in self.names)]

    def initial_state(self, batch: int) -> State:
        """The memory's own."""
        state: State = self.memory.initial_state(batch)  # type: ignore[operator]
        return state

    def compute(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The output of one step, and the state after."""
        y, after = self.memory(tensors[0].flatten(1), dict(zip(self.names, tensors[1:], strict=True)))
        return y, *(after[name] for name in self.names)

    def unroll(self, x_BTF: Tensor, state: State, first_BT: Tensor) -> tuple[Tensor, State]:
        """The outputs of T steps, and the state after the last."""
        result: tuple[Tensor, State] = self.memory.unroll(x_BTF, state, first_BT)  # type: ignore[operator]
        return result


def as_manager(given: Any, key: Key, out_shape: tuple[int, ...]) -> Any:
    """What the argument stands for; `key` is of the output that a memory reads, `out_shape` of one row there.

    Raises `WiringError` for what manages nothing.
    """
    manager = given if isinstance(given, nn.Module) else _built(given, out_shape)
    if has_memory(manager) and not hasattr(manager, "in_keys"):
        manager = MemoryManager(manager, key)
    lacks = [name for name in ("in_keys", "out_keys", "initial_state") if not hasattr(manager, name)]
    if lacks:
        raise WiringError(f"{MANAGER}: {type(manager).__name__} has no {' and no '.join(lacks)}")
    return manager


def _built(description: Any, out_shape: tuple[int, ...]) -> nn.Module:
    spec = part("component", description)
    if not spec.entry.traits.get("stateful"):
        raise WiringError(f"{MANAGER}: {spec.type!r} keeps nothing between steps; use gru, lstm or mingru")
    if not out_shape:
        raise WiringError(f"{MANAGER}: {spec.type!r} reads features: out_shape must tell the shape of a row of them")
    memory: nn.Module = spec.build(flat_features=math.prod(out_shape), features=math.prod(out_shape))
    initialize(memory)
    return memory
