"""Small components of the kinds that wrappers stand around."""

import copy
import itertools
import pickle

import torch
from gymnasium import spaces
from torch import nn

import policysmith
from policysmith.graph import Component, TensorComponent

COPIERS = {"deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}


class LinearModule(Component):
    """What the seed calls so: `input` → `output`."""

    def __init__(self, in_features, out_features):
        super().__init__(["input"], ["output"])
        self.linear = nn.Linear(in_features, out_features)

    def compute(self, x):
        return self.linear(x)


class Bare(nn.Module):
    """A module of the seed's kind, no `Component`: keys as attributes, a forward that takes any mapping."""

    def __init__(self, in_features=4, out_features=3, in_keys=("input",), out_keys=("action",)):
        super().__init__()
        self.in_keys, self.out_keys = list(in_keys), list(out_keys)
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, mapping):
        mapping[self.out_keys[0]] = self.linear(mapping[self.in_keys[0]])
        return mapping


class Constant(Component):
    """Writes what it was made with, whatever it reads."""

    def __init__(self, value, out_key="output"):
        super().__init__(["input"], [out_key])
        self.value = value

    def compute(self, x):
        return self.value


def chain(*sizes, out_key="output"):
    """A perceptron as an adopted module."""
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    return TensorComponent(nn.Sequential(*layers), ["input"], [out_key])


def graph(wrappers=(), trunk=None, head_wrappers=(), **rest):
    """A policy's model: a trunk with wrappers and two heads."""
    trunk = {"type": "mlp", "hidden": [8]} if trunk is None else trunk
    components = {
        "trunk": {"in_keys": "observation", **trunk, "wrappers": list(wrappers)},
        "policy": {"type": "action_head", "in_keys": "trunk", "wrappers": list(head_wrappers)},
        "state_value": {"type": "value_head", "in_keys": "trunk"},
        **rest,
    }
    return {"model": {"type": "graph", "components": components}}


def policy_of(wrappers=(), seed=0, **options):
    """A policy of four numbers and two actions."""
    return policysmith.build(graph(wrappers, **options), spaces.Box(-1, 1, (4,)), spaces.Discrete(2), seed=seed)


def observations(count=5):
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
