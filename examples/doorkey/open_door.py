"""Unlock the door with the key and open it; coming closer to it is worth a little, dropping the key costs."""


def task_is_done(doors):
    return doors["open"] >= 1


def task_reward(doors_diff, inventory_diff, closest_blocks, closest_blocks_prev):
    closer = closest_blocks_prev["door"] - closest_blocks["door"]
    return max(doors_diff["open"], 0) + 0.05 * closer + 0.5 * min(inventory_diff["key"], 0)
