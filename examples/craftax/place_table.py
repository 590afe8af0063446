"""Place a crafting table where there is wood for one."""


def task_is_done(achievements):
    return achievements["place_table"] > 0


def task_reward(achievements_diff):
    return 1.0 * achievements_diff["place_table"]
