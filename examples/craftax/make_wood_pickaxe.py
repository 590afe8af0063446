"""Make a pickaxe of wood, next to the table; coming closer to one is worth a little."""


def task_is_done(inventory):
    return inventory["wood_pickaxe"] >= 1


def task_reward(inventory_diff, closest_blocks, closest_blocks_prev):
    closer = closest_blocks_prev["crafting_table"] - closest_blocks["crafting_table"]
    return inventory_diff["wood_pickaxe"] + 0.02 * closer
