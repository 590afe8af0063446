"""GraphModel: a wired graph of modules as one `nn.Module`; `build_model` makes it from a configuration.

In: tensors, positional or by name. Out: one tensor, a tuple, or a dict, as the configuration says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from policysmith.compile.exclusive import exclusive
from policysmith.compile.late import LatePlan, first_run, has_lazy, why
from policysmith.compile.module_steps import module_steps
from policysmith.compile.runner import Runner, Runs, Task
from policysmith.config.grammars import grammar_of
from policysmith.config.load import Document
from policysmith.errors import ShapeError, did_you_mean
from policysmith.graph.assemble import as_components
from policysmith.graph.component import Component
from policysmith.graph.document import Outputs, graph_document, native_graph
from policysmith.graph.plan import Plan, TensorSpec
from policysmith.registry import Registry, default_registry

__all__ = ["GraphModel", "build_model", "build_of_document"]

M = TypeVar("M", bound="GraphModel")


class GraphModel(nn.Module):
    """A directed acyclic graph of modules; parameters are named `graph_modules.<name>.…`.

    Call it with the tensors of `inputs`, positional or by name, (B, *event) each. It returns the edge named by
    `outputs`, a tuple of edges, or a dict result name → edge. What modules and wrappers report besides is dropped.
    `modules` are in the order of the state dict. `seed` is for what wrappers draw. A late plan without shapes learns
    them from the first call, which also makes lazy modules.
    """

    plan: Plan | LatePlan

    def __init__(
        self, plan: Plan | LatePlan, modules: Mapping[str, nn.Module], outputs: Outputs, seed: int | None = None
    ) -> None:
        super().__init__()
        self.plan, self.outputs = plan, outputs
        self.inputs = tuple(plan.inputs)
        self.graph_modules = nn.ModuleDict(dict(modules))
        self._views = {} if plan.late else as_components(plan, modules, seed)  # type: ignore[arg-type]
        self._runner = self._made_runner()

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """Run the graph; ShapeError-free inputs are the caller's promise, names are checked.

        Under a late plan a step that fails is named, as far as shapes tell which it is.
        """
        tensors = args if len(args) == len(self.inputs) and not kwargs else self._bind(args, kwargs)
        if torch.compiler.is_compiling() or isinstance(tensors[0], fx.Proxy):  # someone else compiles, or traces
            return self.slow(*tensors)
        if not self.plan.edges:
            return self._first(tensors)
        try:
            return self._runner.program(True).run(*tensors)
        except Exception as error:
            if self.plan.late and (found := why(self.plan, self.graph_modules, tensors)):  # type: ignore[arg-type]
                raise found from error
            raise

    def _first(self, tensors: Sequence[Tensor]) -> Any:
        """The first call under a late plan, module by module: it tells every shape."""
        with exclusive(self.graph_modules):
            if not self.plan.edges:  # or else another thread made the first call while we waited
                assert isinstance(self.plan, LatePlan)
                self.plan, values = first_run(self.plan, self.graph_modules, tensors)
                return self._result(values)
        return self.forward(*tensors)

    def bound(self) -> Any:
        """The graph as a straight line of module calls: a function of the inputs; hooks on any module work."""
        return self.program(inline=False).run

    @property
    def components(self) -> dict[str, Component]:
        """The modules as components, in their wrappers; under a late plan, the modules themselves."""
        if self.plan.late:
            return dict(self.graph_modules.items())  # type: ignore[arg-type]
        return {step.name: step.live for step in self._runner.steps}

    @property
    def code(self) -> str:
        """The source that a call runs."""
        return self.program().code

    def program(self, inline: bool = True) -> Runs:
        """The compiled form for the present training mode."""
        if not self.plan.edges and has_lazy(self):
            raise ShapeError("lazy modules wait for inputs: call the model once, or build it with inputs=")
        return self._runner.program(inline)

    def slow(self, *tensors: Tensor) -> Any:
        """The slow twin of a call, module by module (for tests and torch.compile)."""
        return self._runner.slow(True)(*tensors)

    def _made_runner(self) -> Runner[bool]:
        """A runner whose calls are two: with modules inlined, and with each of them a call."""
        views = {} if self.plan.late else self._views  # kept for what wrappers have drawn, which late plans have not
        return Runner(self.graph_modules, module_steps(self.plan.nodes, self.graph_modules, views), self._task)

    def _task(self, inline: bool) -> Task:
        inputs, result = self.inputs, self._result
        return Task(
            len(inputs),
            self._wanted(),
            lambda tensors: dict(zip(inputs, tensors, strict=True)),
            lambda values, _: result(values),
            inline,
        )

    def _result(self, values: Mapping[str, Any]) -> Any:
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

    def as_kind(self, kind: type[M]) -> M:
        """The same graph of the same modules as another class of graph models; made code is not taken along."""
        other = kind.__new__(kind)
        other.__dict__.update(self.__dict__)
        other._runner = other._made_runner()
        return other


def build_model(
    config: Any,
    registry: Registry | None = None,
    *,
    inputs: Mapping[str, Sequence[int] | TensorSpec] | None = None,
    seed: int | None = None,
    base_dir: str | Path | None = None,
    allow_targets: Sequence[str] = (),
) -> GraphModel:
    """Build a graph from a path, a mapping, or a DictConfig: `{inputs, components, outputs}`, or `schema_version: 1`.

    `inputs` maps names to event shapes (no batch axis) and adds to those in the configuration; `outputs` is an edge's
    name, a list, or a mapping result → edge. A relative path starts at `base_dir`, and so does what the `defaults` of a
    mapping name. In schema version 1, `_target_` and `imports` may name what lies below the prefixes in `allow_targets`
    (`("my_package.",)`), and nothing else; the grammar of our own has neither. Raises `ConfigError` with every problem
    found.
    """
    registry = registry or default_registry
    document = graph_document(config, registry, base_dir)
    return build_of_document(document, registry, inputs or {}, seed, allow_targets=allow_targets)


def build_of_document(
    document: Document,
    registry: Registry,
    inputs: Mapping[str, Any],
    seed: int | None,
    *,
    allow_targets: Sequence[str] = (),
    kind: type[M] = GraphModel,  # type: ignore[assignment]
    initialized: bool = True,
) -> M:
    """The model of a composed document, as a `kind`; `initialized=False` leaves what modules draw when made."""
    if grammar := grammar_of(document.data, registry):
        plan, modules, outputs = grammar.translate(document, registry, inputs, seed, allow_targets)
        return kind(plan, modules, outputs, seed)
    return kind(*native_graph(document, registry, inputs, seed, initialized))
