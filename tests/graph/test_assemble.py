"""A seed decides the weights, whatever other threads build and draw meanwhile."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import policysmith

CONFIG = {
    "environment": {"id": "CartPole-v1"},
    "model": {
        "type": "graph",
        "components": {
            "trunk": {"type": "mlp", "in_keys": "observation", "hidden": [16]},
            "main": {"type": "mlp", "in_keys": "trunk", "hidden": [8], "init": "xavier_uniform"},
            "policy": {"type": "action_head", "in_keys": "main"},
            "state_value": {"type": "value_head", "in_keys": "main"},
        },
    },
}


def life(seed, place):
    """What a policy is after it was checked, built, given another part, stored and loaded."""
    assert policysmith.check(CONFIG) == []
    policy = policysmith.build(CONFIG, seed=seed)
    policy.replace_component("main", {"type": "mlp", "hidden": [8, 8]}, seed=seed)
    policysmith.save(policy, place)
    return {name: tensor.clone() for name, tensor in policysmith.load(place).state_dict().items()}


@pytest.fixture
def sampling():
    """Two threads draw from torch's global generator, and seed it, all the while; threads take turns often."""
    done, interval = threading.Event(), sys.getswitchinterval()

    def draw():
        while not done.wait(0.0002):
            torch.manual_seed(3)
            torch.rand(7)

    threads = [threading.Thread(target=draw) for _ in range(2)]
    sys.setswitchinterval(1e-5)
    for thread in threads:
        thread.start()
    yield
    done.set()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)


def test_eight_threads_build_swap_store_and_load_what_one_would(tmp_path, request):
    wanted = [life(seed, tmp_path / f"twin{seed}") for seed in range(8)]
    request.getfixturevalue("sampling")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda seed: life(seed, tmp_path / f"run{seed}"), range(8)))
    for one, twin in zip(found, wanted, strict=True):
        assert one.keys() == twin.keys()
        assert [name for name in twin if not torch.equal(one[name], twin[name])] == []


def test_building_with_a_seed_leaves_the_global_generator_to_others():
    before = torch.get_rng_state()
    policysmith.build(CONFIG, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
