"""How a policy's calls run: in reduced precision, through torch.compile, channels last; `auto` measures and decides.

In: the section `execution` and the function behind a call. Out: what is called in place of its `Program`. Parameters,
their names and everything stored are the same under all settings.
"""

from __future__ import annotations

import copy
import logging
import time
import types
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from policysmith.compile.container import ComponentContainer
from policysmith.compile.exclusive import exclusive
from policysmith.compile.executors import Executor, ParallelExecutor, SequentialExecutor
from policysmith.compile.measured_choice import Choice, Trials, alike, drew, fastest
from policysmith.compile.program import Program
from policysmith.compile.runner import Body, Runs, Values
from policysmith.compile.step import Step, run_steps
from policysmith.graph.plan import Plan
from policysmith.ops.leaf_function import leaf_function
from policysmith.policy.sections import Execution, decode_execution

__all__ = ["Branched", "Executed", "PolicyManner", "Runtime"]

AMP_DTYPE = torch.bfloat16  # the range of float32, so gradients need no scaling; float16 would, in every trainer
REUSED_MEMORY = ("reduce-overhead", "max-autotune")  # modes with CUDA graphs: a call overwrites the last one's results

log = logging.getLogger(__name__)


@leaf_function
def channels_last(x: Tensor) -> Tensor:
    """Planes (B, C, H, W) laid out as B, H, W, C; other tensors as they are. A tracer keeps this as one call."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 and x.is_floating_point() else x


@leaf_function
def full_precision(x: Tensor) -> Tensor:
    """Half-precision numbers as float32. A tracer keeps this as one call."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class Host(Protocol):
    """A policy, as far as its calls' ways to run need to know it."""

    runtime: Runtime

    @property
    def plan(self) -> Plan:
        """What is computed from what; its inputs come first among the tensors of a call."""

    @property
    def components(self) -> ComponentContainer:
        """What is run."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """Everything that may learn."""

    def buffers(self) -> Iterable[Tensor]:
        """Everything else that is stored."""

    def eval(self) -> Self:
        """Leave the training mode."""

    def _forward_leaves(self, leaves: Sequence[Tensor]) -> Any:
        """The whole network on leaves of observations."""


class Runtime:
    """What a policy runs by: `settings`, and what `auto` came to on each device (`chosen`).

    It never changes: other settings are another runtime with nothing compiled yet, so precision is always set before
    compilation. `timer` gives seconds. `executor` runs the steps, or a container's components.
    """

    def __init__(self, settings: Execution, timer: Callable[[], float] = time.perf_counter) -> None:
        self.settings, self.timer = settings, timer
        self.executor: Executor = ParallelExecutor() if settings.executor == "parallel" else SequentialExecutor()
        self.chosen: dict[torch.device, Choice] = {}

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> Runtime:
        """The runtime of a section `execution`; raises `ConfigError`, warns of settings that defeat each other."""
        decoded = decode_execution(settings)
        if decoded.compile and decoded.compile_dynamic and decoded.compile_mode == "reduce-overhead":
            warnings.warn(
                "execution: compile_mode reduce-overhead records CUDA graphs, which dynamic shapes prevent; "
                "set compile_dynamic: false or another mode",
                stacklevel=4,
            )
        return cls(decoded)

    def lay_out(self, module: nn.Module) -> None:
        """Give every 2-D convolution's weight the memory format of the settings; its values and name stay."""
        layout = torch.channels_last if self.settings.channels_last else torch.contiguous_format
        for layer in module.modules():
            weight = layer._parameters.get("weight")
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and weight is not None:
                weight.data = weight.data.contiguous(memory_format=layout)

    def inputs(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Observations as the network reads them."""
        return [channels_last(tensor) for tensor in tensors] if self.settings.channels_last else list(tensors)

    def outputs(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """What the network gives, as sampling, losses and callers want it: float32."""
        return [full_precision(tensor) for tensor in tensors] if self.settings.amp else list(tensors)

    def branches(self, steps: Sequence[Step]) -> bool:
        """Whether steps may run side by side: asked for, and there are some that do not need each other."""
        return isinstance(self.executor, ParallelExecutor) and self.executor.can_branch(steps)

    def trials(self) -> Trials:
        """A new record of which manner was faster."""
        return Trials(isinstance(self.executor, ParallelExecutor) and self.executor.force, self.timer)

    def region(self, policy: Host, leaves: Sequence[Tensor]) -> AbstractContextManager[object]:
        """The precision for modules that are run one by one, or by someone else's compiler."""
        if not self.settings.amp:
            return nullcontext()
        device = leaves[0].device
        return self.precision(device, self._traced(device) if is_compiling() else self.choice(policy, leaves))

    def precision(self, device: torch.device, choice: Choice) -> AbstractContextManager[object]:
        """Autocast, where it was chosen."""
        return torch.autocast(device.type, AMP_DTYPE) if choice.amp else nullcontext()

    def choice(self, policy: Host, leaves: Sequence[Tensor]) -> Choice:
        """What runs where these observations are; the first ones there decide about `auto`, for every call."""
        device = leaves[0].device
        known = self.chosen.get(device)
        if known is None:
            with exclusive(self):
                known = self.chosen.get(device) or self._decide(policy, leaves, device)
                self.chosen[device] = known
        return known

    def _traced(self, device: torch.device) -> Choice:
        """Nothing is measured while someone compiles: what is not decided yet stays off."""
        return self.chosen.get(device) or Choice(self.settings.amp is True, self.settings.compile is True)

    def _decide(self, policy: Host, leaves: Sequence[Tensor], device: torch.device) -> Choice:
        options = [Choice(a, c) for c in _wishes(self.settings.compile) for a in _wishes(self.settings.amp)]
        if len(options) == 1:
            return options[0]
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            calls = {option: _trial(policy, leaves, self._fixed(option)) for option in options}
            chosen, times = fastest(calls, self.timer, lambda: _synchronize(device))
        shown = ", ".join(f"{option} {seconds * 1e3:.3g} ms" for option, seconds in times.items())
        log.info("%s, %d rows: %s; takes %s", device, len(leaves[0]), shown, chosen)
        return chosen

    def _fixed(self, option: Choice) -> Execution:
        return replace(self.settings, amp=option.amp, compile=option.compile)


class PolicyManner:
    """How a policy's calls run: as its runtime says."""

    def __init__(self, policy: Host, runtime: Runtime) -> None:
        self.policy, self.runtime = policy, runtime

    def runs(self, body: Body) -> Runs:
        """The emitted program alone unless the settings ask for more."""
        settings = self.runtime.settings
        inner = Executed(self, body) if settings.amp or settings.compile else body.program()
        return Branched(self, inner, body) if self.runtime.branches(body.steps) else inner

    def region(self, tensors: Sequence[Tensor]) -> AbstractContextManager[object]:
        """The precision for steps that are run one by one; leaves of the observation are the first tensors."""
        return self.runtime.region(self.policy, self.leaves_of(tensors))

    def leaves_of(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Those of a call's tensors that are leaves of the observation."""
        return tensors[: len(self.policy.plan.inputs)]


class Executed:
    """One call of a policy under a runtime; it stands where a `Program` would."""

    def __init__(self, manner: PolicyManner, body: Body) -> None:
        self._manner, self._runtime, self._body = manner, manner.runtime, body
        self._made: Program | None = None
        self._made_by_compiler: Callable[..., Any] | None = None

    def run(self, *tensors: Tensor) -> Any:
        """The call, as it was chosen for the device of its first tensor."""
        choice = self._runtime.choice(self._manner.policy, self._manner.leaves_of(tensors))
        function = self._compiled if choice.compile else self._program.run
        with self._runtime.precision(tensors[0].device, choice):
            return function(*tensors)

    @property
    def code(self) -> str:
        """The source of the program that is run, or that was handed to the compiler."""
        chosen = {str(device): str(choice) for device, choice in self._runtime.chosen.items()}
        amp, compiled = (str(s).lower() for s in (self._runtime.settings.amp, self._runtime.settings.compile))
        return f"# amp: {amp}, compile: {compiled}; chosen: {chosen}\n{self._program.code}"

    @property
    def _program(self) -> Program:
        if self._made is None:
            with exclusive(self._manner.policy.components):
                self._made = self._made or self._body.program()
        return self._made

    @property
    def _compiled(self) -> Callable[..., Any]:
        if self._made_by_compiler is None:
            with exclusive(self._manner.policy.components):
                self._made_by_compiler = self._made_by_compiler or self._compile()
        return self._made_by_compiler

    def _compile(self) -> Callable[..., Any]:
        """The slow twin compiled: by itself, never as a module, so that no name in a checkpoint changes."""
        settings = self._runtime.settings
        compiled = torch.compile(
            _own_code(self._body.function()),
            dynamic=settings.compile_dynamic,
            backend=settings.compile_backend,
            mode=settings.compile_mode,
        )
        if settings.compile_mode not in REUSED_MEMORY:
            return compiled
        return lambda *tensors: _copied(compiled(*tensors))


class Branched:
    """One call of a policy that may run its steps side by side; it stands where a `Program` would."""

    def __init__(self, manner: PolicyManner, program: Runs, body: Body) -> None:
        assert isinstance(manner.runtime.executor, ParallelExecutor)
        self._manner, self._program, self._body = manner, program, body
        self._executor = manner.runtime.executor
        self._trials = manner.runtime.trials()
        self._side_by_side = body.function(self._executor.run_steps)

    def run(self, *tensors: Tensor) -> Any:
        """The call, in the manner that was found faster for tensors like these."""
        if self._executor.stays_in_order():
            return self._program.run(*tensors)
        return self._trials.run(
            alike(tensors),
            lambda: self._probe(tensors),
            lambda: self._program.run(*tensors),
            lambda: self._branch(self._side_by_side, tensors),
            tensors[0].device,
        )

    @property
    def code(self) -> str:
        """The source of the program in order."""
        return f"# executor: parallel, where it measures faster than this\n{self._program.code}"

    def _branch(self, body: Callable[..., Any], tensors: Sequence[Tensor]) -> Any:
        with self._manner.region(tensors):
            return body(*tensors)

    def _probe(self, tensors: Sequence[Tensor]) -> tuple[Any, bool]:
        """The call, module by module, and whether the network (not the sampler after it) drew random numbers."""
        found: list[bool] = []

        def run(steps: Sequence[Step], values: Values) -> Values:
            result, drawn = drew(lambda: run_steps(steps, values), tensors[0].device)
            found.append(drawn)
            return result

        return self._branch(self._body.function(run), tensors), found[0]


def _trial(policy: Host, leaves: Sequence[Tensor], settings: Execution) -> Callable[[], None]:
    """The whole network on these observations under fixed settings, by a twin that shares its weights.

    The twin is in eval mode and the policy itself is not called: no statistic moves, no flag changes.
    """
    shared = {id(tensor): tensor for tensor in (*policy.parameters(), *policy.buffers())}
    twin = copy.deepcopy(policy, {**shared, id(policy.runtime): Runtime(settings)}).eval()

    def call() -> None:
        with torch.no_grad():
            twin._forward_leaves(leaves)

    return call


def _wishes(setting: bool | str) -> tuple[bool, ...]:
    return (False, True) if setting == "auto" else (bool(setting),)


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _own_code(body: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a code object of its own.

    torch.compile keeps what it compiled with the code object, at most eight versions. The bodies of all calls of all
    policies come from one piece of code, and from the ninth on would silently not be compiled.
    """
    assert isinstance(body, types.FunctionType)
    return types.FunctionType(
        body.__code__.replace(), body.__globals__, body.__name__, body.__defaults__, body.__closure__
    )


def _copied(result: Any) -> Any:
    if isinstance(result, Tensor):
        return result.clone()
    return type(result)(_copied(item) for item in result)
