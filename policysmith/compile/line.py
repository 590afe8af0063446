"""A line of components, run one after the other over a mapping, with as little between them as can be.

In: live components in order, and a mapping. Out: the mapping, written to, as if each had been called with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensordict import TensorDict
from torch import Tensor, nn
from torch.compiler import is_compiling

from policysmith.compile.guards import GLOBAL_HOOKS, has_hooks
from policysmith.compile.runner import Runner, Runs, Task
from policysmith.compile.step import Step
from policysmith.graph.component import AUX, Component, TensorComponent, read_key, write_key

__all__ = ["Line"]

WARM = 16  # runs before code is made for a line: making it costs more than many runs
NOTHING: Mapping[str, Any] = {}


class Line:
    """Components whose `forward` is `Component`'s own are computed directly, the others are called with the mapping.

    What they write to a TensorDict is written in one go before the next one is called, or at the end: each write of its
    own costs more than a small component. A line of adopted modules alone that has run a few times runs as a `Program`,
    with whose guards it stays live. Nothing is kept between calls.
    """

    def __init__(self, store: nn.ModuleDict, order: Sequence[str]) -> None:
        self._store, self._runs = store, 0
        self._entries = [_Entry(name, store[name]) for name in order]
        self._fixed = nn.ModuleDict()  # a swap is answered by another line: this one's code keeps its components
        self._fixed._modules.update({entry.name: entry.component for entry in self._entries})
        self._hooks = [hooks for entry in self._entries if entry.direct for hooks in entry.hooks]
        self._flat = all(isinstance(key, str) for entry in self._entries for key in (*entry.in_keys, *entry.out_keys))
        self._hooked = any(GLOBAL_HOOKS) or any(has_hooks(entry.component) for entry in self._entries)
        self._outputs = [key for entry in self._entries for key in entry.out_keys]
        written = dict.fromkeys(self._outputs)
        own = [key for entry in self._entries for key in entry.in_keys if key in entry.out_keys]
        read = [key for entry in self._entries for key in entry.in_keys if key not in written]
        self._inputs = list(dict.fromkeys([*read, *own]))
        self._adopted = self._flat and all(entry.adopted for entry in self._entries) and bool(self._inputs)
        steps = [Step(self._fixed, entry.name, entry.in_keys, entry.out_keys) for entry in self._entries]
        self.runner: Runner[None] = Runner(store, steps, lambda _: self._task())

    @property
    def components(self) -> list[nn.Module]:
        """What it runs, in order."""
        return [entry.component for entry in self._entries]

    def is_stale(self) -> bool:
        """Whether someone hooked into a component that is not called with the mapping, or hooked out."""
        return self._hooked or any(GLOBAL_HOOKS) or any(self._hooks)

    def run(self, mapping: Any) -> Any:
        """Run every component; an exception carries a note that names it."""
        has_sink = isinstance(mapping, dict) and AUX in mapping
        ready = self._adopted and not has_sink and not is_compiling() and self._is_warm()
        if ready and (program := self._program()) is not None:
            try:
                outputs = program.run(*[read_key(mapping, key) for key in self._inputs])
            except Exception:
                return self._one_by_one(mapping, has_sink)  # whose exception says where
            mapping.update(dict(zip(self._outputs, _where(mapping, outputs), strict=True)))
            return mapping
        return self._one_by_one(mapping, has_sink)

    def _one_by_one(self, mapping: Any, has_sink: bool) -> Any:
        late = type(mapping) is TensorDict and self._flat
        pending: dict[Any, Any] = {}
        for entry in self._entries:
            try:
                if not entry.direct:
                    _flush(mapping, pending)
                    entry.component(mapping)
                    continue
                tensors = [pending[key] if key in pending else read_key(mapping, key) for key in entry.in_keys]
                sink = entry.component.sink(mapping) if has_sink else NOTHING
                results = entry.component.results(tensors, sink, entry.out_keys)
                if late:
                    pending.update(zip(entry.out_keys, _where(mapping, results), strict=True))
                    continue
                for key, value in zip(entry.out_keys, results, strict=True):
                    write_key(mapping, key, value)
            except Exception as error:
                error.add_note(f"in component {entry.name!r}")
                raise
        _flush(mapping, pending)
        return mapping

    def _is_warm(self) -> bool:
        self._runs += 1
        return self._runs > WARM

    def _program(self) -> Runs | None:
        """The code of the line; should making it fail, it is not tried again."""
        try:
            return self.runner.program(None)
        except Exception:
            self._adopted = False
            return None

    def _task(self) -> Task:
        inputs, outputs = self._inputs, self._outputs
        return Task(
            len(inputs),
            outputs,
            lambda tensors: dict(zip(inputs, tensors, strict=True)),
            lambda values, _: tuple(values[key] for key in outputs),
        )


class _Entry:
    """A component of a line. `direct`: its `forward` is known, so it is left out; `adopted`: so is its `compute`."""

    def __init__(self, name: str, component: Any) -> None:
        self.name, self.component = name, component
        self.in_keys, self.out_keys = list(component.in_keys), list(component.out_keys)
        self.direct = type(component).forward is Component.forward and not has_hooks(component)
        self.adopted = self.direct and type(component).compute is TensorComponent.compute
        self.hooks = (
            component._forward_hooks,
            component._forward_pre_hooks,
            component._backward_hooks,
            component._backward_pre_hooks,
        )


def _where(mapping: Any, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The tensors on a TensorDict's device, where it has one: it would move them when they are written."""
    device = mapping.device if type(mapping) is TensorDict else None
    return tensors if device is None else [x if x.device == device else x.to(device) for x in tensors]


def _flush(mapping: Any, pending: dict[Any, Any]) -> None:
    if pending:
        mapping.update(pending)
        pending.clear()
