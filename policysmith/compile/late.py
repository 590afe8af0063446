"""Plans whose shapes wait for inputs: a graph of calls in their order, and how it learns its shapes.

In: calls, the modules, and inputs of any kind: tensors, or what a module takes besides. Out: the plan with every
value's spec, from a first real run or from a pass of a twin on meta tensors, and lazy modules made.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy

from policysmith.compile.module_steps import ModuleStep, module_steps
from policysmith.errors import ShapeError
from policysmith.graph.assemble import drawing
from policysmith.graph.call import Call
from policysmith.graph.component import TensorComponent
from policysmith.graph.measure import PLAN_BATCH, TensorSpec

__all__ = ["CallNode", "LatePlan", "StepError", "dry_run", "first_run", "has_lazy", "why"]


@dataclass(frozen=True)
class CallNode:
    """One call in a late plan: of the module called `store_name`, or of an `operation`; `out_keys` is what it gives."""

    store_name: str
    call: Call
    out_keys: tuple[str, ...]
    operation: nn.Module | None = field(default=None, compare=False)

    takes_aux: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """What tells it from other calls: the first value that it gives."""
        return self.out_keys[0]

    @property
    def sources(self) -> tuple[str, ...]:
        """The values that it reads."""
        return self.call.edges

    def store(self, modules: nn.ModuleDict) -> nn.ModuleDict:
        """Where its module is looked up under `store_name`: an operation has no weights, and is none of the model's."""
        return modules if self.operation is None else nn.ModuleDict({self.store_name: self.operation})

    def component(self, module: nn.Module) -> TensorComponent:
        """The module, called as it says."""
        return TensorComponent(module, self.sources, self.out_keys, call=self.call)


@dataclass(frozen=True)
class LatePlan:
    """A graph of calls: its inputs by name, the calls in order, and, once inputs were seen, every value's spec.

    `seed` is for weights whose shapes follow from the inputs. `edges` has an entry for each tensor: one row of it where
    its first axis is the batch, which is that of the first input.
    """

    inputs: tuple[str, ...]
    nodes: tuple[CallNode, ...]
    seed: int | None = None
    edges: Mapping[str, TensorSpec] = field(default_factory=dict)

    late: ClassVar[bool] = True


class StepError(ShapeError):
    """A step of a graph failed; `index` is its number."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index

    def __reduce__(self) -> Any:
        return type(self), (str(self), self.index)


def has_lazy(module: nn.Module) -> bool:
    """Whether a module has weights that wait for inputs."""
    return any(is_lazy(tensor) for part in module.modules() for tensor in _own(part))


def first_run(plan: LatePlan, modules: nn.ModuleDict, tensors: Sequence[Any]) -> tuple[LatePlan, dict[str, Any]]:
    """Run the modules themselves, step by step; the plan with its edges, and all values. Raises `StepError`."""
    values: dict[str, Any] = dict(zip(plan.inputs, tensors, strict=True))
    with _waking(modules, lambda path: drawing(plan.seed, f"{path}/lazy")):
        _run_located(plan, module_steps(plan.nodes, modules, {}), values)
    return replace(plan, edges=_edges(values, _batch(tensors))), values


def dry_run(plan: LatePlan, modules: nn.ModuleDict, inputs: Mapping[str, TensorSpec]) -> LatePlan:
    """Run a twin of the modules, which has no memory; then wake the lazy ones. Raises `StepError`."""
    with torch.device("meta"):
        tensors = [torch.empty((PLAN_BATCH, *inputs[name].shape), dtype=inputs[name].dtype) for name in plan.inputs]
    calls, values = _meta_pass(plan, modules, tensors)
    for name, (args, kwargs) in calls.items():
        module: Any = modules.get_submodule(name)
        with drawing(plan.seed, f"{name}/lazy"):
            module._infer_parameters(module, args, kwargs)
    return replace(plan, edges=_edges(values, PLAN_BATCH))


def why(plan: LatePlan, modules: nn.ModuleDict, tensors: Sequence[Any]) -> StepError | None:
    """The step at which a call with these inputs fails, as far as shapes tell; nothing real is run."""
    try:
        _meta_pass(plan, modules, [_meta(value) if isinstance(value, Tensor) else value for value in tensors])
    except StepError as error:
        return error
    except Exception:  # a module that can't be copied: then nothing is known
        return None
    return None


def _run_located(plan: LatePlan, steps: Sequence[ModuleStep], values: dict[str, Any]) -> None:
    """Run steps one by one; an error tells its step's number, name and place, and what it read."""
    for index, (node, step) in enumerate(zip(plan.nodes, steps, strict=True)):
        try:
            step(values)
        except Exception as error:
            read = [f"{name} {_shown(values[name])}" for name in node.sources]
            what = str(error).strip().split("\n", 1)[0] or type(error).__name__
            where = f" at {node.call.place}" if node.call.place else ""
            found = f"; it read {', '.join(read)}" if read else ""
            raise StepError(f"step {index} ({node.call.title}){where} failed: {what}{found}", index) from error


