"""A legacy agent as a graph of ours: components, where their weights come from, and what became of every option.

In: an `Agent` and a `LayerSetting`. Out: `AgentGraph`; what cannot be had is noted as a problem of the agent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from policysmith.dialects.metta.agent import ACTION, VALUE, Agent, ComponentSource, Layer
from policysmith.dialects.metta.layer_types import KINDS, UNSUPPORTED, Built, LayerSetting, LayerType, activation_type
from policysmith.errors import did_you_mean
from policysmith.graph.spec import name_problem
from policysmith.registry import Registry

__all__ = ["AgentGraph", "graph_of"]

ACTORS = ("MettaActorBig", "MettaActorSingleHead", "ActorModule")
MERGES = ("ConcatMergeLayer", "AddMergeLayer", "SubtractMergeLayer", "MeanMergeLayer", "MergeModule")
INITIALIZATIONS = ("orthogonal", "xavier", "normal", "max_0_01")
CARRIED = ("nonlinearity", "initialization")
MEASURED = "it only measured: the wrapper {type: monitoring} does"
# Options of any component that changed training, and what there is here instead.
LEFT: Mapping[str, str] = {
    "clip_range": "weights are not clipped; the wrapper {type: monitoring, clip_value: …} does it between steps",
    "clip_scale": "it scaled clip_range",
    "l2_norm_scale": "it gave no gradient there; the wrapper {type: regularized, l2_scale: …} gives one",
    "l2_init_scale": "it gave no gradient there; nothing here pulls weights to where they started",
    "analyze_weights": MEASURED,
    "effective_rank": MEASURED,
    "analyze_weights_interval": MEASURED,
    "l2_init_weight_update_interval": "there is no l2_init_scale here",
}
OF_AGENT = ("_target_", "observations", "defaults", "name", "_recursive_", "hidden_size", "core_num_layers")
SILENT = (None, False, 0)  # values that changed nothing


@dataclass
class AgentGraph:
    """`components` of ours; `weights`: prefix of our names → legacy one; `origins`: component → the legacy one.

    `coupled` tells whether batch norms are there.
    """

    components: dict[str, dict[str, Any]] = field(default_factory=dict)
    weights: dict[str, str | None] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    coupled: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def model(self) -> dict[str, Any]:
        """As a configuration of ours writes it."""
        coupled = {"batch_coupled": True} if self.coupled else {}
        return {"type": "graph", "components": self.components, **coupled}


def graph_of(agent: Agent, setting: LayerSetting, registry: Registry) -> AgentGraph:
    """Every component that can be had; the agent gains a problem for each that can't."""
    graph = AgentGraph()
    for layer in agent.layers.values():
        kind = _kind(agent, layer)
        if kind is None:
            continue
        if problem := name_problem(layer.name):
            agent.problem((layer.name,), problem)
        graph.coupled |= kind.coupled
        layer = _checked(agent, layer, kind, graph, registry)
        try:
            built = _value_head(layer, setting) or kind.make(layer, setting)
        except ValueError as error:
            agent.problem((layer.name,), f"{layer.kind}: {error}")
            continue
        graph.components.update(built.components)
        graph.weights.update(built.weights)
        graph.origins.update(dict.fromkeys(built.components, layer.name))
    _add_outputs(agent, graph)
    graph.notes += _notes(agent)
    return graph


def _kind(agent: Agent, layer: Layer) -> LayerType | None:
    """The row of the table, or a problem; each unknown class is one."""
    if layer.kind in KINDS:
        return KINDS[layer.kind]
    if layer.kind in UNSUPPORTED:
        agent.problem((layer.name,), f"{layer.kind} cannot be imported: {UNSUPPORTED[layer.kind]}")
    elif layer.kind:
        hint = did_you_mean(layer.kind, [*KINDS, *UNSUPPORTED])
        agent.problem((layer.name, "_target_"), f"unknown class {layer.kind!r}{hint}; classes are never imported")
    return None


