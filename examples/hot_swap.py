"""Hot-swap in the middle of training: a policy too small for its task grows, keeps what it knows, and solves it.

`python examples/hot_swap.py` trains CartPole with two hidden units, then puts sixty-four in their place.
"""

import torch

import policysmith
from policysmith.training import PPO, evaluate_policy, make_vector
from policysmith.training.sections import Environment

ENVIRONMENT = Environment("CartPole-v1", num_envs=8)


def main(total_steps=60_000, swap_at=30_000):
    config = {"seed": 1, "environment": {"id": ENVIRONMENT.id}, "model": {"type": "mlp", "hidden": [2]}}
    policy = policysmith.build(config)
    torch.manual_seed(1)  # of the actions drawn
    ppo = PPO(total_steps, rollout_steps=64, epochs=10, learning_rate=1e-3)
    optimizer = ppo.optimizer(policy)
    collector = ppo.collector(policy, make_vector(ENVIRONMENT), seed=1, step=0)
    scores = {}

    def watch(report):
        """Called between two iterations: here a learner may change its network."""
        if report.step >= swap_at and "before" not in scores:
            scores["before"] = evaluate_policy(policy, ENVIRONMENT, episodes=20).mean
            for name in ("actor", "critic"):
                wider = {"type": "mlp", "hidden": [64]}
                policy.replace_component(name, wider, keep_weights=True, resize=True, optimizer=optimizer)
            scores["just after"] = evaluate_policy(policy, ENVIRONMENT, episodes=20).mean
        return False

    ppo.learn(policy, collector, optimizer, watch)
    collector.environments.close()
    scores["at the end"] = evaluate_policy(policy, ENVIRONMENT, episodes=20).mean
    for when, score in scores.items():
        print(f"{when:11} {score:5.0f} of 500")
    return scores


if __name__ == "__main__":
    main()
