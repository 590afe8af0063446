"""What a legacy agent's configuration says: components with their sources, and the agent's own options.

In: a composed document. Out: `Agent`; every mistake is noted as a problem with its place, none is raised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policysmith.config.load import Document, Path
from policysmith.errors import Problem, did_you_mean

__all__ = ["ACTION", "VALUE", "Agent", "Layer", "ComponentSource", "read_agent"]

ACTION, VALUE = "_action_", "_value_"
OF_COMPONENT = ("_target_", "sources", "nn_params", "name", "_recursive_", "_convert_", "_partial_")


@dataclass(frozen=True)
class ComponentSource:
    """What a component reads: all of another's output, or entries `start` to `stop` of dimension `dim`, 0 the batch."""

    name: str
    start: int | None = None
    stop: int | None = None
    dim: int | None = None


@dataclass(frozen=True)
class Layer:
    """One component as written: its class's last name, what it reads, torch's arguments and its own options."""

    name: str
    kind: str
    sources: tuple[ComponentSource, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


class Agent:
    """A legacy agent: `layers` by name in the order of the text, its own `options`, and the `problems` found."""

    def __init__(self, document: Document, base: Path) -> None:
        self._document, self._base = document, base
        self.problems: list[Problem] = []
        self.layers: dict[str, Layer] = {}
        self.options: dict[str, Any] = {}

    def problem(self, path: Sequence[str | int], message: str) -> None:
        """Note what is wrong at `path`, which starts at a component's name or an option of the agent."""
        place = (*self._base, "components", *path) if path and path[0] in self.layers else (*self._base, *path)
        found = self._document.problem(place, message)
        if found not in self.problems:
            self.problems.append(found)


def read_agent(document: Document) -> Agent:
    """The agent in a file of its own, or under `agent` in a whole configuration."""
    base: Path = () if "components" in document.data else ("agent",)
    agent = Agent(document, base)
    data = document.data["agent"] if base else document.data
    components = data.get("components") if isinstance(data, Mapping) else None
    if not isinstance(components, Mapping) or not components:
        agent.problem(("components",), "expected a mapping from names to components: this is no legacy agent")
        return agent
    agent.options = {key: value for key, value in data.items() if key not in ("components", "agent")}
    agent.layers = {name: Layer(name, "") for name in components}  # so that problems find their place
    for name, entry in components.items():
        agent.layers[name] = _layer(agent, name, entry)
    for name in (VALUE, ACTION):
        if name not in agent.layers:
            agent.problem((), f"no component {name!r}{did_you_mean(name, agent.layers)}: every legacy agent has one")
    _check_sources(agent)
    return agent


def _layer(agent: Agent, name: str, entry: Any) -> Layer:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("_target_"), str):
        agent.problem((name,), "expected a mapping with '_target_', the name of a class")
        return Layer(name, "")
    params = entry.get("nn_params") or {}
    if not isinstance(params, Mapping):
        agent.problem((name, "nn_params"), f"expected a mapping, found {params!r}")
        params = {}
    options = {key: value for key, value in entry.items() if key not in OF_COMPONENT}
    kind = entry["_target_"].rpartition(".")[2]
    return Layer(name, kind, _sources(agent, name, entry.get("sources")), dict(params), options)


def _sources(agent: Agent, name: str, written: Any) -> tuple[ComponentSource, ...]:
    entries = [] if written is None else written if isinstance(written, list) else [written]
    return tuple(_source(agent, (name, "sources", index), entry) for index, entry in enumerate(entries))


def _source(agent: Agent, path: Path, entry: Any) -> ComponentSource:
    if isinstance(entry, str):
        return ComponentSource(entry)
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        agent.problem(path, f"expected a component's name, or a mapping with 'name', found {entry!r}")
        return ComponentSource("")
    if unknown := [key for key in entry if key not in ("name", "slice", "dim")]:
        agent.problem(path, f"unknown {', '.join(map(repr, unknown))}: a source has name, slice and dim")
    bounds, dim = entry.get("slice"), entry.get("dim")
    if dim is not None and (type(dim) is not int or dim == 0):
        agent.problem((*path, "dim"), f"expected a dimension, 1 or more (0 is the batch), found {dim!r}")
        dim = None
    if bounds is None:
        return ComponentSource(entry["name"], dim=dim)
    if not isinstance(bounds, list) or len(bounds) != 2 or any(type(bound) is not int for bound in bounds):
        agent.problem((*path, "slice"), f"expected [start, end], found {bounds!r}")
        return ComponentSource(entry["name"], dim=dim)
    if "dim" not in entry:
        agent.problem(path, "a slice needs 'dim': 1 is the first dimension after the batch")
    return ComponentSource(entry["name"], bounds[0], bounds[1], dim)


def _check_sources(agent: Agent) -> None:
    """Every source exists, and every component is on a way to the actions or the value."""
    for layer in agent.layers.values():
        for index, source in enumerate(layer.sources):
            if source.name and source.name not in agent.layers:
                hint = did_you_mean(source.name, agent.layers)
                agent.problem((layer.name, "sources", index), f"reads {source.name!r}, which does not exist{hint}")
    reached: set[str] = set()
    ways = [VALUE, ACTION]
    while ways:
        name = ways.pop()
        if name in agent.layers and name not in reached:
            reached.add(name)
            ways += [source.name for source in agent.layers[name].sources]
    if agent.problems:
        return  # what is missing would make others look idle
    for name in agent.layers:
        if name not in reached:
            agent.problem((name,), f"neither {ACTION} nor {VALUE} depends on it: the original refused it too")
