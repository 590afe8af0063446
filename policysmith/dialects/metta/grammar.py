"""Agents of the legacy component system: a YAML file of layers with sources, and the weights beside it.

In: the file, the weights if there are any, and what neither can know. Out: the same network as an `ActorCritic`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from gymnasium import spaces

from policysmith.config.spelling import Spelled, spelled_numbers, spelled_sizes
from policysmith.dialects.imported import Imported
from policysmith.dialects.metta.action_pairs import ActionPairs, embedding_rows
from policysmith.dialects.metta.agent import Agent, read_agent
from policysmith.dialects.metta.agent_graph import AgentGraph, graph_of
from policysmith.dialects.metta.hydra import read_composed
from policysmith.dialects.metta.layer_types import LayerSetting
from policysmith.dialects.metta.packed_state import pack_state, unpack_state
from policysmith.dialects.metta.weights import Buffers, legacy_tensors, pieces_of, take_buffers
from policysmith.dialects.rebuild import blank, rebuild
from policysmith.dialects.tensor_pieces import assembled, sources
from policysmith.dialects.weight_layout import fit
from policysmith.errors import CheckpointError, ConfigError, Problem
from policysmith.policy.actor_critic import ActorCritic
from policysmith.registry import Registry, default_registry, register
from policysmith.store.weights_file import listed, read_weights

__all__ = ["ActionPairs", "MettaGrammar", "import_agent", "pack_state", "read", "unpack_state"]

TITLE = "the weights of this agent"
Shape = tuple[int, int, int]
GRID = spelled_sizes(3, "is no grid: write height x width x features, as in 11x11x22")


def _actions(text: str) -> dict[str, int]:
    """`noop=0,move=1`."""
    entries = [re.fullmatch(r"([^=,\s]+)=(\d{1,6})", entry.strip()) for entry in text.split(",")]
    if not all(entries):
        raise ValueError(f"{text!r} are no actions: write types with their largest parameter, as in noop=0,move=1")
    return {entry[1]: int(entry[2]) for entry in entries if entry}


ACTIONS = Spelled("TYPE=MAX,…", _actions)


def import_agent(path: str | Path, **options: Any) -> ActorCritic:
    """The policy that a legacy agent's file describes, in eval mode on the CPU; the options are those of `read`."""
    return read(path, **options).policy


def read(
    path: str | Path,
    weights: str | Path | None = None,
    *,
    obs_shape: Annotated[Shape, Spelled("HxWxC", GRID)] | None = None,
    actions: Annotated[Mapping[str, int], ACTIONS] | None = None,
    trained_actions: Annotated[Mapping[str, int], ACTIONS] | None = None,
    feature_max: Annotated[Sequence[float], Spelled("N,…", spelled_numbers)] | None = None,
    seed: int = 0,
    registry: Registry | None = None,
) -> Imported:
    """A legacy agent as a policy, with notes on what was carried, changed or left behind.

    Logits (B, A) and values (B,) are the original's; its memory is state of ours (`unpack_state`).

    Args:
        path: the agent's YAML, or a whole configuration with it under `agent`. Classes are known by name, never
            imported.
        weights: `.safetensors`, or what `torch.save` wrote: a state dict. Without, weights start by `seed`.
        obs_shape: (H, W, C) of an observation; the file does not tell it.
        actions: the action types with their largest parameter, in the environment's order; by default as many actions
            as the weights had active.
        trained_actions: those that were first activated, where `actions` are others: names keep their embeddings.
        feature_max: what each of the C features is divided by, where the weights don't hold it.
        seed: of weights that start anew.
        registry: where types are looked up.

    Raises:
        ConfigError: the file, or an option; every problem, each with its place.
        CheckpointError: the weights can't be read, or are not this agent's; every tensor that differs is named.
    """
    types = registry or default_registry
    agent = read_agent(read_composed(Path(path)))
    stored = None if weights is None else read_weights(weights)
    tensors = {} if stored is None else legacy_tensors(stored.tensors)
    buffers = take_buffers(tensors, agent.layers, None if stored is None else stored.file)
    shape = _shape(agent, obs_shape)
    rows = embedding_rows(actions, trained_actions, buffers.active, agent.problems)
    setting = LayerSetting(rows, _core_size(agent), _divisors(agent, buffers, feature_max), frozenset(agent.layers))
    graph = graph_of(agent, setting, types)
    _refuse(agent)
    space = spaces.Box(0, 255, shape, np.uint8), spaces.Discrete(len(rows))
    policy = _blank(agent, graph, *space, types, seed if stored is None else None)
    if stored is None:
        _start_memories(policy, graph)
        return Imported(policy.eval(), (*graph.notes, *_changes(graph), f"weights start anew, by seed {seed}"))
    made = pieces_of(policy.state_dict(), graph.weights, tensors)
    if problems := fit(tensors, sources(made)).problems:
        raise CheckpointError(listed(f"{stored.file}: are not {TITLE}", problems))
    policy = rebuild(stored.file, graph.model, *space, assembled(made, tensors), types)
    return Imported(policy, (*graph.notes, *_changes(graph), *stored.notes()))


