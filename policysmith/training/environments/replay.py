"""An environment that can be brought back to where it stood: its latest reset and the steps since, played again.

In: one environment. Out: the same, with a journal: the generators before the latest reset, and the actions since; or
what `get_state()` gives, of an environment that has it and `set_state(state)`: arrays by name. Nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

__all__ = ["Begin", "JournalEntry", "EpisodePosition", "Replayable", "Replayed", "spaces_kept"]

LONGEST = 100_000  # steps of an episode that are kept, and played again: more would take memory and minutes
# Wrappers whose own state ends with the episode, or is told here: what `set_state` sets lies beneath them.
STATELESS = frozenset({
    "Replayable", "ActionMasks", "OrderEnforcing", "PassiveEnvChecker", "TimeLimit", "ClipAction", "FilterObservation",
    "FlattenObservation", "GrayscaleObservation", "RescaleAction", "RescaleObservation", "ReshapeObservation",
    "ResizeObservation",
})  # fmt: skip
Generators = list[dict[str, Any] | None]


class Begin(NamedTuple):
    """How the latest episode began: the seed of its reset, else the generators before it and what outlives episodes."""

    seed: int | None
    generators: Generators
    carried: dict[str, list[Any]]


class JournalEntry(NamedTuple):
    """What happened in an environment since its journal was last asked for; `actions` is None if they are too many."""

    episode: int
    begin: Begin
    actions: list[Any] | None
    generators: Generators
    state: dict[str, np.ndarray] | None


class EpisodePosition(NamedTuple):
    """Where an environment stood. `pending`: its episode has ended, and its next step is the reset.

    `total` is the sum of the episode's rewards, where it is known.
    """

    begin: Begin
    actions: list[Any]
    generators: Generators
    state: dict[str, np.ndarray] | None
    steps: int
    pending: bool
    total: float | None


class Replayed(NamedTuple):
    """What an environment shows again, and why it is not what it was (None where it is)."""

    observation: Any
    info: dict[str, Any]
    problem: str | None


class Replayable(gym.Wrapper):
    """Keeps the journal of an environment, the one numbered `index` of a vector."""

    def __init__(self, env: gym.Env, index: int) -> None:
        super().__init__(env)
        self._index, self._episode, self._told = index, 0, 0
        self._drawing = _owners(env)
        self._begin = Begin(None, [], {})
        self._actions: list[Any] | None = []
        self._pending = False
        self._has_state = _has_state(env)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode and its journal; a seed is that of the spaces too, which no reset of gymnasium seeds."""
        if seed is not None:
            self.env.action_space.seed(seed)
            self.env.observation_space.seed(seed)
        self._begin = Begin(seed, _generators(self._drawing, of_environment=seed is None), _carried(self.env))
        self._actions, self._told, self._pending = [], 0, False
        self._episode += 1
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step; after `replay` of an episode that had ended, the reset that a vector would have made."""
        if self._pending:
            observation, info = self.reset()
            return observation, 0.0, False, False, info
        if self._actions is not None:
            # a copy: an environment may write to what it is given
            self._actions.append(action.copy() if isinstance(action, np.ndarray) else action)
            if len(self._actions) > LONGEST:
                self._actions = None
        return self.env.step(action)

    def journal(self) -> JournalEntry:
        """What happened since the last call; all of the episode, if it is another one."""
        state = _state_of(self.env) if self._has_state else None
        actions = [] if state is not None else None if self._actions is None else self._actions[self._told :]
        self._told = len(self._actions or ())
        return JournalEntry(self._episode, self._begin, actions, _generators(self._drawing), state)

    def replay(self, places: Sequence[EpisodePosition]) -> Replayed:
        """Bring the environment to its own of the places."""
        place = places[self._index]
        try:
            return self._replay(place)
        except Exception as error:  # whatever an environment raises that does not behave as it did
            return Replayed(None, {}, f"{type(error).__name__}: {error}")

    def _replay(self, place: EpisodePosition) -> Replayed:
        _load_generators(self._drawing, place.begin.generators)
        _load_carried(self.env, place.begin.carried)
        observation, info = self.reset(seed=place.begin.seed)
        self._begin = place.begin
        total, over, problem = 0.0, False, None
        for action in place.actions:
            if over:
                return Replayed(observation, info, "its episode ended earlier when it was played again")
            observation, reward, terminated, truncated, info = self.step(action)
            total, over = total + float(reward), bool(terminated or truncated)
        if place.state is not None:
            self.env.get_wrapper_attr("set_state")(place.state)
            _set_elapsed(self.env, place.steps)
            _load_generators(self._drawing, place.generators)
        elif place.total is not None and total != place.total:
            problem = "its rewards differ when it is played again"
        elif over != place.pending:
            problem = "its episode does not end as it did when it is played again"
        elif _generators(self._drawing) != place.generators:
            problem = "its generators differ after it was played again"
        self._pending = place.pending
        return Replayed(observation, info, problem)


def _has_state(env: gym.Env) -> bool:
    layers = {type(layer).__name__ for layer in _layers(env)[:-1]}
    return all(env.has_wrapper_attr(name) for name in ("get_state", "set_state")) and layers <= STATELESS


def _state_of(env: gym.Env) -> dict[str, np.ndarray] | None:
    """What `get_state` gives, if it is arrays or numbers by name; others have methods of that name for other things."""
    try:
        found = env.get_wrapper_attr("get_state")()
    except TypeError:
        return None
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        return None
    arrays = {name: np.array(value) for name, value in found.items()}
    return arrays if all(array.dtype.kind in "biuf" for array in arrays.values()) else None


def _layers(env: gym.Env) -> list[gym.Env]:
    """The wrappers, the outermost first, and the environment itself."""
    layers = [env]
    while isinstance(layers[-1], gym.Wrapper):
        layers.append(layers[-1].env)
    return layers


def _owners(env: gym.Env) -> list[Any]:
    """Who may draw: the environment, which is the first, and the spaces of every layer with those in them."""
    return [_layers(env)[-1], *_spaces(env)]


def _spaces(env: gym.Env) -> list[Any]:
    """The spaces of every layer with those in them, each once."""
    tops = [top for layer in _layers(env) for top in (layer.action_space, layer.observation_space)]
    return list({id(space): space for top in tops for space in _all(top)}.values())


@contextmanager
def spaces_kept(env: gym.Env) -> Iterator[None]:
    """What is drawn from its spaces inside, they draw again afterwards: those of a class are of every copy."""
    before = [(space, space._np_random) for space in _spaces(env)]
    for space, generator in before:
        space._np_random = deepcopy(generator)
    try:
        yield
    finally:
        for space, generator in before:
            space._np_random = generator


def _all(space: Any) -> list[Any]:
    inner = getattr(space, "spaces", ())
    return [space, *(s for below in (inner.values() if isinstance(inner, Mapping) else inner) for s in _all(below))]


def _generators(owners: Sequence[Any], of_environment: bool = True) -> Generators:
    """The state of every generator; None of a space that has not drawn yet."""
    found = [owners[0].np_random if of_environment else None, *(space._np_random for space in owners[1:])]
    return [None if generator is None else _plain(generator.bit_generator.state) for generator in found]


def _plain(state: Any) -> Any:
    """With lists in place of arrays, which generators other than NumPy's usual one have."""
    if isinstance(state, np.ndarray):
        return state.tolist()
    return {key: _plain(value) for key, value in state.items()} if isinstance(state, dict) else state


