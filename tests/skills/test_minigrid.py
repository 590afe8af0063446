"""MiniGrid as skills see it: features tell what is there, and the vector tells a network all of it."""

import numpy as np
import pytest

from policysmith.errors import ConfigError, SkillError
from policysmith.registry import part
from policysmith.skills.environments.minigrid import CHANNELS, COLORS, DOORS, KINDS, MiniGrid
from policysmith.skills.modules.tasks import task_and_reward_funcs

pytest.importorskip("minigrid")
LEFT, RIGHT, FORWARD, PICK_UP, DROP, TOGGLE = range(6)


def functions(reward=lambda steps: 0.0, is_done=lambda steps: False):
    return task_and_reward_funcs({"task_0_is_done": is_done, "task_0_reward": reward,
                                  "task_0_network_number": lambda: 0})  # fmt: skip


def copy_of(id="MiniGrid-DoorKey-5x5-v0", seed=0, **options):
    copy = MiniGrid(id, num_envs=1, **options).world(functions()).copies[0]
    copy.reset(seed)
    return copy


def face(copy, kind):
    """Put the agent before the block of a kind."""
    grid = copy._grid
    for index, block in copy._blocks():
        if block.type == kind:
            y, x = divmod(index, grid.width)
            for direction, (dx, dy) in enumerate([(1, 0), (0, 1), (-1, 0), (0, -1)]):
                if grid.grid.get(x - dx, y - dy) is None:
                    grid.agent_pos, grid.agent_dir = (x - dx, y - dy), direction
                    return (x, y)
    raise AssertionError(kind)


def test_a_copy_tells_every_feature_that_it_declares_and_no_other():
    assert set(copy_of().features()) == MiniGrid.features


def test_features_follow_what_happens():
    copy = copy_of()
    face(copy, "key")
    copy.step(LEFT), copy.step(RIGHT)
    assert copy.features()["closest_blocks"]["key"] == 1
    copy.step(PICK_UP)
    told = copy.features()
    assert told["inventory"]["key"] == told["inventory_diff"]["key"] == 1
    assert told["closest_blocks"]["key"] == 10 and told["closest_blocks_prev"]["key"] == 1  # none left: 5 + 5
    face(copy, "door")
    copy.step(TOGGLE)
    told = copy.features()
    assert told["doors"] == {"open": 1, "closed": 0, "locked": 0}
    assert told["doors_diff"] == {"open": 1, "closed": 0, "locked": -1} and told["inventory_diff"]["key"] == 0
    where = face(copy, "goal")
    _, terminated, truncated = copy.step(FORWARD)
    assert (terminated, truncated) == (True, False)
    assert copy.features()["at_goal"] and copy.features()["position"] == where


def test_the_vector_holds_the_whole_grid():
    copy = copy_of("MiniGrid-DoorKey-8x8-v0", seed=3)
    seen = copy._seen()
    assert copy.observation_space.contains(seen)
    grid = copy._grid
    cells = seen[: grid.width * grid.height * CHANNELS].reshape(grid.height, grid.width, CHANNELS)
    for y in range(grid.height):
        for x in range(grid.width):
            block, cell = grid.grid.get(x, y), cells[y, x]
            kinds = [kind for kind, there in zip(KINDS, cell, strict=False) if there]
            assert kinds == ([] if block is None else [block.type])
            if block is not None:
                assert cell[len(KINDS) + COLORS.index(block.color)] == 1
            here = cell[-4:].nonzero()[0].tolist()
            assert here == ([grid.agent_dir] if (x, y) == tuple(grid.agent_pos) else [])
    door = cells[..., len(KINDS) + len(COLORS) : -4].sum((0, 1))
    assert door.tolist() == [float(state == "locked") for state in DOORS]


def test_the_same_seed_gives_the_same_grids_and_others_differ():
    world, again = (MiniGrid("MiniGrid-DoorKey-5x5-v0", num_envs=3).world(functions()) for _ in range(2))
    first = world.reset(7)
    assert np.array_equal(first, again.reset(7)) and not np.array_equal(first[0], first[1])


def test_a_time_limit_cuts_off():
    copy = copy_of(max_steps=2)
    assert [copy.step(LEFT)[1:] for _ in range(2)] == [(False, False), (False, True)]


@pytest.mark.parametrize(("reward", "told"), [(lambda steps: float("nan"), "nan"), (lambda steps: "much", "not a num")])
def test_a_reward_that_is_no_finite_number_is_an_error(reward, told):
    world = MiniGrid("MiniGrid-Empty-5x5-v0", num_envs=2).world(functions(reward))
    world.reset(0)
    with pytest.raises(SkillError, match=f"task_0_reward gave .*{told}"):
        world.step(np.zeros(2, int), np.zeros(2, int))


def test_only_environments_of_minigrid_are_made():
    with pytest.raises(ConfigError, match="can't be made"):
        MiniGrid("MiniGrid-Nowhere-v0").world(functions())
    with pytest.raises(ValueError, match="names begin with MiniGrid-"):
        part("skill_environment", {"type": "minigrid", "id": "CartPole-v1"}).build()