@register("metta", slot="grammar")
class MettaGrammar:
    """Agents of the legacy component system: their YAML, and the weights beside it."""

    weights_apart = True
    read = staticmethod(read)


def _refuse(agent: Agent) -> None:
    if agent.problems:
        raise ConfigError(agent.problems)


def _blank(
    agent: Agent,
    graph: AgentGraph,
    observation: spaces.Space[Any],
    action: spaces.Space[Any],
    registry: Registry,
    seed: int | None,
) -> ActorCritic:
    """The policy; what does not fit together is told at the place of the legacy component that it came from."""
    try:
        return blank(graph.model, observation, action, registry, seed=seed)
    except ConfigError as error:
        for problem in error.problems:
            name, *rest = problem.path.removeprefix("model.components.").split(".")
            option = f"{'.'.join(rest)}: " if rest else ""
            agent.problem((graph.origins.get(name, name),), f"{option}{problem.message}")
        raise ConfigError(agent.problems) from None


def _shape(agent: Agent, shape: Any) -> Shape:
    if isinstance(shape, tuple | list) and len(shape) == 3 and all(type(side) is int and side > 0 for side in shape):
        return (shape[0], shape[1], shape[2])
    agent.problems.append(
        Problem("obs_shape", f"the file does not tell it: give (height, width, features) with --obs-shape HxWxC "
                             f"(obs_shape=); found {shape!r}")
    )  # fmt: skip
    return (1, 1, 1)


def _core_size(agent: Agent) -> int | None:
    core = agent.layers.get("_core_")
    size = core.options.get("output_size") if core else None
    return size if type(size) is int else None


def _divisors(agent: Agent, buffers: Buffers, given: Any) -> Mapping[str, Sequence[float]]:
    """What each normalizer divides by: the numbers given, or else the stored ones."""
    if given is None:
        return buffers.divisors
    if not isinstance(given, list | tuple) or not all(type(number) in (int, float) for number in given):
        agent.problems.append(Problem("feature_max", f"expected one number a feature, found {given!r}"))
        return {}
    return dict.fromkeys(agent.layers, given)


def _start_memories(policy: ActorCritic, graph: AgentGraph) -> None:
    """Every bias of a legacy LSTM began at 1."""
    with torch.no_grad():
        for name, component in graph.components.items():
            if component["type"] == "lstm":
                for parameter, tensor in policy.components[name].named_parameters():
                    if parameter.startswith("bias"):
                        tensor.fill_(1.0)


def _changes(graph: AgentGraph) -> list[str]:
    changes = ["changed: an action is one flat index; ActionPairs turns it into (type, parameter) and back"]
    for name, component in graph.components.items():
        if component["type"] == "lstm":
            changes.append(f"changed: what {name} remembers is state, {name}/h and {name}/c (unpack_state), and is "
                           "begun anew where an episode begins")  # fmt: skip
    return changes
