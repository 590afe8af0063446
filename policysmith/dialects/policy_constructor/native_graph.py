"""A graph of schema version 1 said again in our own grammar, where that can say it.

In: the configuration and the built model, with event shapes. Out: a mapping of `format: 1` that builds the same network
with the same weights (it was built and compared), or every reason why not, and the composed original.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from policysmith.compile.late import CallNode, LatePlan
from policysmith.compile.model import GraphModel, build_model
from policysmith.config.load import read_source
from policysmith.config.located_data import Findings
from policysmith.dialects.policy_constructor.composition import finish_v1
from policysmith.dialects.policy_constructor.signature import positional_names
from policysmith.dialects.policy_constructor.type_names import find_type
from policysmith.errors import ConfigError
from policysmith.graph.call import Call, Edge
from policysmith.registry import Registry, default_registry

__all__ = ["NativeGraph", "to_native"]

TYPE, ARGS, KWARGS = "_type_", "_args_", "_kwargs_"


@dataclass(frozen=True, eq=False)
class NativeGraph:
    """What builds the model again, what stands against our own grammar, and the model that this builds."""

    config: Mapping[str, Any]
    obstacles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    model: GraphModel | None = None


def to_native(
    path: str | Path | Mapping[str, Any],
    model: GraphModel,
    inputs: Mapping[str, Sequence[int]] | None,
    registry: Registry | None = None,
) -> NativeGraph:
    """What builds `model` again: in our own grammar if that is possible, else the original, composed."""
    findings = Findings()
    composed = finish_v1(read_source(path, findings), findings).data
    original = {key: value for key, value in composed.items() if key in ("schema_version", "imports", "model")}
    if inputs is None:
        return NativeGraph(original, ("it states the shapes of its inputs: give them with --input (inputs=)",))
    writer = _Writer(model, _specs(composed["model"]))
    components, outputs = writer.components(), writer.outputs()
    if writer.obstacles:
        return NativeGraph(original, tuple(writer.obstacles))
    shapes = {name: list(inputs[name]) for name in model.inputs}
    config = {"format": 1, "inputs": shapes, "components": components, "outputs": outputs}
    try:
        built = build_model(config, registry, seed=0).eval()
    except ConfigError as error:
        return NativeGraph(original, tuple(f"{problem.path}: {problem.message}" for problem in error.problems))
    built.load_state_dict(_renamed(built, model, writer.owners))
    if not _same_outputs(built, model, shapes):
        return NativeGraph(original, ("our own grammar computes something else of it",))
    return NativeGraph(config, (), tuple(writer.notes), built)


def _specs(model: Mapping[str, Any]) -> dict[str, Any]:
    """The modules' specs by name, as written."""
    if "sequential" in model:
        return {f"layer{index}": layer for index, layer in enumerate(model["sequential"]["layers"])}
    return dict(model["graph"].get("modules") or {})


