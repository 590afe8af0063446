"""Pick up the key; coming closer to it is worth a little."""


def task_is_done(inventory):
    return inventory["key"] >= 1


def task_reward(inventory_diff, closest_blocks, closest_blocks_prev):
    picked = max(inventory_diff["key"], 0)
    return picked if picked else 0.05 * (closest_blocks_prev["key"] - closest_blocks["key"])
