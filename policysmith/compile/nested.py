"""A graph as one component of another: `{type: graph_model, config: {…}, in_keys: …}`.

In: tensors of the component's in_keys, by name or in order. Out: what the graph gives; several results in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from policysmith.compile.late import dry_run
from policysmith.compile.model import GraphModel, build_of_document
from policysmith.config.options import Infer
from policysmith.errors import ConfigError, did_you_mean
from policysmith.graph.assemble import base_seed
from policysmith.graph.component import takes_aux
from policysmith.graph.memory_component import has_memory
from policysmith.graph.plan import TensorSpec
from policysmith.graph.source import Graph, GraphSource
from policysmith.registry import register

__all__ = ["NamedSpecs", "NestedGraph", "ReportingGraph", "graph_model", "nest"]

UNPLANNED = "; without inputs= it is built unplanned"
NamedSpecs = Annotated[tuple[tuple[str | None, TensorSpec], ...], Infer("named_specs")]
"""The inputs of a component in order: the name of the argument, where the configuration maps names, and the spec."""


class NestedGraph(GraphModel):
    """A `GraphModel` inside another graph, whose code it becomes part of: it runs module by module and is traced.

    A dict of results becomes a tuple in its order. The weights were drawn when it was built, and are left so.
    """

    keeps_start = True

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """Tensors of the inputs, positional or by name, (B, *event) → one tensor, or a tuple."""
        return self._given(self.slow(*self._tensors(args, kwargs)))

    def _tensors(self, args: Sequence[Tensor], kwargs: Mapping[str, Tensor]) -> Sequence[Tensor]:
        return args if len(args) == len(self.inputs) and not kwargs else self._bind(args, kwargs)

    @staticmethod
    def _given(result: Any) -> Any:
        return tuple(result.values()) if isinstance(result, dict) else result


class ReportingGraph(NestedGraph):
    """A nested graph with modules that report auxiliary losses: these go to the outer graph's sink."""

    def forward(self, *args: Tensor, aux: Any = None, **kwargs: Tensor) -> Any:
        """As `NestedGraph`; `aux` is the sink."""
        return self._given(self._runner.body(True).function(sink=aux)(*self._tensors(args, kwargs)))


@register("graph_model", nested=True, graph_files={"config": "config"})
def graph_model(config: Annotated[GraphSource, Graph()], inputs: NamedSpecs) -> GraphModel:
    """A whole graph, in any grammar (see `build_model`), as a component with weights `graph_modules.<name>.…`.

    A mapping argument → key in in_keys names the graph's inputs, otherwise they are taken in order; shapes follow.

    Args:
        config: The graph, written out or the path of its file.
    """
    planning = torch.get_default_device().type == "meta"
    specs = _by_name(config, inputs)
    try:
        model = build_of_document(
            config.document, config.registry, specs, base_seed(None), kind=NestedGraph, initialized=not planning
        )
    except ConfigError as error:
        problem = error.problems[0]
        message = problem.message.removesuffix(UNPLANNED)
        raise ValueError(f"{problem.path}: {message}" if problem.path else message) from error
    return nest(model)


def nest(model: GraphModel, inputs: NamedSpecs = ()) -> GraphModel:
    """A `GraphModel` as one that can be a component, of the same modules; one of calls that knows no shapes learns them
    from `inputs`. Raises ValueError for what only the outer graph can serve.
    """
    _check_parts(model)
    reports = any(takes_aux(module) for module in model.graph_modules.values())
    model = model.as_kind(ReportingGraph if reports else NestedGraph)
    if not model.plan.edges:
        names = [name or own for (name, _), own in zip(inputs, model.inputs, strict=True)]
        specs = dict(zip(names, (spec for _, spec in inputs), strict=True))
        model.plan = dry_run(model.plan, model.graph_modules, specs)  # type: ignore[arg-type]
    return model


def _by_name(config: GraphSource, given: Sequence[tuple[str | None, TensorSpec]]) -> dict[str, TensorSpec]:
    """The specs of the graph's inputs; raises ValueError where names or numbers don't fit, or a stated shape."""
    names = [name for name, _ in given if name is not None]
    if names:
        for name in names:
            if name not in config.inputs:
                hint = did_you_mean(name, config.inputs) or f"; it has: {', '.join(config.inputs)}"
                raise ValueError(f"the graph has no input {name!r}{hint}")
        if missing := [name for name in config.inputs if name not in names]:
            raise ValueError(f"its input {', '.join(map(repr, missing))} is not in in_keys")
    elif len(given) != len(config.inputs):
        raise ValueError(f"{len(given)} inputs for the graph's {len(config.inputs)}: {', '.join(config.inputs)}")
    specs = dict(zip(names or config.inputs, (spec for _, spec in given), strict=True))
    stated = config.document.data.get("inputs") or {}
    for name, shape in stated.items():
        if isinstance(shape, list) and tuple(shape) != specs[name].shape:
            raise ValueError(f"input {name!r} is stated as {shape}, but is given {list(specs[name].shape)}")
    return {name: specs[name] for name in config.inputs}


def _check_parts(model: GraphModel) -> None:
    """Refuse what only the outer graph can serve: memory, and statistics that trainers update."""
    for name, module in model.graph_modules.items():
        if has_memory(module):
            raise ValueError(f"{name!r} keeps state between steps: make it a component of its own, beside this graph")
        if callable(getattr(module, "update", None)):
            raise ValueError(f"{name!r} takes statistics: make it a component of its own, before this graph")
