"""A program: one function of tensors over live components, as a slow twin and as emitted code.

`body(*tensors)` is plain Python over the modules; it *is* the reference. What runs is its trace, emitted flat, and
rebuilt when a guard finds that hooks, a swap, a wrapper or another training mode have made the code stale.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, fx, nn

from policysmith.compile.emit import Emitted, emit
from policysmith.compile.exclusive import exclusive
from policysmith.compile.guards import GLOBAL_HOOKS, HooksSeen
from policysmith.compile.step import Step
from policysmith.compile.trace import trace

__all__ = ["Program"]

REBUILDS = 4  # times that one call makes its code anew before it does without


class Program:
    """A compiled function of `arity` tensors.

    `run(*tensors)` is the emitted code, `body(*tensors)` the slow twin, `code` and `graph` what was emitted.
    `modules` are further modules whose tensors `body` reads. `inline=False` keeps every module a call (the bound form).
    Any number of threads may call it: code is made by one at a time, which holds the lock of `owner`, and is published
    whole. A body that can't be traced runs as it is.
    """

    run: Callable[..., Any]

    def __init__(
        self,
        body: Callable[..., Any],
        arity: int,
        steps: Sequence[Step],
        modules: Sequence[nn.Module] = (),
        *,
        inline: bool = True,
        owner: object = None,
    ) -> None:
        self.body, self.arity, self.inline = body, arity, inline
        self._owner = self if owner is None else owner
        self._steps, self._modules = list(steps), list(modules)
        self._rebuilding = threading.local()
        self.build()

    def build(self) -> None:
        """Trace and emit anew; where a component is opaque the slow twin itself runs."""
        with exclusive(self._owner):
            if any(step.opaque for step in self._steps):
                self._made = self._slow("a component is opaque: they run one by one")
            else:
                self._made = self._fast()
            self.run = self._made.emitted.function

    @property
    def code(self) -> str:
        """The source of what runs."""
        return self._made.emitted.source

    @property
    def graph(self) -> fx.Graph | None:
        """What was traced, where anything was."""
        return self._made.graph

    def _fast(self) -> _Made:
        # All that the code is to be compared with is read before the trace: what another thread changes meanwhile is
        # then found at the first call.
        components = [step.component for step in self._steps]
        watches = [step.watch for step in self._steps]
        layers = [layer for step in self._steps for layer in step.layers]
        hooks = HooksSeen.of(
            [*(h for layer in layers for h in (layer._forward_hooks, layer._forward_pre_hooks)), *GLOBAL_HOOKS]
        )
        try:
            traced = trace(self.body, self.arity, [*components, *self._modules], inline=self.inline)
        except Exception as error:
            return self._slow(f"it can't be traced: {type(error).__name__}")
        token = object()
        return _Made(emit(traced, self.arity, watches, hooks, self._rebuild_of(token)), traced.graph, token)

    def _slow(self, reason: str) -> _Made:
        """The body itself, until the components or what makes them opaque change."""
        before = [(step.component, step.opaque) for step in self._steps]
        token = object()
        rebuild = self._rebuild_of(token)

        def run(*tensors: Tensor) -> Any:
            if [(step.component, step.opaque) for step in self._steps] != before:
                return rebuild(*tensors)
            return self.body(*tensors)

        return _Made(Emitted(run, f"# {reason}\n"), None, token)

    def _rebuild_of(self, token: object) -> Callable[..., Any]:
        return lambda *tensors, error=None: self._rebuild(token, tensors, error)

    def _rebuild(self, token: object, tensors: Sequence[Tensor], error: KeyError | None) -> Any:
        """Run anew made code; a KeyError that the code itself does not explain is the caller's, and goes on.

        Code that is stale again and again, since other threads keep changing the modules, gives way to the slow twin.
        """
        with exclusive(self._owner):
            if self._made.token is token:  # or else another thread was here first
                before = self._made.emitted.source
                self.build()
                if error is not None and self._made.emitted.source == before:
                    raise error
        depth = getattr(self._rebuilding, "depth", 0)
        if depth == REBUILDS:
            return self.body(*tensors)
        self._rebuilding.depth = depth + 1
        try:
            return self.run(*tensors)
        finally:
            self._rebuilding.depth = depth


class _Made(NamedTuple):
    """One making of a program's code; the token tells it from the ones before and after."""

    emitted: Emitted
    graph: fx.Graph | None
    token: object
