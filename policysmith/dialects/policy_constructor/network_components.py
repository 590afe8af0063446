"""Networks with named inputs and outputs become components: an input reads the output, or the leaf, of its name.

In: networks, what is said of their wiring, and the leaves of the observation. Out: components as a file would say them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import InitErrorDetails

from policysmith.config.options import error_at, located
from policysmith.errors import did_you_mean
from policysmith.graph.spec import name_problem

__all__ = ["Network", "join"]

ROOT = "observation"
BUILD_KEYS = ("init", "freeze", "online_update", "load", "wrappers")
HEADS = {"policy": ("policy", "policy_output", "policy_head"), "value": ("state_value", "value_output", "value_head")}


@dataclass(frozen=True)
class Network:
    """What one network reads and gives by name, and the component that it is (all but its keys).

    `single` says that it gives one tensor: its edge has the network's name, and is found by the output's, too. Inputs
    are given in order, unless it takes them `by_name`.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    single: bool
    component: Mapping[str, Any] = field(default_factory=dict)
    by_name: bool = False


def join(
    networks: Mapping[str, Network],
    leaves: Sequence[str],
    wiring: Mapping[str, Mapping[str, str]],
    build_args: Mapping[str, Mapping[str, Any]],
    heads: Mapping[str, str | Mapping[str, Any]],
) -> dict[str, Any]:
    """Components by name, the two heads last; a `ValidationError` says of each input what is wrong with it."""
    edges = _Edges(networks, leaves)
    errors: list[InitErrorDetails] = [*_unknown(networks, wiring, build_args)]
    components: dict[str, Any] = {}
    for name, network in networks.items():
        in_keys = {}
        for wanted in network.inputs:
            stated = wiring.get(name, {}).get(wanted)
            found, problem = edges.find(stated or wanted, None if stated else name)
            if problem:
                remedy = "" if stated else f": say what it reads, wiring: {{{name}: {{{wanted}: …}}}}"
                what = f"input {wanted!r} of {name!r}: {problem}{remedy}"
                errors.append(error_at(("wiring", name, wanted) if stated else ("wiring",), what))
            in_keys[wanted] = found
        settings = {key: value for key, value in build_args.get(name, {}).items() if key in BUILD_KEYS}
        keys = in_keys if network.by_name else list(in_keys.values())
        components[name] = {**network.component, "in_keys": keys, "out_keys": edges.of(name), **settings}
    for role, written in heads.items():
        name = next(name for name in HEADS[role] if name not in {*networks, *edges.all})
        components[name] = _head(role, written, edges, errors)
    if errors:
        raise located("networks", errors)
    return components


class _Edges:
    """Every edge by the names that it is found under."""

    def __init__(self, networks: Mapping[str, Network], leaves: Sequence[str]) -> None:
        self._edges: dict[str, tuple[str, ...]] = {}
        self._owners: dict[str, str] = {}
        self._names: dict[str, dict[str, None]] = {}
        self.leaves = tuple(leaves)
        taken = Counter([*networks, *(out for n in networks.values() if not n.single for out in n.outputs)])
        for name, network in networks.items():
            for output in network.outputs:
                free = taken[output] == 1 and name_problem(output) is None
                edge = name if network.single else output if free else f"{name}_{output}"
                self._edges[name] = (*self._edges.get(name, ()), edge)
                self._owners[edge] = name
                for alias in (edge, output, f"{name}.{output}"):
                    self._names.setdefault(alias, {})[edge] = None
        for leaf in leaves:
            below = leaf.split(".")
            for start in range(len(below)):
                if start or len(below) > 1 or leaf == ROOT:
                    self._names.setdefault(".".join(below[start:]), {})[leaf] = None

    @property
    def all(self) -> tuple[str, ...]:
        """Every edge that a network gives."""
        return tuple(self._owners)

    def of(self, name: str) -> list[str]:
        """The edges that a network gives."""
        return list(self._edges[name])

    def find(self, name: str, reader: str | None = None) -> tuple[str, str | None]:
        """The edge of that name, not one that `reader` gives itself; or what is wrong."""
        found = [edge for edge in self._names.get(name, ()) if reader is None or self._owners.get(edge) != reader]
        if len(found) == 1:
            return found[0], None
        if found:
            return "", f"{name!r} may be {' or '.join(map(self._shown, found))}"
        hint = did_you_mean(name, self._names)
        there = ", ".join([*self._owners, *self.leaves])
        return "", f"nothing gives {name!r}{hint}; there are: {there}"

    def _shown(self, edge: str) -> str:
        return f"{edge!r} of network {self._owners[edge]!r}" if edge in self._owners else f"the leaf {edge!r}"


def _head(role: str, written: str | Mapping[str, Any], edges: _Edges, errors: list[InitErrorDetails]) -> dict[str, Any]:
    """The component that makes the policy, or the value, of an edge."""
    if isinstance(written, str):
        found, problem = edges.find(written)
        if problem:
            errors.append(error_at((role,), f"{problem}: name the edge that is the {role}, or give a head"))
        return {"type": HEADS[role][1], "in_keys": found}
    keys = written.get("in_keys")
    names = keys if isinstance(keys, list) else [keys]
    found_keys = []
    for name in names:
        found, problem = edges.find(name) if isinstance(name, str) else ("", "required: the edges that the head reads")
        if problem:
            errors.append(error_at((role, "in_keys"), problem))
        found_keys.append(found)
    return {**written, "in_keys": found_keys}


def _unknown(
    networks: Mapping[str, Network],
    wiring: Mapping[str, Mapping[str, str]],
    build_args: Mapping[str, Mapping[str, Any]],
) -> list[InitErrorDetails]:
    """What is said of networks and inputs that there are not, and settings that nobody knows."""
    errors = []
    for section, said in (("wiring", wiring), ("component_build_args", build_args)):
        for name in said:
            if name not in networks:
                hint = did_you_mean(name, networks) or f"; there are: {', '.join(networks)}"
                errors.append(error_at((section, name), f"there is no network {name!r}{hint}"))
    for name, inputs in wiring.items():
        for wanted in inputs if name in networks else ():
            if wanted not in networks[name].inputs:
                there = ", ".join(networks[name].inputs)
                hint = did_you_mean(wanted, networks[name].inputs) or f"; it has: {there}"
                errors.append(error_at(("wiring", name, wanted), f"{name!r} has no input {wanted!r}{hint}"))
    for name, settings in build_args.items():
        for key in settings:
            if key not in (*BUILD_KEYS, "out_keys"):
                hint = did_you_mean(key, BUILD_KEYS) or f"; there are: {', '.join(BUILD_KEYS)}"
                errors.append(error_at(("component_build_args", name, key), f"unknown setting{hint}"))
    return errors