@contextmanager
def _waking(modules: nn.Module, stream: Callable[[str], Any]) -> Any:
    """While lazy modules that are called draw their weights from streams of their own, by their path."""
    with ExitStack() as handles:
        for path, module in modules.named_modules():
            if _is_lazy(module):
                hook = _wake(path, stream)
                handle = module.register_forward_pre_hook(hook, prepend=True, with_kwargs=True)
                handles.callback(handle.remove)
        yield


def _wake(path: str, stream: Callable[[str], Any]) -> Any:
    def hook(module: Any, args: Any, kwargs: Any) -> None:
        if any(map(is_lazy, _own(module))):
            with stream(path):
                module.initialize_parameters(*args, **kwargs)

    return hook


def _meta_pass(plan: LatePlan, modules: nn.ModuleDict, tensors: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What lazy modules were called with, by path, and all values."""
    twin: nn.ModuleDict = copy.deepcopy(modules, _meta_memo(modules))
    calls: dict[str, Any] = {}
    for name, module in twin.named_modules():
        if isinstance(module, _NormBase):
            module.eval()  # in training it may read its counter, which has no memory here
        if _is_lazy(module):
            module.register_forward_pre_hook(
                lambda _, args, kwargs, name=name: calls.setdefault(name, (args, kwargs)) and None,
                prepend=True,
                with_kwargs=True,
            )
    values: dict[str, Any] = dict(zip(plan.inputs, tensors, strict=True))
    with torch.no_grad(), torch.device("meta"):
        _run_located(plan, module_steps(plan.nodes, twin, {}), values)
    return calls, values


def _meta_memo(modules: nn.Module) -> dict[int, Any]:
    """What copying takes for each tensor, so that none is copied: one of the same shape without memory."""
    return {id(tensor): _meta(tensor) for part in modules.modules() for tensor in _own(part)}


def _meta(tensor: Tensor) -> Tensor:
    if is_lazy(tensor):
        kind: Any = UninitializedParameter if isinstance(tensor, UninitializedParameter) else UninitializedBuffer
        return kind(device=torch.device("meta"), dtype=tensor.dtype)
    meta = torch.empty_like(tensor, device="meta")
    return nn.Parameter(meta, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else meta


def _is_lazy(module: nn.Module) -> bool:
    return isinstance(module, LazyModuleMixin) and any(map(is_lazy, _own(module)))


def _own(module: nn.Module) -> list[Tensor]:
    return [tensor for tensor in (*module._parameters.values(), *module._buffers.values()) if tensor is not None]


def _batch(tensors: Sequence[Any]) -> int | None:
    first = next((value for value in tensors if isinstance(value, Tensor) and value.dim()), None)
    return None if first is None else first.shape[0]


def _edges(values: Mapping[str, Any], batch: int | None) -> dict[str, TensorSpec]:
    return {name: _spec(value, batch) for name, value in values.items() if isinstance(value, Tensor)}


def _spec(tensor: Tensor, batch: int | None) -> TensorSpec:
    in_rows = tensor.dim() > 0 and tensor.shape[0] == batch
    return TensorSpec(tuple(tensor.shape[1:] if in_rows else tensor.shape), tensor.dtype)


def _shown(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
