"""From a document of schema version 1 to modules and a plan of our own, whose shapes may wait for inputs.

In: the composed document. Out: what a `GraphModel` takes; or one `ConfigError` with every problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from policysmith.compile.late import LatePlan, StepError, dry_run
from policysmith.config.load import Document
from policysmith.config.located_data import quote
from policysmith.dialects.policy_constructor.call_reader import check_arguments
from policysmith.dialects.policy_constructor.document_problems import DocumentProblems
from policysmith.dialects.policy_constructor.sections import GraphSections, read_grammar
from policysmith.dialects.policy_constructor.specs import BuildError
from policysmith.dialects.policy_constructor.targets import Allowed
from policysmith.errors import PolicysmithError
from policysmith.graph.assemble import drawing
from policysmith.graph.measure import TensorSpec
from policysmith.registry import Registry

__all__ = ["check_torch", "describe", "says_v1", "translate"]

OLDEST_TORCH = (2, 2)
KEPT = ("schema_version", "model")  # what composition leaves to say

Outputs = str | tuple[str, ...] | dict[str, str]


def translate(
    document: Document, registry: Registry, inputs: Mapping[str, Any], seed: int | None, allow_targets: Sequence[str]
) -> tuple[LatePlan, dict[str, nn.Module], Outputs]:
    """The plan, the modules by name, and what a call returns.

    Modules keep the weights that torch draws for them: each from a stream of its own if there is a seed, else from
    torch's global generator. With `inputs` (event shapes by name) all shapes are known after, and lazy modules made.
    """
    check_torch(torch.__version__)
    report = DocumentProblems(document)
    grammar = read_grammar(document, registry, Allowed(allow_targets), report)
    specs = _input_specs(inputs, grammar, report)
    report.raise_any()
    modules = _build(grammar, seed, report)
    report.raise_any()
    _check_calls(grammar, modules, report)
    report.raise_any()
    plan = LatePlan(tuple(grammar.inputs), tuple(grammar.calls), seed)
    if specs:
        plan = _planned(plan, modules, specs, grammar, report)
    return plan, modules, grammar.outputs


def describe(document: Document, registry: Registry) -> tuple[dict[str, Any], tuple[str, ...], Outputs]:
    """What of a composed document is left to say, the names of its inputs, and its outputs; raises `ConfigError`."""
    report = DocumentProblems(document)
    grammar = read_grammar(document, registry, Allowed(()), report)
    report.raise_any()
    kept = {key: document.data[key] for key in KEPT if key in document.data}
    return kept, tuple(grammar.inputs), grammar.outputs


def says_v1(data: Mapping[str, Any]) -> bool:
    """Whether composed data is of schema version 1."""
    return "schema_version" in data or ("model" in data and not {"format", "components"} & set(data))


def check_torch(version: str) -> None:
    """Raise where torch is older than the grammar needs, or its version can't be read."""
    parts = version.split("+")[0].split(".")
    if len(parts) < 2 or not all(part.isdecimal() for part in parts[:2]):
        raise PolicysmithError(f"torch reports the version {version!r}, which can't be read; one such as 2.13.0 can")
    if tuple(map(int, parts[:2])) < OLDEST_TORCH:
        raise PolicysmithError(f"torch {version} is too old; install torch {'.'.join(map(str, OLDEST_TORCH))} or newer")


def _input_specs(inputs: Mapping[str, Any], grammar: GraphSections, report: DocumentProblems) -> dict[str, TensorSpec]:
    specs = {}
    for name, shape in inputs.items():
        if name not in grammar.inputs:
            report((), f"inputs: the graph has no input {quote(name)}; it has: {', '.join(grammar.inputs)}")
        elif isinstance(shape, TensorSpec):
            specs[name] = shape
        elif isinstance(shape, list | tuple) and all(type(size) is int and size > 0 for size in shape):
            specs[name] = TensorSpec(tuple(shape))
        else:
            report((), f"inputs: {name}: expected an event shape such as [4], found {quote(shape)}")
    if inputs and (missing := [name for name in grammar.inputs if name not in inputs]):
        report((), f"inputs: missing {', '.join(map(repr, missing))}; give the event shapes of all, or of none")
    return specs


def _build(grammar: GraphSections, seed: int | None, report: DocumentProblems) -> dict[str, nn.Module]:
    modules = {}
    for name, spec in grammar.modules.items():
        with drawing(seed, name):
            try:
                modules[name] = spec.module()
            except BuildError as error:
                report(error.path, str(error))
    return modules


def _check_calls(grammar: GraphSections, modules: Mapping[str, nn.Module], report: DocumentProblems) -> None:
    """Whether modules take what they are called with, as far as the signatures of their forwards tell."""
    for node, path in zip(grammar.calls, grammar.call_paths, strict=True):
        if node.operation is None:
            forward, call = modules[node.store_name].forward, node.call
            check_arguments(report, forward, f"module {node.store_name!r}", len(call.args), call.kwargs, path)


def _planned(
    plan: LatePlan,
    modules: Mapping[str, nn.Module],
    specs: Mapping[str, TensorSpec],
    grammar: GraphSections,
    report: DocumentProblems,
) -> LatePlan:
    try:
        return dry_run(plan, nn.ModuleDict(dict(modules)), specs)
    except StepError as error:
        report(grammar.call_paths[error.index], f"{error}; without inputs= it is built unplanned")
    except Exception as error:
        report((), f"no shapes can be planned ({error}); without inputs= it is built unplanned")
    report.raise_any()
    return plan
