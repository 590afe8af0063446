"""Rollouts of nobody's, and small policies to learn from them: what fast and slow updates are compared on."""

import gymnasium as gym
import numpy as np
import torch

import policysmith
from policysmith.training.rollout.rollout import Rollout

BOX, CHOICES = gym.spaces.Box(-5, 5, (3,), np.float32), gym.spaces.Discrete(3)
HEADS = {
    "policy": {"type": "action_head", "in_keys": "trunk"},
    "state_value": {"type": "value_head", "in_keys": "trunk"},
}
TRUNK = {"type": "mlp", "in_keys": "observation", "hidden": [5]}
PLAIN = {"type": "mlp", "hidden": [5]}
REGULARIZED = {
    "type": "graph",
    "components": {"trunk": TRUNK | {"wrappers": [{"type": "regularized", "l2_scale": 0.3, "l1_scale": 0.2}]}, **HEADS},
}
OUTCOMES = {
    "type": "graph",
    "components": {
        "trunk": TRUNK,
        "policy": HEADS["policy"],
        "value_logits": {"type": "outcome_head", "in_keys": "trunk", "hidden": 4},
        "score_lead": {"type": "score_head", "in_keys": "trunk", "hidden": 4},
        "state_value": {"type": "outcome_value", "in_keys": ["value_logits", "score_lead"]},
    },
}
REMEMBERING = {
    "type": "graph",
    "components": {
        "memory": {"type": "lstm", "in_keys": "observation", "hidden_size": 4},
        "policy": {"type": "action_head", "in_keys": "memory"},
        "state_value": {"type": "value_head", "in_keys": "memory"},
    },
}


def built(model, seed=0):
    return policysmith.build({"model": model}, BOX, CHOICES, seed=seed)


def played(seed=0, steps=6, width=4, valid=True, memory=False):
    """A rollout of nobody's: old log-probabilities and values far enough from the policy's own that both clips bite."""
    draw = torch.Generator().manual_seed(seed)
    rand, randn = (
        (lambda: torch.rand(steps, width, generator=draw)),
        (lambda: torch.randn(steps, width, generator=draw)),
    )
    done = rand() < 0.3
    terminated = done & (rand() < 0.6)
    states = {
        t: {f"memory/{key}": 0.5 * torch.randn(width, 1, 4, generator=draw) for key in "hc"} for t in range(steps)
    }
    return Rollout(
        observations=[torch.randn(steps, width, 3, generator=draw)],
        actions=[torch.randint(3, (steps, width), generator=draw)],
        masks=[],
        log_probs=-1.1 + 0.4 * randn(),
        values=0.5 * randn(),
        next_values=0.5 * randn(),
        rewards=randn().round(),
        terminated=terminated.float(),
        done=done.float(),
        valid=rand() < 0.8 if valid else None,
        first=rand() < 0.3 if memory else None,
        states=states if memory else {},
    )


def compare(policy, weights, atol=2e-5):
    """Every weight of a policy is that of a mapping without the common prefix."""
    for name, parameter in policy.named_parameters():
        expected = weights[name.removeprefix("components.")].detach().float()
        torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def penalty(weights):
    """What `REGULARIZED` adds to the loss."""
    own = [w for name, w in weights.items() if name.startswith("trunk")]
    return 0.3 * sum((w**2).sum() for w in own) + 0.2 * sum(w.abs().sum() for w in own)


SEEDS = (11, 12)  # of the orders that two ranks draw
TOGETHER = {"learning_rate": 0.02, "clip": 0.15, "epochs": 2, "minibatches": 3, "gamma": 0.9, "gae_lambda": 0.8,
            "entropy_coef": 0.1, "max_grad_norm": 1.0}  # fmt: skip


def of_rank(rank):
    """24 rows of the first rank; of the second 4, which make two minibatches where the first has three."""
    rollout = played(seed=rank, valid=False)
    if rank:
        rollout.valid = torch.zeros_like(rollout.rewards, dtype=torch.bool)
        rollout.valid[2] = True
    return rollout
