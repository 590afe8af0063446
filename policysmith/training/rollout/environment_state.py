"""Where the episodes of a vector of environments stand, so that a resumed run goes on in the midst of them. N copies.

In: a vector whose copies keep a journal (`Replayable`), and after each iteration what its collector last saw. Out:
tensors and plain data for a checkpoint; and the vector back where it stood, or a sentence that says why it can't be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate
from torch import Tensor

from policysmith.training.environments.replay import Begin, EpisodePosition, JournalEntry, Replayed
from policysmith.training.rollout.collector import Collector
from policysmith.training.sections import Environment

__all__ = ["EnvironmentState", "State"]

State = tuple[dict[str, Tensor], dict[str, Any]]
ACTIONS, KEPT, SEEN = "actions", "kept", "seen"


@dataclass
class _OngoingEpisode:
    """What is known of the episode that goes on in one copy; `actions` is None if they are too many."""

    number: int
    begin: Begin
    actions: list[Any] | None

    def go_on(self, entry: JournalEntry) -> None:
        if entry.actions is None or self.actions is None:
            self.actions = None
        else:
            self.actions.extend(entry.actions)


class _Moment(NamedTuple):
    """A copy between two iterations: its episode, how many of its actions were made by then, and its generators."""

    begin: Begin
    actions: list[Any] | None
    steps: int
    generators: Any
    kept: dict[str, np.ndarray] | None


class EnvironmentState:
    """Follows the environments of a collector; `problem` says why they can't be brought back, None where they can."""

    def __init__(self, section: Environment, collector: Any) -> None:
        self.section, self.collector = section, collector
        environments: VectorEnv | None = getattr(collector, "environments", None)
        self._environments = None if environments is None else environments.unwrapped
        self._episodes: list[_OngoingEpisode] = []
        self.problem = self._obstacle()

    def _obstacle(self) -> str | None:
        if not isinstance(self.collector, Collector):
            return f"{type(self.collector).__name__} does not tell where its episodes stand"
        if not isinstance(self._environments, SyncVectorEnv | AsyncVectorEnv):
            return f"{self.section.vectorization} keeps the state of its environments to itself"
        return None

    def capture(self) -> Callable[[], State]:
        """Where everything stands now; what is returned puts it into tensors and data, however late it is called."""
        if self.problem is not None:
            problem = self.problem
            return lambda: ({}, {"problem": problem})
        assert self._environments is not None
        moments = [self._moment(i, entry) for i, entry in enumerate(self._environments.call("journal"))]
        tensors, (observation, _) = self.collector.state(), self.collector.seen
        return lambda: self._encoded(moments, tensors, observation)

    def _moment(self, index: int, entry: JournalEntry) -> _Moment:
        if len(self._episodes) <= index:
            self._episodes.append(_OngoingEpisode(-1, entry.begin, []))
        episode = self._episodes[index]
        if episode.number == entry.episode:
            episode.go_on(entry)
        else:
            episode = self._episodes[index] = _OngoingEpisode(entry.episode, entry.begin, entry.actions)
        count = len(episode.actions or ())
        return _Moment(episode.begin, episode.actions, count, entry.generators, entry.state)

    def _encoded(self, moments: Sequence[_Moment], state: Mapping[str, Tensor], observation: Any) -> State:
        assert self._environments is not None
        endless = [i for i, moment in enumerate(moments) if moment.actions is None]
        if endless:
            return {}, {"problem": f"the episode of environment {endless[0]} is too long to be played again"}
        tensors, copies = dict(state), []
        rows = list(iterate(self._environments.observation_space, observation))
        for i, moment in enumerate(moments):
            actions = [] if moment.actions is None else moment.actions[: moment.steps]
            tensors |= _named(f"{i}/{ACTIONS}", _stacked(self._environments.single_action_space, actions))
            if moment.kept is not None:
                tensors |= _named(f"{i}/{KEPT}", moment.kept)
                tensors |= _named(f"{i}/{SEEN}", rows[i])
            copies.append({
                "begin": moment.begin._asdict(), "steps": moment.steps, "generators": moment.generators,
                "seen": _digest(rows[i]), "kept": sorted(moment.kept or ()),
            })  # fmt: skip
        return tensors, {"section": _described(self.section), "copies": copies}

    def restore(self, tensors: Mapping[str, Tensor], data: Mapping[str, Any], seed: int | None = None) -> str | None:
        """Bring environments and collector to where they stood; else begin new episodes, and say why."""
        problem = self.problem or data.get("problem") or self._changed(data)
        if problem is not None:
            return problem  # the collector has begun new episodes already
        assert self._environments is not None
        begun = self.collector.state()
        problem = self._replay(tensors, data["copies"])
        if problem is not None:
            self.collector.load_state(begun, *self._environments.reset(seed=seed))
        return problem

    def _replay(self, tensors: Mapping[str, Tensor], copies: Sequence[Mapping[str, Any]]) -> str | None:
        assert self._environments is not None
        standing = self.collector.standing(tensors)
        places = [self._place(i, copies[i], tensors, *standing[i]) for i in range(len(copies))]
        shown: list[Replayed] = list(self._environments.call("replay", places))
        for i, found in enumerate(shown):
            if found.problem is not None:
                return f"environment {i} can't be brought back: {found.problem}"
        rows = [self._row(i, copies[i], found.observation, tensors) for i, found in enumerate(shown)]
        observation = _batched(self._environments.single_observation_space, rows)
        for i, row in enumerate(iterate(self._environments.observation_space, observation)):
            if _digest(row) != copies[i]["seen"]:
                return f"environment {i} can't be brought back: it shows something else when it is played again"
        info: dict[str, Any] = {}
        for i, found in enumerate(shown):
            info = self._environments._add_info(info, found.info, i)
        self.collector.load_state(tensors, observation, info)
        return None

    def _changed(self, data: Mapping[str, Any]) -> str | None:
        if "copies" not in data:
            return "the checkpoint does not say where they stood"
        if data["section"] != _described(self.section):
            return "the section environment is another one now"
        return None

    def _place(
        self,
        index: int,
        copy: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        pending: bool,
        steps: int,
        total: float | None,
    ) -> EpisodePosition:
        assert self._environments is not None
        space = self._environments.single_action_space
        actions = _unstacked(space, copy["steps"], f"{index}/{ACTIONS}", tensors)
        kept = {name: tensors[f"{index}/{KEPT}/{name}"].numpy() for name in copy["kept"]} or None
        return EpisodePosition(Begin(**copy["begin"]), actions, copy["generators"], kept, steps, pending, total)

    def _row(self, index: int, copy: Mapping[str, Any], observation: Any, tensors: Mapping[str, Tensor]) -> Any:
        """What a copy shows: of one whose state was set, what it had shown."""
        if not copy["kept"]:
            return observation
        assert self._environments is not None
        space = self._environments.single_observation_space
        return _filled(create_empty_array(space, None), f"{index}/{SEEN}", tensors)


