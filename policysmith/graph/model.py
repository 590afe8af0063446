"""GraphModel: a wired graph of modules as one `nn.Module`; `build_model` makes it from a configuration.

In: tensors, positional or by name. Out: one tensor, a tuple, or a dict, as the configuration says.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from policysmith.config.load import Document, load
from policysmith.config.migrate import migrate
from policysmith.config.options import failures
from policysmith.errors import ConfigError, Problem, ShapeError, did_you_mean
from policysmith.graph.assemble import as_components, build_modules
from policysmith.graph.component import Component
from policysmith.graph.plan import NodePlan, Plan, TensorSpec, make_plan
from policysmith.graph.program import Program, Step, run_steps, steps_for
from policysmith.graph.spec import decode_components
from policysmith.graph.view import bare
from policysmith.registry import Registry, default_registry

__all__ = ["GraphModel", "build_model"]

Outputs = str | tuple[str, ...] | dict[str, str]
TOP_KEYS = ("format", "seed", "inputs", "components", "outputs")


class GraphModel(nn.Module):
    """A directed acyclic graph of modules; parameters are named `graph_modules.<name>.…`.

    Call it with the tensors of `inputs`, positional or by name, (B, *event) each. It returns the edge named by
    `outputs`, a tuple of edges, or a dict result name → edge. What modules and wrappers report besides is dropped.
    `seed` is for what wrappers draw.
    """

    def __init__(self, plan: Plan, modules: Mapping[str, nn.Module], outputs: Outputs, seed: int | None = None) -> None:
        super().__init__()
        self.plan, self.outputs = plan, outputs
        self.inputs = tuple(plan.inputs)
        self.graph_modules = nn.ModuleDict({node.name: modules[node.name] for node in plan.nodes})
        self._views = as_components(plan, modules, seed)
        self._programs: dict[tuple[bool, bool], Program] = {}

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """Run the graph; ShapeError-free inputs are the caller's promise, names are checked."""
        tensors = args if len(args) == len(self.inputs) and not kwargs else self._bind(args, kwargs)
        if torch.compiler.is_compiling():
            return self.slow(*tensors)
        return self.program().run(*tensors)

    def bound(self) -> Any:
        """The graph as a straight line of module calls: a function of the inputs; hooks on any module work."""
        return self.program(inline=False).run

    @property
    def components(self) -> dict[str, Component]:
        """The modules as components, in their wrappers."""
        return {step.name: step.live for step in self._steps()}

    @property
    def code(self) -> str:
        """The source that a call runs."""
        return self.program().code

    def program(self, inline: bool = True) -> Program:
        """The compiled form for the present training mode."""
        key = (self.training, inline)
        if key not in self._programs:
            steps = steps_for(self._steps(), self._wanted())
            self._programs[key] = Program(lambda *x: self._run(steps, x), len(self.inputs), steps, inline=inline)
        return self._programs[key]

    def slow(self, *tensors: Tensor) -> Any:
        """The slow twin of a call, module by module (for tests and torch.compile)."""
        return self._run(self._steps(), tensors)

    def _steps(self) -> list[_ModuleStep]:
        return [_ModuleStep(self.graph_modules, node, self._views) for node in self.plan.nodes]

    def _run(self, steps: Sequence[Step], tensors: Sequence[Tensor]) -> Any:
        values = run_steps(steps, dict(zip(self.inputs, tensors, strict=True)))
        if isinstance(self.outputs, str):
            return values[self.outputs]
        if isinstance(self.outputs, tuple):
            return tuple(values[name] for name in self.outputs)
        return {result: values[name] for result, name in self.outputs.items()}

    def _wanted(self) -> Sequence[str]:
        if isinstance(self.outputs, str):
            return [self.outputs]
        return list(self.outputs.values()) if isinstance(self.outputs, dict) else list(self.outputs)

    def _bind(self, args: Sequence[Tensor], kwargs: Mapping[str, Tensor]) -> list[Tensor]:
        if len(args) > len(self.inputs):
            raise ShapeError(f"{len(args)} positional inputs for {len(self.inputs)}: {', '.join(self.inputs)}")
        given = dict(zip(self.inputs, args, strict=False))
        for name, tensor in kwargs.items():
            if name not in self.inputs:
                raise ShapeError(f"unexpected input {name!r}{did_you_mean(name, self.inputs)}")
            if name in given:
                raise ShapeError(f"input {name!r} is given twice")
            given[name] = tensor
        missing = [name for name in self.inputs if name not in given]
        if missing:
            raise ShapeError(f"missing input {', '.join(map(repr, missing))}")
        return [given[name] for name in self.inputs]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_programs": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphModel:
        fresh = type(self).__new__(type(self))
        memo[id(self)] = fresh
        fresh.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        return fresh


