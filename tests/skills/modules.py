"""Sources of skill modules for the tests."""

from __future__ import annotations

GOOD = '''\
"""Collect wood, place a table, and make a pickaxe."""
from __future__ import annotations
import numpy as np
import math

NEEDED = 4  # pieces of wood
SCALE = {"wood": 1.0 / NEEDED}


def gained(diff, weight: float = 1.0) -> float:
    return weight * max(diff, 0)


def task_0_is_done(inventory, n=NEEDED_PLACEHOLDER):
    return inventory["wood"] >= n


def task_0_reward(inventory_diff, health_penalty):
    # a comment that must survive
    total = 0.0
    for name, value in SCALE.items():
        total += gained(inventory_diff[name], weight=value)
    return total - health_penalty


def task_0_network_number():
    """Which expert."""
    return 0  # collect wood


def task_1_is_done(closest_blocks):
    return np.any(closest_blocks[3] < 2.5) and not math.isnan(closest_blocks[0, 0])


def task_1_reward(closest_blocks, closest_blocks_prev):
    return float(np.sum(closest_blocks_prev - closest_blocks))


def task_1_network_number():
    return 2


def task_2_is_done(achievements): return bool(achievements[5])


def task_2_reward(achievements_diff): return achievements_diff[5] * 10.0


def task_2_network_number(): return 7
'''.replace("NEEDED_PLACEHOLDER", "4")


def plan_of(*numbers: int, body: str = "return 0.0") -> str:
    """A module with a task for each network number."""
    return "\n".join(
        f"def task_{i}_is_done(x): return False\ndef task_{i}_reward(x): {body}\n"
        f"def task_{i}_network_number(): return {n}\n"
        for i, n in enumerate(numbers)
    )
