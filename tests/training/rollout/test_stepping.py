"""The stepping core: masks by every way, whoever plays; rows without one are all legal, dead ones are told."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

import policysmith
from policysmith.errors import EnvironmentFailure, MaskError, PolicysmithError
from policysmith.training.environments.autoreset import self_resetting
from policysmith.training.environments.legal import merged_masks, vector_mask
from policysmith.training.environments.make import make_vector
from policysmith.training.rollout import stepping
from policysmith.training.rollout.collector import Collector
from policysmith.training.rollout.dataset_recording import record_episodes
from policysmith.training.rollout.evaluation import evaluate_policy, record_video
from policysmith.training.sections import Environment
from tests.training.environments.wrong_environments import Plain, known

MODEL = {"type": "mlp", "hidden": [4]}
ROWS = np.array([True, False])


def told(masks, space):
    """The info of a vector whose environments tell these masks; None tells none."""

    class Telling(Plain):
        action_space = space

        def __init__(self, mask):
            self.mask = mask

        def told(self):
            return {} if self.mask is None else {"action_mask": self.mask}

    return SyncVectorEnv([lambda mask=mask: Telling(mask) for mask in masks]).reset(seed=0)[1]


def plain(value):
    if isinstance(value, dict):
        return {key: plain(below) for key, below in value.items()}
    return (
        tuple(map(plain, value)) if isinstance(value, tuple) else None if value is None else np.asarray(value).tolist()
    )


@pytest.mark.parametrize(
    ("space", "mask", "expected"),
    [
        (spaces.Discrete(3), np.array([1, 0, 1], np.int8), [[1, 0, 1], [1, 1, 1]]),
        (spaces.Discrete(3), [1, 0, 1], [[1, 0, 1], [1, 1, 1]]),
        (
            spaces.MultiDiscrete([2, 3]), (np.array([0, 1]), np.array([1, 0, 0])),
            ([[0, 1], [1, 1]], [[1, 0, 0], [1, 1, 1]]),
        ),
        (
            spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(-1, 1, (1,)), c=spaces.Discrete(2)),
            {"a": np.array([0, 1]), "c": np.array([1, 0])}, {"a": [[0, 1], [1, 1]], "c": [[1, 0], [1, 1]]},
        ),
        (
            spaces.Tuple([spaces.Discrete(2), spaces.Box(-1, 1, (1,))]), (np.array([0, 1]), None),
            ([[0, 1], [1, 1]], None),
        ),
    ],
    ids=["array", "list", "by variable", "dict", "tuple"],
)  # fmt: skip
def test_a_row_without_a_mask_is_all_legal(space, mask, expected):
    assert plain(vector_mask(told([mask, None], space))) == expected
    assert vector_mask(told([None, None], space)) is None


def test_rows_begun_anew_have_their_own_masks():
    old, new = np.array([[0, 1], [0, 1]]), np.array([[1, 0], [1, 0]])
    assert merged_masks(old, new, ROWS).tolist() == [[1, 0], [0, 1]]
    assert merged_masks(old, None, ROWS).tolist() == [[1, 1], [0, 1]]
    assert merged_masks(None, new, ROWS).tolist() == [[1, 0], [1, 1]]
    assert plain(merged_masks({"a": old}, {"b": new}, ROWS)) == {"a": [[1, 1], [0, 1]], "b": [[1, 0], [1, 1]]}


class Sometimes(gym.Env):
    """Tells a mask at even steps, of all but one action; at odd ones all is legal. The first copy tells none."""

    observation_space, action_space = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(3)
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    made = 0

    def __init__(self, render_mode=None):
        self.render_mode, self.quiet = render_mode, type(self).made % 2 == 0 and render_mode is None
        type(self).made += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(3, np.float32), self._told()

    def step(self, action):
        assert self.quiet or self.t % 2 or action == 1, "an illegal action"
        self.t += 1
        return np.zeros(3, np.float32), float(action == 0), False, self.t >= 6, self._told()

    def _told(self):
        return {} if self.quiet or self.t % 2 else {"action_mask": np.array([0, 1, 0], np.int8)}

    def render(self):
        return np.zeros((2, 2, 3), np.uint8)


@pytest.fixture
def sometimes(monkeypatch):
    monkeypatch.setattr(Sometimes, "made", 0)
    with known(Sometimes) as name:
        yield Environment(name, 2)


def policy_for(kind=Sometimes, **execution):
    config = {"model": MODEL, "execution": execution}
    return policysmith.build(config, kind.observation_space, kind.action_space, seed=0)


def test_a_rollout_has_the_masks_of_every_row_and_step(sometimes):
    torch.manual_seed(0)
    rollout = Collector(policy_for(), make_vector(sometimes), seed=0).collect(24)
    assert rollout.masks[0][:, 0].all() and rollout.masks[0][1::2].all()
    assert rollout.masks[0][::2, 1].tolist() == [[False, True, False]] * 12
    assert len(rollout.actions[0][:, 0].unique()) == 3


def test_judging_filming_and_recording_obey_masks_of_info(sometimes, monkeypatch, tmp_path):
    from policysmith.training.rollout import evaluation

    frames = []
    monkeypatch.setattr(evaluation, "film_writer", lambda: lambda found, fps, path: frames.extend(found) or path)
    policy = policy_for()
    evaluate_policy(policy, sometimes, 4, deterministic=False)
    record_video(policy, sometimes, tmp_path / "film.mp4", deterministic=False)
    assert len(frames) == 6
    found = record_episodes(policy, sometimes, 4, random_share=0.5, deterministic=False)
    masks = found.columns["action_mask"].reshape(4, 7, 3)[:, :6]  # the last row closes an episode
    assert masks[:, 1::2].all() and sorted(masks[:, ::2].sum(-1).flatten().tolist()) == [1] * 6 + [3] * 6


class Stuck(Plain):
    """In the midst of an episode nothing is legal, and at its end."""

    length = 5

    def __init__(self, at=2):
        self.at = at

    def told(self):
        return {"action_mask": np.zeros(2, bool) if self.t == self.at else np.ones(2, bool)}


def stuck(at, autoreset="same_step", strict=False):
    policy = policy_for(Stuck, strict_masks=strict)
    with known(Stuck) as name:
        section = Environment(name, 2, autoreset=autoreset, options={"at": at})
        return Collector(policy, make_vector(section), seed=0).collect(20)


def test_an_environment_that_leaves_no_action_is_told_once():
    with pytest.warns(UserWarning, match=r"environments 0, 1: the legal mask leaves no action, so action 0") as caught:
        rollout = stuck(2)
    assert len(caught) == 1
    assert rollout.actions[0][2].tolist() == [0, 0] and rollout.log_probs[2].tolist() == [0.0, 0.0]


def test_strict_masks_stop_there():
    with pytest.raises(MaskError, match="environments 0, 1: the legal mask leaves no action, and strict_masks is on"):
        stuck(2, strict=True)


@pytest.mark.parametrize("autoreset", ["same_step", "next_step", "disabled"])
def test_nothing_has_to_be_legal_where_an_episode_has_ended(autoreset):
    assert len(stuck(5, autoreset, strict=True).episodes) >= 4


def test_a_vector_that_nobody_begins_anew_is_refused():
    inner = SyncVectorEnv([Plain] * 2, autoreset_mode=AutoresetMode.DISABLED)

    class Foreign(VectorEnv):
        num_envs, metadata = 2, inner.metadata

    with pytest.raises(PolicysmithError, match=r"Foreign leaves ended episodes as they are .*take another mode"):
        self_resetting(Foreign())


@pytest.mark.parametrize("copy", [True, False])
def test_the_modes_same_step_and_disabled_are_alike(copy):
    def collected(mode):
        torch.manual_seed(0)
        make = partial(gym.make, "CartPole-v1", max_episode_steps=12)
        environments = SyncVectorEnv([make] * 2, copy, autoreset_mode=mode)
        policy = policysmith.build({"environment": {"id": "CartPole-v1"}, "model": MODEL}, seed=0)
        return Collector(policy, environments, seed=0).collect(40)

    one, other = collected(AutoresetMode.SAME_STEP), collected(AutoresetMode.DISABLED)
    for name in ("rewards", "values", "next_values", "done", "terminated", "log_probs"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert one.episodes == other.episodes and len(one.episodes) >= 6
    if copy:  # else the rollout holds one array that is written over, in either mode
        assert torch.equal(one.observations[0], other.observations[0])


class Endless(Plain):
    length = 10**9


def test_who_judges_does_not_wait_forever(monkeypatch):
    monkeypatch.setattr(stepping, "LONGEST", 40)
    with known(Endless) as name, pytest.raises(EnvironmentFailure, match=r"no end after 40 steps: give .* a time"):
        evaluate_policy(policy_for(Endless), Environment(name), 2)
