"""PPO's loss, one row at a time."""

import math


def slow_ppo_terms(log_prob, entropy, value, old_log_prob, advantage, returns, old_value, clip, value_clip):
    rows = range(len(log_prob))
    policy, error = 0.0, 0.0
    for i in rows:
        ratio = math.exp(log_prob[i] - old_log_prob[i])
        limited = min(max(ratio, 1 - clip), 1 + clip)
        policy -= min(ratio * advantage[i], limited * advantage[i])
        plain = (value[i] - returns[i]) ** 2
        if value_clip is not None:
            near = old_value[i] + min(max(value[i] - old_value[i], -value_clip), value_clip)
            plain = max(plain, (near - returns[i]) ** 2)
        error += 0.5 * plain
    count = len(log_prob)
    return policy / count, error / count, sum(entropy) / count
