"""Craftax-Classic as skills see it; run by `make test-jax`, in an environment that has JAX."""

from importlib.util import find_spec

import numpy as np
import pytest

from policysmith.errors import MissingExtraError, SkillError
from policysmith.skills.environments.craftax import CraftaxClassic
from policysmith.skills.modules.tasks import task_and_reward_funcs

LEFT, RIGHT, UP, DOWN, DO = 1, 2, 3, 4, 5


def functions(reward=lambda inventory_diff: inventory_diff["wood"], is_done=lambda inventory: inventory["wood"] >= 1):
    given = {"reward": reward, "is_done": is_done, "network_number": lambda: 0}
    names = {f"task_{task}_{kind}": function for task in range(2) for kind, function in given.items()}
    return task_and_reward_funcs(names)


@pytest.mark.skipif(find_spec("craftax") is not None, reason="craftax is installed")
def test_without_jax_the_extra_is_named():
    with pytest.raises(MissingExtraError, match=r"policysmith\[craftax\]"):
        CraftaxClassic().world(functions())


@pytest.fixture(scope="module")
def world():
    pytest.importorskip("craftax")
    return CraftaxClassic(num_envs=8, max_steps=40).world(functions())


@pytest.mark.jax
def test_worlds_follow_from_the_seed_and_differ_from_each_other(world):
    first = world.reset(3)
    assert world.observation_space.contains(first[0]) and first.shape == (8, 1345)
    again, other = world.reset(3), world.reset(4)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert len({row.tobytes() for row in first}) == 8


@pytest.mark.jax
def test_restarted_copies_are_new_and_the_others_go_on(world):
    before = world.reset(0)
    step = world.step(np.full(8, LEFT), np.zeros(8, int))
    rows = np.array([1, 6])
    fresh = world.restart(rows)
    assert not any(np.array_equal(row, old) for row in fresh for old in (*before, *step.observations))
    after = np.asarray(world._state.timestep)
    assert after[rows].tolist() == [0, 0] and after[[0, 2, 3, 4, 5, 7]].tolist() == [1] * 6
    assert len({row.tobytes() for _ in range(4) for row in world.restart(np.arange(8))}) == 32  # more than one pool


@pytest.mark.jax
def test_the_time_limit_cuts_off_and_does_not_end(world):
    world.reset(0)
    for _ in range(39):
        step = world.step(np.zeros(8, int), np.zeros(8, int))
    assert not step.truncated.any()
    step = world.step(np.zeros(8, int), np.zeros(8, int))
    assert (step.truncated | step.terminated).all() and not (step.truncated & step.terminated).any()


@pytest.mark.jax
def test_features_follow_what_happens(world):
    """Whoever comes to hold wood is told so: reward and completion agree with the inventory and the achievement."""
    world.reset(1)
    rng, told = np.random.default_rng(0), 0
    for _ in range(39):
        before = world._state
        step = world.step(rng.choice([LEFT, RIGHT, UP, DOWN, DO], 8, p=[0.15, 0.15, 0.15, 0.15, 0.4]), np.zeros(8, int))
        wood, wood_before = (np.asarray(state.inventory.wood) for state in (world._state, before))
        assert np.array_equal(step.rewards, (wood - wood_before).astype(np.float32))
        assert np.array_equal(step.task_done, wood >= 1)
        features = world._jax.vmap(world._features)(before, world._state)
        assert set(features) == CraftaxClassic.features
        assert np.array_equal(features["achievements"]["collect_wood"], np.asarray(world._state.achievements)[:, 0])
        told += int(step.task_done.any())
    assert told


@pytest.mark.jax
def test_the_closest_block_is_the_closest_that_is_seen(world):
    world.reset(2)
    features = world._jax.vmap(world._features)(world._state, world._state)
    for row in range(8):
        grid, (y, x) = np.asarray(world._state.map)[row], np.asarray(world._state.player_position)[row]
        for name, value in (("tree", 5), ("grass", 2), ("water", 3)):
            seen = [abs(a - y) + abs(b - x) for a, b in np.argwhere(grid == value)
                    if abs(a - y) <= 3 and abs(b - x) <= 4]  # fmt: skip
            assert int(features["closest_blocks"][name][row]) == min(seen, default=16)


@pytest.mark.jax
def test_observations_come_without_a_copy(world):
    from policysmith.skills.environments.craftax import _bridged

    array = world._make(world._jax.random.key(0))[0]
    assert _bridged(array).ctypes.data == array.unsafe_buffer_pointer()


@pytest.mark.jax
@pytest.mark.parametrize(
    ("reward", "told"),
    [
        (lambda inventory: 1.0 if inventory["wood"] else 0.0, "can't branch on values"),
        (lambda inventory: inventory["gold"], "KeyError: 'gold'"),
        (lambda steps: steps / 0, "not a finite number"),
    ],
)
def test_functions_that_do_not_compile_are_told(reward, told):
    pytest.importorskip("craftax")
    world = CraftaxClassic(num_envs=2).world(functions(reward))
    world.reset(0)
    with pytest.raises(SkillError, match=f"task_[01]_reward .*{told}"):
        world.step(np.zeros(2, int), np.zeros(2, int))
