"""The runner: what every host of a graph holds to run its steps, by made code or one by one.

In: the steps, and for each kind of call a `Task`. Out: a program for each call, made when it is first wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from torch import Tensor, nn
from torch.compiler import is_compiling

from policysmith.compile.exclusive import exclusive
from policysmith.compile.program import Program
from policysmith.compile.step import Step, run_steps, steps_for
from policysmith.graph.component import AUX

__all__ = ["Body", "Manner", "Runner", "Runs", "Task", "Values"]

C = TypeVar("C", bound=Hashable)
Values = dict[str, Any]
RunSteps = Callable[[Sequence[Step], Values], Values]


class Task(NamedTuple):
    """What one call asks for: of `arity` tensors, `read` makes the values that the steps start from; `give` makes the
    result of the values after them and of the same tensors. Only the steps run that the `edges` need.
    """

    arity: int
    edges: Sequence[str]
    read: Callable[[Sequence[Tensor]], Values]
    give: Callable[[Values, Sequence[Tensor]], Any]
    inline: bool = True


class Runs(Protocol):
    """What runs a call: a `Program`, or what a manner puts in its place."""

    @property
    def run(self) -> Callable[..., Any]:
        """The call, a function of tensors."""

    @property
    def code(self) -> str:
        """The source of what runs."""


class Body:
    """The function behind a call, over the live steps that it needs."""

    def __init__(self, task: Task, steps: Sequence[Step], modules: Sequence[nn.Module], owner: nn.Module) -> None:
        self.task, self.steps = task, steps_for(steps, task.edges)
        self._modules, self._owner = modules, owner

    def function(self, run: RunSteps = run_steps, sink: dict[str, Tensor] | None = None) -> Callable[..., Any]:
        """The call module by module: the slow twin. `run` runs the steps; `sink` gets what components report."""
        read, give, steps = self.task.read, self.task.give, self.steps

        def function(*tensors: Tensor) -> Any:
            values = read(tensors)
            if sink is not None:
                values[AUX] = sink
            return give(run(steps, values), tensors)

        return function

    def program(self) -> Program:
        """The call as emitted code."""
        task = self.task
        return Program(self.function(), task.arity, self.steps, self._modules, inline=task.inline, owner=self._owner)

    @property
    def reports(self) -> bool:
        """Whether modules report while they run; losses of weights alone can be added beside the call."""
        return any(step.takes_aux or step.opaque for step in self.steps)


class Manner(Protocol):
    """How calls run."""

    def runs(self, body: Body) -> Runs:
        """What runs a call."""

    def region(self, tensors: Sequence[Tensor]) -> AbstractContextManager[object]:
        """What steps run under that are not run by `runs`."""


class _Plain:
    """By emitted code alone."""

    def runs(self, body: Body) -> Program:
        return body.program()

    def region(self, tensors: Sequence[Tensor]) -> AbstractContextManager[object]:
        return nullcontext()


class Runner(Generic[C]):
    """Runs a host's steps. `owner` holds the live modules: its lock is held while code is made, and the programs of its
    two training modes are kept apart. `task` tells what a call asks for, `modules` are further ones that tasks read.

    It never changes: other steps, or another manner, are another runner with nothing made yet. So a host exchanges its
    runner whole, and a call under way ends by the one it began with. Each program stays live by its own guards, and any
    number of threads may call. `programs` are those that were made, by training mode and call. A copy, or what comes
    out of a pickle, has the copied host's tasks and no code yet.
    """

    def __init__(
        self,
        owner: nn.Module,
        steps: Sequence[Step],
        task: Callable[[C], Task],
        manner: Manner | None = None,
        modules: Sequence[nn.Module] = (),
    ) -> None:
        self.steps, self.manner = steps, manner or _Plain()
        self._owner, self._task, self._modules = owner, task, modules
        self.programs: dict[bool, dict[C, Runs]] = _none()
        self._bodies: dict[C, Body] = {}  # of calls that report

    def program(self, call: C) -> Runs:
        """What runs a call in the present training mode."""
        program = self.programs[self._owner.training].get(call)
        return self._make(call) if program is None else program

    def run(self, call: C, tensors: Sequence[Tensor]) -> Any:
        """Make a call by its program, or, while someone else compiles or traces, module by module."""
        if is_compiling():
            return self.one_by_one(call, tensors)
        return self.program(call).run(*tensors)

    def run_reporting(self, call: C, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
        """The results of a call, and after them what components report: auxiliary losses and statistics by name."""
        sink: dict[str, Tensor] = {}
        body = self._bodies.get(call)
        if body is None:
            body = self._bodies[call] = self.body(call)
        if body.reports:
            return *self.one_by_one(call, tensors, sink=sink), sink
        results = self.run(call, tensors)
        for step in body.steps:
            step.report({AUX: sink})
        return *results, sink

    def one_by_one(
        self, call: C, tensors: Sequence[Tensor], run: RunSteps = run_steps, sink: dict[str, Tensor] | None = None
    ) -> Any:
        """Make a call module by module, with what the manner puts around it; `run` runs the steps."""
        with self.manner.region(tensors):
            return self.body(call).function(run, sink)(*tensors)

    def slow(self, call: C) -> Callable[..., Any]:
        """The slow twin of a call, module by module."""
        return self.body(call).function()

    def body(self, call: C) -> Body:
        """The function behind a call."""
        return Body(self._task(call), self.steps, self._modules, self._owner)

    def _make(self, call: C) -> Runs:
        with exclusive(self._owner):
            programs = self.programs[self._owner.training]
            if call not in programs:  # or else another thread was here first
                programs[call] = self.manner.runs(self.body(call))
            return programs[call]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "programs": _none(), "_bodies": {}}


def _none() -> dict[bool, dict[Any, Runs]]:
    return {False: {}, True: {}}
