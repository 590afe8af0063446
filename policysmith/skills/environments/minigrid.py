"""MiniGrid for skills: the whole grid as a vector, and what lies where as features. W × H cells.

In: a MiniGrid environment's name. Out: worlds; see `MiniGrid` for the features that tasks' functions may take.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from policysmith.config.limits import Limits
from policysmith.errors import ConfigError, Problem, missing_extra
from policysmith.registry import register
from policysmith.skills.environments.skill_environment import Copies
from policysmith.skills.modules.tasks import TaskFunctions
from policysmith.types import Count

__all__ = ["MiniGrid"]

COLORS = ("red", "green", "blue", "purple", "yellow", "grey")
KINDS = ("wall", "floor", "door", "key", "ball", "box", "goal", "lava")
DOORS = ("open", "closed", "locked")
CARRIED = ("key", "ball", "box")
DIRECTIONS = 4
CHANNELS = len(KINDS) + len(COLORS) + len(DOORS) + DIRECTIONS  # of one cell


@register("minigrid", slot="skill_environment")
class MiniGrid:
    """MiniGrid and BabyAI, seen from above: every cell's object, colour and door, the agent, and what it carries.

    Functions may take `position` (x, y), `direction` (0 right, 1 down, 2 left, 3 up), `steps`, `at_goal`, `in_lava`,
    `inventory` {key, ball, box} and `inventory_diff`, `doors` {open, closed, locked} and `doors_diff`,
    `closest_blocks` (by kind, in steps of the grid; width + height where there is none) and `closest_blocks_prev`.
    `…_diff` is the change in the latest step, `…_prev` the value before it.

    Args:
        id: The registered environment.
        num_envs: How many copies there are.
        max_steps: After how many steps an episode is cut; null takes what the environment says.
    """

    features = frozenset({
        "position", "direction", "steps", "at_goal", "in_lava", "inventory", "inventory_diff", "doors", "doors_diff",
        "closest_blocks", "closest_blocks_prev",
    })  # fmt: skip

    def __init__(self, id: str, num_envs: Count = 16, max_steps: Count | None = None) -> None:
        if not id.startswith(("MiniGrid-", "BabyAI-")):
            raise ValueError(f"{id!r} is no environment of MiniGrid: names begin with MiniGrid- or BabyAI-")
        if problem := Limits().environments_problem(num_envs):
            raise ValueError(f"num_envs: {problem}")
        self.id, self.num_envs, self.max_steps = id, num_envs, max_steps

    def spaces(self) -> tuple[spaces.Box, spaces.Discrete]:
        """Those of one copy. Raises `ConfigError` for an unknown id."""
        copy = _Copy(self.id, self.max_steps)
        copy.close()
        return copy.observation_space, copy.action_space

    def world(self, functions: TaskFunctions, count: int | None = None) -> Copies:
        """Copies in this process. Raises `ConfigError` for an unknown id."""
        return Copies([_Copy(self.id, self.max_steps) for _ in range(count or self.num_envs)], functions)


class _Copy:
    """One grid. The agent's partial view is not made: it would take most of a step's time."""

    def __init__(self, id: str, max_steps: int | None) -> None:
        try:
            importlib.import_module("minigrid")
        except ImportError as error:
            raise missing_extra("minigrid", "minigrid") from error
        options = {} if max_steps is None else {"max_steps": max_steps}
        try:
            self._made = gymnasium.make(id, disable_env_checker=True, **options)
        except (gymnasium.error.Error, TypeError) as error:
            raise ConfigError([Problem("environment.id", f"{id!r} can't be made: {error}")]) from error
        self._grid: Any = self._made.unwrapped
        self._grid.gen_obs = dict
        self._cells = self._grid.width * self._grid.height
        size = self._cells * CHANNELS + len(CARRIED) + len(COLORS)
        self.observation_space = spaces.Box(0.0, 1.0, (size,), np.float32)
        self.action_space = spaces.Discrete(int(self._made.action_space.n))

    def reset(self, seed: int | None) -> np.ndarray:
        self._grid.reset(seed=seed)
        self._now = self._before = self._look()
        return self._seen()

    def step(self, action: int) -> tuple[np.ndarray, bool, bool]:
        _, _, terminated, truncated, _ = self._grid.step(action)
        self._before, self._now = self._now, self._look()
        return self._seen(), bool(terminated), bool(truncated)

    def features(self) -> Mapping[str, Any]:
        inventory, doors, closest = self._now
        inventory_before, doors_before, closest_before = self._before
        grid = self._grid
        under = grid.grid.get(*grid.agent_pos)
        return {
            "position": (int(grid.agent_pos[0]), int(grid.agent_pos[1])),
            "direction": int(grid.agent_dir),
            "steps": int(grid.step_count),
            "at_goal": under is not None and under.type == "goal",
            "in_lava": under is not None and under.type == "lava",
            "inventory": inventory,
            "inventory_diff": {kind: inventory[kind] - inventory_before[kind] for kind in CARRIED},
            "doors": doors,
            "doors_diff": {state: doors[state] - doors_before[state] for state in DOORS},
            "closest_blocks": closest,
            "closest_blocks_prev": closest_before,
        }

    def close(self) -> None:
        self._made.close()

    def _look(self) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        """What is carried, the doors, and how far the closest block of each kind is."""
        grid = self._grid
        x, y = (int(place) for place in grid.agent_pos)
        far = grid.width + grid.height
        closest, doors = dict.fromkeys(KINDS, far), Counter[str]()
        for index, block in self._blocks():
            row, column = divmod(index, grid.width)
            closest[block.type] = min(closest[block.type], abs(column - x) + abs(row - y))
            if block.type == "door":
                doors[_door(block)] += 1
        carried = "" if grid.carrying is None else grid.carrying.type
        return {kind: int(kind == carried) for kind in CARRIED}, {state: doors[state] for state in DOORS}, closest

    def _seen(self) -> np.ndarray:
        """The grid as ones and zeros."""
        grid = self._grid
        cells = np.zeros((self._cells, CHANNELS), np.float32)
        for index, block in self._blocks():
            cells[index, KINDS.index(block.type)] = 1.0
            cells[index, len(KINDS) + COLORS.index(block.color)] = 1.0
            if block.type == "door":
                cells[index, len(KINDS) + len(COLORS) + DOORS.index(_door(block))] = 1.0
        x, y = grid.agent_pos
        cells[int(y) * grid.width + int(x), CHANNELS - DIRECTIONS + int(grid.agent_dir)] = 1.0
        carried = np.zeros(len(CARRIED) + len(COLORS), np.float32)
        if grid.carrying is not None:
            carried[CARRIED.index(grid.carrying.type)] = 1.0
            carried[len(CARRIED) + COLORS.index(grid.carrying.color)] = 1.0
        return np.concatenate([cells.reshape(-1), carried])

    def _blocks(self) -> Iterable[tuple[int, Any]]:
        return ((index, block) for index, block in enumerate(self._grid.grid.grid) if block is not None)


def _door(block: Any) -> str:
    return "open" if block.is_open else "locked" if block.is_locked else "closed"
