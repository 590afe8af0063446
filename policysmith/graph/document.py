"""A graph's configuration: composed from its sources, checked, and planned.

In: a path, a mapping, or a DictConfig: `{inputs, components, outputs}`. Out: the plan, the modules, and the outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from policysmith.config.grammars import compose_graph
from policysmith.config.load import Document, read_source
from policysmith.config.located_data import Findings
from policysmith.config.migrate import migrate
from policysmith.config.options import failures
from policysmith.errors import ConfigError, Problem, did_you_mean
from policysmith.graph.assemble import build_modules
from policysmith.graph.plan import Plan, TensorSpec, make_plan
from policysmith.graph.spec import decode_components
from policysmith.graph.wiring import ReportProblem
from policysmith.registry import Registry

__all__ = ["TOP_KEYS", "Outputs", "graph_document", "native_graph"]

GraphConfig = str | PathLike[str] | Mapping[str, Any]
Outputs = str | tuple[str, ...] | dict[str, str]
TOP_KEYS = ("format", "seed", "inputs", "components", "outputs")


def graph_document(config: GraphConfig, registry: Registry, base_dir: str | Path | None = None) -> Document:
    """A graph's configuration, composed, as `build_model` takes it; raises `ConfigError` with everything found."""
    if base_dir is not None and isinstance(config, str | Path):
        config = Path(base_dir) / config
    findings = Findings()
    source = read_source(config, findings)
    if source.file is None and base_dir is not None:
        source = replace(source, directory=Path(base_dir))
    return compose_graph(source, findings, registry)


def native_graph(
    document: Document, registry: Registry, inputs: Mapping[str, object], seed: int | None, initialized: bool
) -> tuple[Plan, dict[str, nn.Module], Outputs, int | None]:
    """Plan, modules, outputs and seed of a graph in our own grammar; raises `ConfigError` with every problem found.

    `initialized=False` leaves what modules draw when made.
    """
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
    specs = _inputs(data.get("inputs", {}), inputs, report)
    plan = _plan(document, data, specs, registry, report)
    outputs = _outputs(data.get("outputs"), plan, report)
    if problems or plan is None:
        raise ConfigError(problems)
    chosen = data.get("seed") if seed is None else seed
    return plan, build_modules(plan, chosen, initialized=initialized), outputs, chosen


def _inputs(stated: object, given: Mapping[str, object], report: ReportProblem) -> dict[str, TensorSpec]:
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
    document: Document,
    data: Mapping[str, object],
    inputs: Mapping[str, TensorSpec],
    registry: Registry,
    report: ReportProblem,
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


def _outputs(stated: object, plan: Plan | None, report: ReportProblem) -> Outputs:
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