class _ModuleStep(Step):
    """A step over a plain module, whose `views` as components are made anew when another module takes its place."""

    def __init__(self, modules: nn.ModuleDict, node: NodePlan, views: dict[str, Component]) -> None:
        super().__init__(modules, node.name, node.sources, node.spec.out_keys)
        self._node, self._views = node, views

    @property
    def live(self) -> Any:
        """The live module as a component, in its wrappers."""
        module = self.store[self.name]
        if bare(self._views[self.name]) is not module:
            self._views[self.name] = self._node.component(module)
        return self._views[self.name]


def build_model(
    config: Any,
    registry: Registry | None = None,
    *,
    inputs: Mapping[str, Sequence[int] | TensorSpec] | None = None,
    seed: int | None = None,
    base_dir: str | Path | None = None,
) -> GraphModel:
    """Build a graph from `{inputs, components, outputs}`: a path, a mapping, or a DictConfig.

    `inputs` maps names to event shapes (no batch axis) and adds to those in the configuration; `outputs` is an edge's
    name, a list, or a mapping result → edge. Raises `ConfigError` with every problem found.
    """
    if base_dir is not None and isinstance(config, str | Path):
        config = Path(base_dir) / config
    document = load(config)
    data = migrate(document.data)
    problems: list[Problem] = []

    def report(path: Sequence[str | int], message: str) -> None:
        problems.append(document.problem(tuple(path), message))

    for key in data:
        if key not in TOP_KEYS:
            report((key,), f"unknown key{did_you_mean(key, TOP_KEYS)}; there are: {', '.join(TOP_KEYS)}")
    seed_stated = data.get("seed")
    if seed_stated is not None and (type(seed_stated) is not int or seed_stated < 0):
        report(("seed",), f"expected an integer ≥ 0, found {seed_stated!r}")
    specs = _inputs(data.get("inputs", {}), inputs or {}, report)
    plan = _plan(document, data, specs, registry or default_registry, report)
    outputs = _outputs(data.get("outputs"), plan, report)
    if problems or plan is None:
        raise ConfigError(problems)
    chosen = data.get("seed") if seed is None else seed
    return GraphModel(plan, build_modules(plan, chosen), outputs, chosen)


def _inputs(stated: Any, given: Mapping[str, Any], report: Any) -> dict[str, TensorSpec]:
    if not isinstance(stated, Mapping):
        report(("inputs",), f"expected a mapping name → event shape, found {stated!r}")
        return {}
    specs: dict[str, TensorSpec] = {}
    for name, shape in {**stated, **given}.items():
        if isinstance(shape, TensorSpec):
            specs[name] = shape
        elif isinstance(shape, list | tuple) and all(type(n) is int and n > 0 for n in shape):
            specs[name] = TensorSpec(tuple(shape))
        else:
            report(("inputs", name), f"expected an event shape such as [4], found {shape!r}")
    if not specs:
        report(("inputs",), "required: a mapping name → event shape, without the batch axis")
    return specs


def _plan(
    document: Document, data: Mapping[str, Any], inputs: Mapping[str, TensorSpec], registry: Registry, report: Any
) -> Plan | None:
    if "components" not in data:
        report((), "'components' is missing: a mapping from names to components")
        return None
    try:
        graph = decode_components(data["components"], registry)
    except ValidationError as error:
        for place, message in failures(error):
            report(("components", *place), message)
        return None
    return make_plan(graph.components, inputs, lambda path, message: report(("components", *path), message))


def _outputs(stated: Any, plan: Plan | None, report: Any) -> Outputs:
    if stated is None and plan is not None:
        return plan.nodes[-1].spec.out_keys[-1]
    result: Outputs
    if isinstance(stated, str):
        names, result = [stated], stated
    elif isinstance(stated, list) and stated:
        names, result = stated, tuple(stated)
    elif isinstance(stated, Mapping) and stated:
        names, result = list(stated.values()), dict(stated)
    else:
        if stated is not None:
            report(("outputs",), f"expected a name, a list of names, or a mapping result → name, found {stated!r}")
        return ""
    for name in names:
        if not isinstance(name, str) or (plan is not None and name not in plan.edges):
            report(("outputs",), f"nothing produces {name!r}{did_you_mean(name, plan.edges if plan else ())}")
    return result
