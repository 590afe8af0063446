"""Collecting told environment by environment: each steps alone, with its resets written out, by actions given."""

from typing import NamedTuple

import torch


class Step(NamedTuple):
    """One row of a rollout: what was seen, what came of it, and where it led; `valid` is false for a mere reset."""

    seen: torch.Tensor
    legal: object
    first: bool
    reward: float
    terminated: bool
    done: bool
    valid: bool
    score: float
    episode: object
    after: list


def slow_steps(environment, seed, actions, next_step):
    """Every step of one environment; `episode` is (return, length) where one ended.

    `after` holds all that was seen in the episode up to the observation that the step led to, before any reset.
    """
    steps = []
    (seen, info), total, ended = environment.reset(seed=seed), 0.0, False
    history, legal, begins = [seen], info["action_mask"], True
    for action in actions:
        if ended:  # next-step autoreset: this row shows the final observation, its action goes nowhere
            steps.append(Step(seen, legal, False, 0.0, False, False, False, float("nan"), None, []))
            (seen, info), total = environment.reset(), 0.0
            history, legal, begins, ended = [seen], info["action_mask"], True, False
            continue
        after, reward, terminated, truncated, info = environment.step(int(action))
        total, over, history = total + float(reward), terminated or truncated, [*history, after]
        score = info.get("score", float("nan")) if over else float("nan")
        told = (total, len(history) - 1) if over else None
        row = Step(seen, legal, begins, float(reward), terminated, over, True, score, told, history)
        steps.append(row)
        seen, legal, begins, ended = after, info["action_mask"], False, over and next_step
        if over and not next_step:
            (seen, info), total = environment.reset(), 0.0
            history, legal, begins = [seen], info["action_mask"], True
    return steps
