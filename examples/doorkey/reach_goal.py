"""Walk through the open door to the goal."""


def task_is_done(at_goal):
    return at_goal


def task_reward(at_goal, closest_blocks, closest_blocks_prev):
    return 1.0 if at_goal else 0.05 * (closest_blocks_prev["goal"] - closest_blocks["goal"])