def _described(section: Environment) -> dict[str, Any]:
    """The section as a checkpoint has it: plain data with lists for tuples, of all that makes it another one."""
    plain: dict[str, Any] = _plain(asdict(section))
    return {name: value for name, value in plain.items() if name != "check"}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(below) for key, below in value.items()}
    return [_plain(below) for below in value] if isinstance(value, list | tuple) else value


def _stacked(space: Any, actions: Sequence[Any]) -> Any:
    """Actions (T, …), as a vector lays out those of T environments."""
    return concatenate(space, actions, create_empty_array(space, len(actions))) if actions else None


def _unstacked(space: Any, count: int, name: str, tensors: Mapping[str, Tensor]) -> list[Any]:
    if not count:
        return []
    return list(iterate(batch_space(space, count), _filled(create_empty_array(space, count), name, tensors)))


def _batched(space: Any, rows: Sequence[Any]) -> Any:
    return deepcopy(concatenate(space, rows, create_empty_array(space, len(rows))))


def _named(name: str, value: Any) -> dict[str, Tensor]:
    """The arrays of a structure, by their path; whole numbers as int64, for not every kind can be stored."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {key: t for inner, below in value.items() for key, t in _named(f"{name}/{inner}", below).items()}
    if isinstance(value, tuple):
        return {key: t for i, below in enumerate(value) for key, t in _named(f"{name}/{i}", below).items()}
    array = np.asarray(value)
    return {name: torch.from_numpy(array.astype(np.int64) if array.dtype.kind in "iu" else array.copy())}


def _filled(empty: Any, name: str, tensors: Mapping[str, Tensor]) -> Any:
    """A structure of arrays with what `_named` gave in them."""
    if isinstance(empty, Mapping):
        return {key: _filled(below, f"{name}/{key}", tensors) for key, below in empty.items()}
    if isinstance(empty, tuple):
        return tuple(_filled(below, f"{name}/{i}", tensors) for i, below in enumerate(empty))
    return tensors[name].numpy().astype(empty.dtype)


def _digest(value: Any) -> str:
    """A short name of what an observation holds."""
    hashed = hashlib.sha256()

    def take(part: Any) -> None:
        if isinstance(part, Mapping):
            for key, below in part.items():
                hashed.update(str(key).encode())
                take(below)
        elif isinstance(part, tuple):
            for below in part:
                take(below)
        elif isinstance(part, np.ndarray | np.generic):
            hashed.update(str(part.dtype).encode() + np.ascontiguousarray(part).tobytes())
        else:
            hashed.update(repr(part).encode())

    take(value)
    return hashed.hexdigest()[:32]
