"""A graph of calls learns its shapes: from its first real inputs, or from a pass of a twin on meta tensors.

In: a plan without shapes, the modules, and inputs. Out: the plan with every value's spec, and lazy modules made.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy

from policysmith.errors import ShapeError
from policysmith.graph.assemble import drawing
from policysmith.graph.calls import Call, CallPlan, ModuleStep, run_checked, sources_of, steps_of
from policysmith.graph.measure import PLAN_BATCH, TensorSpec

__all__ = ["StepError", "dry_run", "first_run", "has_lazy", "located", "why"]


class StepError(ShapeError):
    """A step of a graph failed; `index` is its number and `call` the step."""

    def __init__(self, message: str, index: int, call: Call) -> None:
        super().__init__(message)
        self.index, self.call = index, call

    def __reduce__(self) -> Any:
        return type(self), (str(self), self.index, self.call)


def has_lazy(module: nn.Module) -> bool:
    """Whether a module has weights that wait for inputs."""
    return any(is_lazy(tensor) for part in module.modules() for tensor in _own(part))


def first_run(plan: CallPlan, modules: nn.ModuleDict, tensors: Sequence[Any]) -> tuple[CallPlan, dict[str, Any]]:
    """Run the modules themselves, step by step; the plan with its edges, and all values. Raises `StepError`."""
    values: dict[str, Any] = dict(zip(plan.inputs, tensors, strict=True))
    steps = steps_of(plan, modules)
    waking = [_Waking(modules, s.call, plan.seed) if isinstance(s, ModuleStep) else s for s in steps]
    run_checked(waking, values, located(values))
    return replace(plan, edges=_edges(values, _batch(tensors))), values


def dry_run(plan: CallPlan, modules: nn.ModuleDict, inputs: Mapping[str, TensorSpec]) -> CallPlan:
    """Run a twin of the modules, which has no memory; then wake the lazy ones. Raises `StepError`."""
    with torch.device("meta"):
        tensors = [torch.empty((PLAN_BATCH, *inputs[name].shape), dtype=inputs[name].dtype) for name in plan.inputs]
    calls, values = _meta_pass(plan, modules, tensors)
    for name, (args, kwargs) in calls.items():
        module: Any = modules.get_submodule(name)
        with drawing(plan.seed, f"{name}/lazy"):
            module._infer_parameters(module, args, kwargs)
    return replace(plan, edges=_edges(values, PLAN_BATCH))


def why(plan: CallPlan, modules: nn.ModuleDict, tensors: Sequence[Any]) -> StepError | None:
    """The step at which a call with these inputs fails, as far as shapes tell; nothing real is run."""
    try:
        _meta_pass(plan, modules, [_meta(value) if isinstance(value, Tensor) else value for value in tensors])
    except StepError as error:
        return error
    except Exception:  # a module that can't be copied: then nothing is known
        return None
    return None


def located(values: Mapping[str, Any]) -> Any:
    """How a step's error is told: its number, name and place, and what it read of `values`."""

    def failed(index: int, call: Call, error: Exception) -> StepError:
        read = [f"{name} {_shown(values[name])}" for name in sources_of(call)]
        what = str(error).strip().split("\n", 1)[0] or type(error).__name__
        where = f" at {call.place}" if call.place else ""
        found = f"; it read {', '.join(read)}" if read else ""
        return StepError(f"step {index} ({call.title}){where} failed: {what}{found}", index, call)

    return failed


class _Waking(ModuleStep):
    """A call that first lets lazy modules draw from a stream of their own."""

    def __init__(self, store: nn.ModuleDict, call: Call, seed: int | None) -> None:
        super().__init__(store, call)
        self._seed = seed

    def compute(self, values: Mapping[str, Any]) -> Any:
        handles = []
        for name, module in self.store[self.name].named_modules():
            if _is_lazy(module):
                path = f"{self.name}.{name}" if name else self.name
                handles.append(
                    module.register_forward_pre_hook(_wake(path, self._seed), prepend=True, with_kwargs=True)
                )
        try:
            return super().compute(values)
        finally:
            for handle in handles:
                handle.remove()


def _wake(path: str, seed: int | None) -> Any:
    def hook(module: Any, args: Any, kwargs: Any) -> None:
        if any(map(is_lazy, _own(module))):
            with drawing(seed, f"{path}/lazy"):
                module.initialize_parameters(*args, **kwargs)

    return hook


def _meta_pass(plan: CallPlan, modules: nn.ModuleDict, tensors: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
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
        run_checked(steps_of(plan, twin), values, located(values))
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
