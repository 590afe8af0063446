"""GAE as its definition reads: a discounted sum of temporal differences, episode by episode."""

import numpy as np


def slow_advantages(rewards, values, next_values, terminated, done, gamma, gae_lambda):
    steps, envs = rewards.shape
    advantages = np.zeros((steps, envs))
    for n in range(envs):
        for start in range(steps):
            weight = 1.0
            for t in range(start, steps):
                target = rewards[t, n] + gamma * (0.0 if terminated[t, n] else next_values[t, n])
                advantages[start, n] += weight * (target - values[t, n])
                if done[t, n]:
                    break
                weight *= gamma * gae_lambda
    return advantages
