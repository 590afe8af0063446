"""The sections of schema version 1: settings, imports, and a model that is `sequential` or a `graph`.

In: the composed document. Out: a `GraphSections`, in which nothing is allocated yet; problems go to a report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from policysmith.compile.late import CallNode
from policysmith.config.load import Document, Path
from policysmith.config.located_data import quote
from policysmith.dialects.policy_constructor.call_reader import CallReader, name_problem
from policysmith.dialects.policy_constructor.document_problems import DocumentProblems, one_of
from policysmith.dialects.policy_constructor.specs import ModuleSpec, SpecReader
from policysmith.dialects.policy_constructor.targets import Allowed
from policysmith.dialects.policy_constructor.type_names import Registrar
from policysmith.errors import RegistryError, did_you_mean
from policysmith.graph.call import Call, Edge
from policysmith.registry import Registry

__all__ = ["GraphSections", "read_grammar"]

TOP_KEYS = ("schema_version", "settings", "defaults", "imports", "templates", "params", "model")
SETTINGS: dict[str, type] = {
    "strict": bool,
    "allow_imports": bool,
    "allowed_import_prefixes": list,
    "allow_target": bool,
    "error_context_lines": int,
}
SEQUENTIAL_KEYS = ("inputs", "layers", "outputs", "return")
GRAPH_KEYS = ("inputs", "modules", "nodes", "order", "steps", "outputs", "return")
RETURNS = ("single", "tuple", "dict")
ATTRIBUTES = frozenset(dir(nn.ModuleDict()))

Outputs = str | tuple[str, ...] | dict[str, str]


@dataclass
class GraphSections:
    """What a document says: inputs, modules by name, calls in order (with their paths), and what is returned."""

    inputs: list[str] = field(default_factory=list)
    modules: dict[str, ModuleSpec] = field(default_factory=dict)
    calls: list[CallNode] = field(default_factory=list)
    call_paths: list[Path] = field(default_factory=list)
    outputs: Outputs = ""


def read_grammar(document: Document, registry: Registry, allowed: Allowed, report: DocumentProblems) -> GraphSections:
    """Read and check a whole document; after `report.raise_any()` the result is complete."""
    data = document.data
    report.unknown_keys((), data, TOP_KEYS)
    version = data.get("schema_version")
    if type(version) is not int or version != 1:
        found = "found none" if "schema_version" not in data else f"found {quote(version)}"
        report(("schema_version",), f"must be 1, {found}")
    _check_settings(data.get("settings"), report)
    _import(data.get("imports"), registry, allowed, report)
    specs = SpecReader(registry, allowed, report)
    model = data.get("model")
    if not isinstance(model, Mapping):
        found = "is missing" if "model" not in data else f"expected a mapping, found {quote(model)}"
        report(("model",), f"{found}: write model: {{sequential: …}} or model: {{graph: …}}")
        return GraphSections()
    report.unknown_keys(("model",), model, ("sequential", "graph"))
    if "sequential" in model and "graph" in model:
        report(("model", "graph"), "a model is sequential or a graph, not both: leave one out", at_key=True)
    elif "sequential" in model:
        return _sequential(model["sequential"], specs, report)
    elif "graph" in model:
        return _graph(model["graph"], specs, registry, report)
    elif not model:
        report(("model",), "needs 'sequential' or 'graph'")
    return GraphSections()


def _check_settings(settings: Any, report: DocumentProblems) -> None:
    """Settings are read and checked; what they allow, the caller must allow too, and problems are never let pass."""
    if settings is None:
        return
    if not isinstance(settings, Mapping):
        report(("settings",), f"expected a mapping, found {quote(settings)}")
        return
    report.unknown_keys(("settings",), settings, SETTINGS)
    for key, value in settings.items():
        kind = SETTINGS.get(key)
        if kind is not None and type(value) is not kind:
            expected = {bool: "true or false", list: "a list of prefixes", int: "a whole number"}[kind]
            report(("settings", key), f"expected {expected}, found {quote(value)}")


def _import(names: Any, registry: Registry, allowed: Allowed, report: DocumentProblems) -> None:
    """Import modules that the caller allows; each may offer `register(registry)`, to add its types."""
    if names is not None and not isinstance(names, list):
        report(("imports",), f"expected a list of modules, found {quote(names)}")
        return
    for index, name in enumerate(names or []):
        path = ("imports", index)
        module = allowed.module(name) if isinstance(name, str) else f"expected a module's name, found {quote(name)}"
        if isinstance(module, str):
            report(path, module)
            continue
        register = getattr(module, "register", None)
        if callable(register) and getattr(register, "__module__", None) == module.__name__:
            try:
                register(Registrar(registry))
            except RegistryError as error:
                report(path, str(error))
            except Exception as error:
                report(path, f"register() of {name!r} failed: {type(error).__name__}: {error}")


def _sequential(value: Any, specs: SpecReader, report: DocumentProblems) -> GraphSections:
    path: Path = ("model", "sequential")
    if not isinstance(value, Mapping):
        report(path, f"expected a mapping with 'layers', found {quote(value)}")
        return GraphSections()
    report.unknown_keys(path, value, SEQUENTIAL_KEYS)
    inputs = _inputs(value.get("inputs", ["x"]), (*path, "inputs"), report)
    if len(inputs) > 1:
        message = f"sequential takes exactly one input, found {len(inputs)}: {', '.join(inputs)}; use graph for several"
        report((*path, "inputs"), message)
    layers = value.get("layers")
    if not isinstance(layers, list) or not layers:
        report((*path, "layers"), f"expected a list of modules, found {quote(layers)}")
        return GraphSections()
    grammar = GraphSections(inputs[:1])
    last = inputs[0] if inputs else "x"
    values = [*inputs[:1]]
    for index, layer in enumerate(layers):
        name, out, here = f"layer{index}", f"h{index}", (*path, "layers", index)
        if spec := specs.read(layer, here):
            grammar.modules[name] = spec
        if out in values:
            report((*path, "inputs"), f"{out!r} is the name of what a layer gives; choose another")
        call = Call((Edge(last),), title=f"module:{name}", place=report.place(here))
        grammar.calls.append(CallNode(name, call, (out,)))
        grammar.call_paths.append(here)
        values.append(out)
        last = out
    grammar.outputs = _outputs(value.get("outputs", [last]), value.get("return"), values, path, report)
    return grammar


def _graph(value: Any, specs: SpecReader, registry: Registry, report: DocumentProblems) -> GraphSections:
    path: Path = ("model", "graph")
    if not isinstance(value, Mapping):
        report(path, f"expected a mapping with inputs, modules, nodes and outputs, found {quote(value)}")
        return GraphSections()
    report.unknown_keys(path, value, GRAPH_KEYS)
    inputs = _inputs(value.get("inputs"), (*path, "inputs"), report)
    named = value.get("modules") or {}
    if not isinstance(named, Mapping):
        report((*path, "modules"), f"expected a mapping from names to modules, found {quote(named)}")
        named = {}
    grammar = GraphSections(inputs)
    for name, module in named.items():
        here = (*path, "modules", name)
        if problem := name_problem(name) or _reserved(name):
            report(here, problem, at_key=True)
        if spec := specs.read(module, here):
            grammar.modules[name] = spec
    reader = CallReader(inputs, named, registry, report)
    grammar.calls, grammar.call_paths = reader.read(value, path)
    for name in named:
        if name not in reader.used and reader.complete:
            report((*path, "modules", name), f"module {name!r} is never called: call it, or leave it out", at_key=True)
    if "outputs" not in value:
        report((*path, "outputs"), "required: a list of names, or a mapping from results to names")
    else:
        grammar.outputs = _outputs(value["outputs"], value.get("return"), reader.values, path, report)
    return grammar


def _reserved(name: str) -> str | None:
    if name in ATTRIBUTES:
        return f"{name!r} is reserved (an attribute of every module); choose another name, such as {name + '_'!r}"
    return None


def _inputs(value: Any, path: Path, report: DocumentProblems) -> list[str]:
    if not isinstance(value, list) or not value:
        report(path, f"required: a list of names, such as [x]; found {quote(value)}")
        return []
    for index, name in enumerate(value):
        if problem := name_problem(name):
            report((*path, index), problem)
        elif name in value[:index]:
            report((*path, index), f"input {name!r} stands twice; each needs a name of its own")
    return [name for name in dict.fromkeys(n for n in value if isinstance(n, str)) if not name_problem(name)]


def _outputs(value: Any, returned: Any, values: Any, path: Path, report: DocumentProblems) -> Outputs:
    """One name, several, or a mapping result → name, as `return` says or as they are written."""
    here = (*path, "outputs")
    if isinstance(value, Mapping) and value:
        named = {key: _output(name, values, (*here, key), report) for key, name in value.items()}
        if returned not in (None, "dict"):
            _wrong_return(returned, "outputs are a mapping, which returns a dict", path, report)
        return named
    if not isinstance(value, list) or not value:
        report(here, f"expected a list of names, or a mapping from results to names, found {quote(value)}")
        return ""
    names = tuple(_output(name, values, (*here, index), report) for index, name in enumerate(value))
    if returned not in (None, "single", "tuple"):
        _wrong_return(returned, "outputs are a list, which returns single or tuple", path, report)
    elif returned == "single" and len(names) != 1:
        report((*path, "return"), f"single takes exactly one output, found {len(names)}: write tuple")
    return names[0] if len(names) == 1 and returned != "tuple" else names


def _wrong_return(returned: Any, form: str, path: Path, report: DocumentProblems) -> None:
    known = returned in RETURNS
    message = form if known else f"expected {', '.join(RETURNS)}{did_you_mean(returned, RETURNS)}; {form}"
    report((*path, "return"), f"{message}; found {quote(returned)}")


def _output(name: Any, values: Any, path: Path, report: DocumentProblems) -> str:
    plain = name[1:] if isinstance(name, str) and name.startswith("$") else name
    if not isinstance(plain, str) or plain not in values:
        report(path, f"outputs: nothing gives {quote(name)}{one_of(plain, values)}")
        return ""
    return plain