def _load_generators(owners: Sequence[Any], states: Generators) -> None:
    for owner, state in zip(owners, states, strict=True):
        if state is not None:
            owner.np_random.bit_generator.state = state


def _carried(env: gym.Env) -> dict[str, list[Any]]:
    """What wrappers of the allow-list keep from episode to episode: running statistics of rewards."""
    found = {}
    for number, layer in enumerate(_layers(env)):
        if isinstance(layer, gym.wrappers.NormalizeReward):
            running = layer.return_rms
            values = (running.mean, running.var, running.count, layer.discounted_reward)
            found[str(number)] = [np.asarray(value).tolist() for value in values]
    return found


def _load_carried(env: gym.Env, carried: Mapping[str, list[Any]]) -> None:
    layers = _layers(env)
    for number, (mean, var, count, discounted) in carried.items():
        layer: Any = layers[int(number)]
        running = layer.return_rms
        running.mean, running.var = np.asarray(mean, running.mean.dtype), np.asarray(var, running.var.dtype)
        running.count = count
        layer.discounted_reward = np.asarray(discounted)


def _set_elapsed(env: gym.Env, steps: int) -> None:
    for layer in _layers(env):
        if isinstance(layer, gym.wrappers.TimeLimit):
            layer._elapsed_steps = steps
