"""Models of named networks: graphs from files, or whatever a model factory builds, joined by the names of their edges.

In: graphs or a factory, and what joins them. Out: components, one for each network, and the two heads.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import nn

from policysmith.compile.model import GraphModel
from policysmith.config.options import error_at, located, options_of
from policysmith.dialects.policy_constructor.factory_model import Factory, build_networks
from policysmith.dialects.policy_constructor.network_components import Network, join
from policysmith.errors import PolicysmithError
from policysmith.graph.source import Graph, GraphSource
from policysmith.registry import Infer, part, register

__all__ = ["factory", "networks"]

MAIN = "main"
Leaves = Annotated[tuple[str, ...], Infer("observation_leaves")]
Head = str | dict[str, Any]
Wiring = dict[str, dict[str, str]]
BuildArgs = dict[str, dict[str, Any]]


@register(
    "networks",
    slot="model",
    named=True,
    components="component_config_paths",
    graph_files={"component_config_paths": "component_config_paths", "config_path": "config"},
)
def networks(
    component_config_paths: dict[str, Annotated[GraphSource, Graph()]] | None = None,
    config: Annotated[GraphSource, Graph()] | None = None,
    config_path: str | None = None,
    policy: Head = "policy",
    value: Head = "value",
    wiring: Wiring = {},  # noqa: B006 - read only
    component_build_args: BuildArgs = {},  # noqa: B006
    batch_coupled: bool = False,
    base_dir: str | None = None,
    leaves: Leaves = (),
) -> dict[str, Any]:
    """Named networks, each a graph in either grammar, joined by the names of their inputs and outputs.

    Args:
        component_config_paths: networks by name, each the path of a graph's file, or the graph.
        config: a single network, called main, as a graph.
        config_path: a single network as the path of a graph's file.
        policy: the edge that is the policy's distribution parameters, or a head that reads edges.
        value: the edge that is the value, or a head that reads edges.
        wiring: what a network's inputs read, where their own names do not say it.
        component_build_args: settings of each network: init, freeze, online_update, load, wrappers.
        batch_coupled: consents to batch normalisation.
        base_dir: where paths start, in place of the directory of the file that has them.
        leaves: the leaves of the observation.
    """
    given = {"component_config_paths": component_config_paths, "config": config, "config_path": config_path}
    stated = [name for name, value in given.items() if value]
    if len(stated) != 1:
        found = f"found {' and '.join(stated)}" if stated else "found none"
        raise located("networks", [error_at((), f"needs one of {', '.join(given)}; {found}")])
    if config_path is not None:
        message = f"the file {config_path!r} was not read: files are, where a whole experiment is loaded"
        raise located("networks", [error_at(("config_path",), message)])
    graphs: Mapping[str, GraphSource | None] = component_config_paths or {MAIN: config}
    made = {
        name: Network(graph.inputs, graph.outputs, graph.single, {"type": "graph_model", "config": graph})
        for name, graph in graphs.items()
        if graph is not None
    }
    return join(made, leaves, wiring, component_build_args, {"policy": policy, "value": value})


@register("factory", slot="model", named=True, reads_files=True)
@options_of(networks, without=("component_config_paths", "config", "config_path"))
def factory(
    factory: Factory,
    config: dict[str, Any] = {},  # noqa: B006 - parts get their options anew
    **options: Any,
) -> dict[str, Any]:
    """Named networks that a registered model factory builds, joined by the names of their inputs and outputs.

    Inputs are a network's `inputs`, or else the arguments of its forward; outputs are its `outputs`, or else one of its
    own name.

    Args:
        factory: the model factory.
        config: what the factory's `build` is given.
        component_build_args: as of `networks`, and `out_keys`, the names of a network's results.
        base_dir: where the factory's paths start.
    """
    spec = part("model_factory", factory)
    try:
        with torch.device("meta"):
            built = build_networks(spec, config, options["base_dir"])
    except (ValueError, TypeError, KeyError, OSError, PolicysmithError) as error:
        message = f"{spec.type!r} fails: {type(error).__name__}: {error}"
        raise located("factory", [error_at(("factory",), message)]) from error
    wiring, settings = options["wiring"], options["component_build_args"]
    shared = {"type": "factory_model", "factory": spec, "config": config, "base_dir": options["base_dir"]}
    made = {
        name: _network(module, {**shared, "network": name}, wiring.get(name, {}), settings.get(name, {}))
        for name, module in built.items()
    }
    return join(made, options["leaves"], wiring, settings, {role: options[role] for role in ("policy", "value")})


def _network(
    module: nn.Module, component: dict[str, Any], wiring: Mapping[str, str], settings: Mapping[str, Any]
) -> Network:
    """What a module of somebody's own reads and gives."""
    if isinstance(module, GraphModel):
        single = isinstance(module.outputs, str)
        return Network(module.inputs, (module.outputs,) if single else tuple(module.outputs), single, component)  # type: ignore[arg-type]
    parameters = inspect.signature(module.forward).parameters.values()
    inputs = [p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
    extra = [name for name in wiring if name not in inputs and name in {p.name for p in parameters}]
    outputs = tuple(settings.get("out_keys", (component["network"],)))
    return Network((*inputs, *extra), outputs, "out_keys" not in settings, component, bool(extra))