def _checked(agent: Agent, layer: Layer, kind: LayerType, graph: AgentGraph, registry: Registry) -> Layer:
    """The layer with the arguments that its kind knows, slices only where they were understood."""
    if layer.kind.endswith("Module"):  # whose arguments stand beside the target
        beside = {name: value for name, value in layer.options.items() if name in kind.params}
        options = {name: value for name, value in layer.options.items() if name not in beside}
        layer = replace(layer, params={**layer.params, **beside}, options=options)
    for name in layer.params:
        if name not in kind.params:
            known = ", ".join(kind.params) or "none"
            agent.problem((layer.name, "nn_params", name), f"unknown argument of {layer.kind}; known here: {known}")
    fewest, most = kind.sources
    if not fewest <= len(layer.sources) <= most:
        wanted = f"{fewest}" if fewest == most else f"{fewest} or more"
        agent.problem((layer.name, "sources"), f"{layer.kind} reads {wanted} sources, found {len(layer.sources)}")
        return replace(layer, sources=(*layer.sources, *[ComponentSource("")] * fewest)[:most])
    if kind.parametric:
        _check_start(agent, layer, registry)
    if layer.kind in MERGES or not any(source.start is not None for source in layer.sources):
        return layer
    graph.notes.append(f"ignored there and here: slices of {layer.name}, for only merge layers cut their sources")
    return replace(layer, sources=tuple(ComponentSource(source.name) for source in layer.sources))


def _check_start(agent: Agent, layer: Layer, registry: Registry) -> None:
    type_ = activation_type(layer)
    if type_ is not None and type_ not in (known := registry.names("component", "nn.*")):
        agent.problem((layer.name, "nonlinearity"), f"unknown layer {type_!r}{did_you_mean(type_, known)}")
    start = layer.options.get("initialization")
    if start is not None and str(start).lower() not in INITIALIZATIONS:
        agent.problem((layer.name, "initialization"), f"unknown {start!r}; there were: {', '.join(INITIALIZATIONS)}")


def _value_head(layer: Layer, setting: LayerSetting) -> Built | None:
    """The usual value, a linear layer to one number, as a head of ours."""
    linear = layer.kind == "LinearModule" or (layer.kind == "Linear" and activation_type(layer) is None)
    if layer.name != VALUE or not linear or layer.params.get("out_features") != 1 or not layer.params.get("bias", True):
        return None
    net = f"{VALUE}._net" if layer.kind == "Linear" else None
    return Built({VALUE: {"type": "value_head", "in_keys": layer.sources[0].name}}, {f"{VALUE}.out": net})


def _add_outputs(agent: Agent, graph: AgentGraph) -> None:
    """Heads without weights, where a legacy output is no head of ours."""
    outputs = [("state_value", "value_output", VALUE)] if _type(graph, VALUE) != "value_head" else []
    if ACTION in agent.layers and agent.layers[ACTION].kind not in ACTORS:
        outputs.append(("policy", "policy_output", ACTION))
    for name, type_, key in outputs:
        while name in agent.layers:
            name += "_"
        graph.components[name] = {"type": type_, "in_keys": key}
        graph.origins[name] = key


def _type(graph: AgentGraph, name: str) -> str | None:
    return graph.components.get(name, {}).get("type")


def _notes(agent: Agent) -> list[str]:
    """What became of the options of components and of the agent itself."""
    carried: defaultdict[str, list[str]] = defaultdict(list)
    left: defaultdict[str, list[str]] = defaultdict(list)
    ignored = [name for name in agent.options if name not in OF_AGENT and name not in LEFT]
    for name in LEFT:
        if agent.options.get(name) not in SILENT:
            left[name].append("the agent")
    for layer in agent.layers.values():
        kind = KINDS.get(layer.kind)
        for name, value in layer.options.items():
            if kind and kind.parametric and name in CARRIED:
                carried[name].append(layer.name)
            elif name in LEFT:
                left[name] += [layer.name] if value not in (1 if name == "clip_scale" else None, *SILENT) else []
            elif kind and name not in (*kind.options, *kind.params):
                ignored.append(f"{layer.name}.{name}")
    notes = [f"carried: {name} of {', '.join(names)}" for name, names in carried.items()]
    if plain := [n for n, layer in agent.layers.items() if _has_default_relu(layer)]:
        notes.append(f"carried: the ReLU that follows where nothing was written: {', '.join(plain)}")
    notes += [f"left behind: {name} of {', '.join(names)}: {LEFT[name]}" for name, names in left.items() if names]
    if ignored:
        notes.append(f"ignored there and here: {', '.join(ignored)}")
    return notes


def _has_default_relu(layer: Layer) -> bool:
    kind = KINDS.get(layer.kind)
    return kind is not None and kind.parametric and "nonlinearity" not in layer.options
