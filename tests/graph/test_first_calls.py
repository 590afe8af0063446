"""First calls in several threads: each gives its result, and torch is afterwards what it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

import policysmith
from policysmith.graph import ComponentContainer, TensorComponent

MLP = {"environment": {"id": "CartPole-v1"}, "model": {"type": "mlp", "hidden": [16]}}


def test_policies_are_loaded_and_evaluated_on_a_pool_of_threads(tmp_path):
    for seed in range(4):
        policysmith.save(policysmith.build(MLP, seed=seed), tmp_path / str(seed))

    def returns(seed):
        return policysmith.evaluate(policysmith.load(tmp_path / str(seed)), episodes=2).returns

    call = nn.Module.__call__
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(returns, range(4)))
    assert found == [returns(seed) for seed in range(4)]
    assert nn.Module.__call__ is call and type(nn.Linear(4, 2)(torch.ones(1, 4))) is torch.Tensor


def test_one_policy_is_first_called_by_eight_threads():
    policy, x = policysmith.build(MLP, seed=0), torch.ones(3, 4)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: policy.get_action_and_value(x, deterministic=True), range(8)))
    expected = policy.slow("act", x, deterministic=True)
    assert all(torch.equal(value, expected[2]) for _, _, value in found)


def test_a_container_that_was_never_called_compiles_as_one_graph():
    layers = {"a": ("x", "h"), "b": ("h", "y")}
    made = {name: TensorComponent(nn.Linear(4, 4), [i], [o]) for name, (i, o) in layers.items()}
    container = ComponentContainer(made)
    compiled = torch.compile(container, fullgraph=True, backend="eager")
    found = compiled({"x": torch.ones(2, 4)})["y"]
    assert torch.equal(found, container({"x": torch.ones(2, 4)})["y"])