class _Writer:
    """Writes components for calls; what can't be written becomes an obstacle."""

    def __init__(self, model: GraphModel, specs: Mapping[str, Any]) -> None:
        assert isinstance(model.plan, LatePlan)
        self._model, self._plan, self._specs = model, model.plan, specs
        self.obstacles: list[str] = []
        self.notes: list[str] = []
        self.owners: dict[str, str] = {}
        """The module behind each component that has one."""
        self._alias: dict[str, str] = {}

    def components(self) -> dict[str, Any]:
        """Every call as a component, in order."""
        found: dict[str, Any] = {}
        for node in self._plan.nodes:
            if node.operation is not None:
                entry = self._operation(node)
                if entry:
                    found[node.name] = entry
                continue
            shared = node.store_name in self.owners.values()
            name = node.name if shared else node.store_name
            entry = {"use": node.store_name} if shared else self._type(node.store_name)
            self.owners[name] = node.store_name
            found[name] = {**entry, **self._keys(name, node)}
        return found

    def outputs(self) -> Any:
        """What is returned, in terms of edges."""
        outputs = self._model.outputs
        if isinstance(outputs, str):
            return self._alias.get(outputs, outputs)
        if isinstance(outputs, tuple):
            return [self._alias.get(name, name) for name in outputs]
        return {result: self._alias.get(name, name) for result, name in outputs.items()}

    def _keys(self, name: str, node: CallNode) -> dict[str, Any]:
        call = node.call
        if call.keys and isinstance(call.keys[0], str):
            self.obstacles.append(f"{call.title}: its result is a dict, and components give tensors")
        keys: Any = [self._edge(call, value) for value in call.args]
        if call.kwargs and call.args:
            self.obstacles.append(f"{call.title}: has arguments by position and by name; components have one kind")
        elif call.kwargs:
            keys = {argument: self._edge(call, value) for argument, value in call.kwargs.items()}
        out = {} if node.out_keys == (name,) else {"out_keys": list(node.out_keys)}
        return {"in_keys": keys[0] if isinstance(keys, list) and len(keys) == 1 else keys, **out}

    def _edge(self, call: Call, value: Any) -> str:
        if isinstance(value, Edge):
            return self._alias.get(value.name, value.name)
        self.obstacles.append(f"{call.title}: is called with {value!r}, and components read edges only")
        return ""

    def _operation(self, node: CallNode) -> dict[str, Any] | None:
        """A component for an operation; nothing for `identity`, whose result is another name of its argument."""
        call, name = node.call, node.store_name
        args = [*call.args, *call.kwargs.values()]
        if name == "identity" and isinstance(args[0], Edge):
            self._alias[node.name] = self._edge(call, args[0])
            return None
        edges = [self._plan.edges.get(ref.name) for ref in args if isinstance(ref, Edge)]
        if name == "add" and len(edges) == len(args) and len(set(edges)) == 1:
            return {"type": "sum", "in_keys": [self._edge(call, value) for value in args]}
        if name == "cat" and (joined := self._joined(call)):
            return {"type": "concat", "in_keys": joined}
        self.obstacles.append(f"{call.title}: our own grammar has no component that does just this")
        return None

    def _joined(self, call: Call) -> list[str]:
        """The edges that `cat` joins, where they are vectors (B, F) joined along F."""
        values = dict(zip(("tensors", "dim"), call.args, strict=False)) | dict(call.kwargs)
        tensors = values.get("tensors")
        if values.get("dim") not in (1, -1) or not isinstance(tensors, list):
            return []
        specs = [self._plan.edges.get(ref.name) if isinstance(ref, Edge) else None for ref in tensors]
        if not all(spec is not None and len(spec.shape) == 1 for spec in specs):
            return []
        return [self._edge(call, ref) for ref in tensors]

    def _type(self, name: str) -> dict[str, Any]:
        spec = self._specs[name]
        kind = str(spec.get(TYPE, ""))
        native = kind.replace("nn.Lazy", "nn.")
        module = self._model.graph_modules[name]
        if native not in default_registry.names("component") or not _is_type(native, module):
            what = f"{kind!r} is a type of schema version 1 alone" if kind else "_target_ names code"
            self.obstacles.append(f"module {name!r}: {what}")
            return {}
        schema = default_registry.entry("component", native).schema
        names = _parameter_names(kind)
        given = dict(zip(names, spec.get(ARGS) or [], strict=False)) | dict(spec.get(KWARGS) or {})
        given |= {key: value for key, value in spec.items() if not key.startswith("_")}
        if given.pop("inplace", False):
            self.notes.append(f"module {name!r}: computes out of place")
        return {"type": native, **{key: value for key, value in given.items() if key not in schema.inferred}}


def _is_type(native: str, module: object) -> bool:
    """Whether the native type of a name is what the module is: a block of version 1 shares a name with one of ours."""
    return default_registry.entry("component", native).target is type(module)


def _parameter_names(kind: str) -> list[str]:
    entry = find_type(kind, default_registry)
    return (positional_names(entry.target) if entry else None) or []


def _renamed(built: GraphModel, model: GraphModel, owners: Mapping[str, str]) -> dict[str, Tensor]:
    """The weights of `model` under the names of `built`, in which a shared module has several."""
    state = model.state_dict()
    renamed = {}
    for name in built.state_dict():
        _, component, rest = name.split(".", 2)
        source = f"graph_modules.{owners.get(component, component)}.{rest}"
        if source in state:
            renamed[name] = state[source]
    return renamed


def _same_outputs(first: GraphModel, second: GraphModel, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether two models give the same for random inputs."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn((3, *shapes[name]), generator=generator) for name in second.inputs]
    with torch.no_grad():
        named = dict(zip(second.inputs, tensors, strict=True))
        found = [tree_leaves(model(**named)) for model in (first, second)]
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*found, strict=True))
