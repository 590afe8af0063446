"""Collect wood; spending it costs as much, and coming closer to a tree is worth a little."""


def task_is_done(inventory, n=1):
    return inventory["wood"] >= n


def task_reward(inventory_diff, closest_blocks, closest_blocks_prev):
    closer = closest_blocks_prev["tree"] - closest_blocks["tree"]  # sums to nothing on a walk in a circle
    return inventory_diff["wood"] + 0.02 * closer
