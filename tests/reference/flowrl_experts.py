"""Slow twin of the original experts: numpy, every expert on every row, then the one that the task names."""

from __future__ import annotations

import numpy as np


def random_params(rng, experts, features, actions, width=8, layers=4):
    """Parameters as flax keeps them: `params/params/actor_networks_<i>/layers_<0|2|…>/{kernel (in, out), bias}`."""
    tree = {}
    for local in range(experts):
        for role, outputs in (("actor", actions), ("critic", 1)):
            sizes = [features, *[width] * (layers - 1), outputs]
            tree[f"{role}_networks_{local}"] = {
                f"layers_{2 * i}": {
                    "kernel": rng.normal(size=(sizes[i], sizes[i + 1])).astype(np.float32),
                    "bias": rng.normal(size=sizes[i + 1]).astype(np.float32),
                }
                for i in range(layers)
            }
    return {"params": {"params": tree}}


def flat(tree, above=""):
    """Arrays by path."""
    found = {}
    for key, value in tree.items():
        found |= flat(value, f"{above}{key}/") if isinstance(value, dict) else {f"{above}{key}": value}
    return found


def forward(params, x_BD, task_B, activation=np.tanh):
    """→ logits (B, A), value (B,)."""
    networks = params["params"]["params"]
    one_hot_BE = np.eye(len(networks) // 2)[task_B]
    results = []
    for role in ("actor", "critic"):
        every_BEO = np.stack([_network(networks[f"{role}_networks_{i}"], x_BD, activation)
                              for i in range(one_hot_BE.shape[1])], 1)  # fmt: skip
        results.append((every_BEO * one_hot_BE[:, :, None]).sum(1))
    return results[0], results[1][:, 0]


def _network(layers, x_BD, activation):
    hidden = x_BD.astype(np.float64)
    for index in range(len(layers)):
        layer = layers[f"layers_{2 * index}"]
        hidden = hidden @ layer["kernel"] + layer["bias"]
        hidden = activation(hidden) if index < len(layers) - 1 else hidden
    return hidden
