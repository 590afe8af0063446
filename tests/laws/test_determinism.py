"""Law 9: one configuration and one seed give the same weights, in any process, under any PYTHONHASHSEED."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from policysmith.graph.assemble import build_modules
from policysmith.policy.actor_critic import ActorCritic
from policysmith.registry import default_registry

from .cases import IDS, VECTOR, config_of, model_of, one

ROOT = Path(__file__).parent.parent.parent
INITIALIZERS = default_registry.names("initializer")


def digest(module: nn.Module) -> str:
    """A hash of every name, shape, type and bit of a module's state."""
    total = hashlib.blake2b(digest_size=16)
    for name, tensor in module.state_dict().items():
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()


def everything() -> dict[str, str]:
    """Case, model and initializer → digest of what seed 7 builds."""
    from .policies import MODELS, action_for, observations_for, policy_of

    types = {case_id: digest(model_of(case_id, seed=7)) for case_id in IDS}
    policies: dict[str, ActorCritic] = {
        f"model:{name}": policy_of(observations_for(name)[-1], action_for(name, "hybrid"), name, seed=7)
        for name in MODELS
    }
    starts = {f"initializer:{name}": digest(initialised(name, seed=7)) for name in INITIALIZERS}
    return types | {name: digest(policy) for name, policy in policies.items()} | starts


def initialised(initializer: str, seed: int) -> nn.Module:
    plan = plan_with(part={**config_of("mlp", one(VECTOR))["part"], "init": initializer})
    return build_modules(plan, seed)["part"]


def plan_with(**components):
    from policysmith.graph.plan import make_plan
    from policysmith.graph.spec import decode_components

    plan = make_plan(decode_components(components, default_registry).components, {"in0": VECTOR}, pytest.fail)
    assert plan is not None
    return plan


def test_another_process_with_another_hash_seed_builds_the_same_weights():
    code = "import json; from tests.laws.test_determinism import everything; print(json.dumps(everything()))"
    other = "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": other},
        stdout=subprocess.PIPE,
        text=True,
    )
    here = everything()
    there = json.loads(running.communicate(timeout=120)[0])
    assert len(here) > 100
    assert sorted(name for name in here if here[name] != there.get(name)) == []


@pytest.mark.parametrize("name", INITIALIZERS)
def test_every_initializer_gives_finite_weights_of_the_same_shapes(name):
    usual = initialised("orthogonal", seed=0).state_dict()
    found = initialised(name, seed=0).state_dict()
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in usual.items()}
    assert all(t.isfinite().all() for t in found.values())


def test_two_components_of_one_type_start_differently():
    mlp = {"type": "mlp", "in_keys": "in0"}
    modules = build_modules(plan_with(a=mlp, b=mlp), seed=0)
    assert digest(modules["a"]) != digest(modules["b"])


def test_the_order_of_declaration_changes_no_weight():
    mlp = {"type": "mlp", "in_keys": "in0"}
    forth, back = build_modules(plan_with(a=mlp, b=mlp), 0), build_modules(plan_with(b=mlp, a=mlp), 0)
    assert [digest(forth[n]) for n in "ab"] == [digest(back[n]) for n in "ab"]
