"""Hot-swap: checked before anything is touched, whole or not at all, and undone on request."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

import policysmith
from policysmith.errors import CheckpointError, WiringError
from policysmith.graph.component import TensorComponent
from policysmith.training.optim.optimizers import Optimizers
from tests.policy.test_stateful import REGISTRY
from tests.policy.test_stateful import build as build_stateful

OBS = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))


def build(**model: Any) -> Any:
    components = {
        "trunk": {"type": "mlp", "in_keys": "observation", "hidden": [8, 6]},
        "policy": {"type": "action_head", "in_keys": "trunk"},
        "state_value": {"type": "value_head", "in_keys": "trunk"},
    }
    return policysmith.build(
        {"model": {"type": "graph", "components": components, **model}},
        spaces.Box(-1, 1, (4,)),
        spaces.Discrete(3),
        seed=0,
    )


def snapshot(policy: Any) -> Any:
    return (
        {name: tensor.clone() for name, tensor in policy.state_dict().items()},
        [policy.components[name] for name in policy.components],
        policy.plan,
        copy.deepcopy(policy.config),
    )


def unchanged(policy: Any, before: Any) -> None:
    tensors, components, plan, config = before
    assert [policy.components[name] for name in policy.components] == components
    assert policy.plan is plan and policy.config == config
    for name, tensor in policy.state_dict().items():
        assert torch.equal(tensor, tensors[name])


def test_a_described_component_takes_the_place_at_the_next_call() -> None:
    policy = build()
    act, before = policy.acting(deterministic=True), policy(OBS)
    act(OBS)
    swap = policy.replace_component("trunk", {"type": "mlp", "hidden": [16, 6], "activation": "relu"})
    after = policy(OBS)
    assert not torch.equal(before[0], after[0])
    torch.testing.assert_close(act(OBS)[2], after[1])
    assert policy.plan.node("trunk").measure.parameters == 4 * 16 + 16 + 16 * 6 + 6
    assert policy.config["model"]["components"]["trunk"]["hidden"] == [16, 6]
    assert swap.names == ("trunk",)


def test_a_swap_is_stored_and_loaded(tmp_path: Any) -> None:
    policy = policysmith.build({"model": "mlp"}, spaces.Box(-1, 1, (4,)), spaces.Discrete(3), seed=0)
    policy.replace_component("actor", {"type": "mlp", "hidden": [8, 64]})
    loaded = policysmith.load(policysmith.save(policy, tmp_path / "p"))
    torch.testing.assert_close(loaded(OBS), policy.eval()(OBS))
    assert loaded.config["model"]["type"] == "graph"


@pytest.mark.parametrize("space", [spaces.Box(0, 255, (9, 9, 3), "uint8"), spaces.Discrete(7)])
def test_observation_encoders_survive_a_swap(space: Any, tmp_path: Any) -> None:
    config = {"model": {"type": "mlp", "hidden": [8]}}
    policy = policysmith.build(config, space, spaces.Discrete(3), seed=0)
    policy.replace_component("actor", {"type": "mlp", "hidden": [5, 8]})
    obs = policy.prepare(space.sample())
    loaded = policysmith.load(policysmith.save(policy, tmp_path / "p"))
    torch.testing.assert_close(loaded(obs), policy.eval()(obs))
    encoder = next(name for name in policy.components if "encoder" in name)
    with pytest.raises(WiringError, match="encodes an observation"):
        policy.replace_component(encoder, "flatten")


def test_a_module_takes_the_place_but_is_not_stored(tmp_path: Any) -> None:
    policy = build()
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
    policy.replace_component("trunk", module)
    torch.testing.assert_close(policy(OBS), policy.slow("forward", OBS))
    assert policy.components["trunk"].module is module
    with pytest.raises(CheckpointError, match="'trunk' was replaced by a module that no configuration describes"):
        policysmith.save(policy, tmp_path / "p")
    assert not (tmp_path / "p").exists()
    with pytest.raises(WiringError, match="no configuration describes"):
        policy.replace_component("policy", {"type": "action_head", "hidden": [4]})
    policy.rollback()
    policysmith.save(policy, tmp_path / "p")


BAD: list[tuple[str, Any, str]] = [
    ("trunc", "flatten", r"no component 'trunc' to replace \(did you mean 'trunk'\?\)"),
    ("trunk", {"type": "mpl"}, "unknown component 'mpl'"),
    ("trunk", {"type": "mlp", "hiden": [4]}, "unknown option"),
    ("trunk", {"type": "mlp", "hidden": [12]}, r"policy: was built for trunk \(6,\) and would read trunk \(12,\)"),
    ("trunk", {"type": "mlp", "hidden": [6], "in_keys": "state_value"}, r"in_keys are \['state_value'\], expected"),
    ("trunk", {"type": "conv", "channels": [4]}, "trunk"),
    ("policy", {"type": "value_head"}, "policy: 'value_head' has the role value, expected policy"),
    ("policy", {"type": "action_head", "squash": True}, "policy.squash: a live policy keeps its distribution"),
    ("trunk", {"type": "action_head"}, "trunk: 'action_head' has the role policy, expected None"),
    ("trunk", 7, "expected a module, a type, or a mapping"),
    ("trunk", nn.Linear(4, 7), r"trunk: gives trunk \(7,\) torch.float32, expected \(6,\)"),
    ("trunk", nn.Linear(5, 6), r"trunk: cannot take observation \(4,\)"),
    ("trunk", nn.Linear(4, 6).double(), "trunk: cannot take"),
    ("trunk", TensorComponent(nn.Linear(4, 6), ["obs"], ["trunk"]), r"in_keys are \['obs'\], expected"),
    ("trunk", TensorComponent(nn.Linear(4, 6), ["observation"], ["x"]), r"out_keys are \['x'\], expected \['trunk'\]"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "new", "message"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_a_bad_swap_changes_nothing(name: str, new: Any, message: str) -> None:
    policy = build()
    optimizer = Optimizers.of(list(policy.parameters()))
    before, parameters = snapshot(policy), list(optimizer.parameters)
    with pytest.raises(WiringError, match=message):
        policy.replace_component(name, new, optimizer=optimizer)
    unchanged(policy, before)
    assert all(one is other for one, other in zip(optimizer.parameters, parameters, strict=True))
    with pytest.raises(WiringError, match="no swap to roll back"):
        policy.rollback()


def test_rollback_brings_everything_back() -> None:
    policy = build()
    optimizer = Optimizers.of(list(policy.parameters()))
    step(policy, optimizer)
    before, moments = snapshot(policy), {k: v.clone() for k, v in optimizer.state().items()}
    policy.replace_component("trunk", {"type": "mlp", "hidden": [9, 6]}, optimizer=optimizer)
    policy(OBS)
    policy.rollback()
    unchanged(policy, before)
    after = optimizer.state()
    assert after.keys() == moments.keys() and all(torch.equal(after[k], v) for k, v in moments.items())


def test_the_optimizer_keeps_moments_of_what_stays_and_starts_those_of_what_comes() -> None:
    for make in (lambda p: Optimizers.of(list(p.parameters())), lambda p: torch.optim.AdamW(p.parameters())):
        policy = build()
        optimizer: Any = make(policy)
        step(policy, optimizer)
        inner = getattr(optimizer, "torch_optimizer", optimizer)
        kept = inner.state[policy.components["policy"].module.out.weight]["exp_avg"].clone()
        old = list(policy.components["trunk"].parameters())
        policy.replace_component("trunk", {"type": "mlp", "hidden": [16, 6]}, optimizer=optimizer)
        held = [id(p) for group in inner.param_groups for p in group["params"]]
        assert held == [id(p) for p in policy.parameters()]
        assert not any(p in inner.state for p in [*old, *policy.components["trunk"].parameters()])
        assert torch.equal(inner.state[policy.components["policy"].module.out.weight]["exp_avg"], kept)
        before = [p.detach().clone() for p in policy.parameters()]
        step(policy, optimizer)
        assert all(not torch.equal(p, b) for p, b in zip(policy.parameters(), before, strict=True))


def test_growing_keeps_what_the_policy_does() -> None:
    policy = build()
    want = policy(OBS)
    policy.replace_component("trunk", {"type": "mlp", "hidden": [32, 6]}, keep_weights=True)
    torch.testing.assert_close(policy(OBS), want)
    policy.replace_component("trunk", {"type": "mlp", "hidden": [32, 24]}, keep_weights=True, resize=True)
    torch.testing.assert_close(policy(OBS), want)
    assert policy.components["policy"].module.out.in_features == 24
    policy.replace_component("trunk", {"type": "mlp", "hidden": [32, 6]}, keep_weights=True, resize=True)
    torch.testing.assert_close(policy(OBS), want)


def test_without_keep_weights_it_starts_anew() -> None:
    policy = build()
    weight = policy.components["trunk"].module[0].weight.clone()
    policy.replace_component("trunk", {"type": "mlp", "hidden": [8, 6]}, seed=5)
    assert not torch.equal(policy.components["trunk"].module[0].weight, weight)


def test_a_guarded_swap_rolls_back_on_the_first_nan(caplog: Any) -> None:
    policy = build()
    want, before = policy(OBS), snapshot(policy)
    act = policy.acting(deterministic=True)
    policy.replace_component("trunk", {"type": "mlp", "hidden": [7, 6]}, guard=True)
    assert not torch.equal(policy(OBS)[0], want[0])
    with torch.no_grad():
        policy.components["trunk"].module[0].weight[0, 0] = torch.nan
    _, _, value = act(OBS)
    torch.testing.assert_close(value, want[1])
    assert "rolled back" in caplog.text
    unchanged(policy, before)
    torch.testing.assert_close(policy(OBS), want)


def test_a_guard_on_several_components_is_refused() -> None:
    policy = build()
    before = snapshot(policy)
    with pytest.raises(WiringError, match=r"guard watches a single component.*'trunk', 'policy', 'state_value'"):
        policy.replace_component("trunk", {"type": "mlp", "hidden": [8, 12]}, resize=True, guard=True)
    unchanged(policy, before)


def test_a_memory_keeps_the_state_of_episodes_under_way() -> None:
    policy = build_stateful()
    obs = torch.randn(2, 4)
    _, _, _, state = policy.act(obs, policy.init_state(2))
    _, _, before, _ = policy.act(obs, state)
    policy.replace_component("memory", {"type": "leaky", "size": 5}, registry=REGISTRY, seed=9)
    _, _, after, _ = policy.act(obs, state)
    assert not torch.equal(before, after)
    with pytest.raises(WiringError, match=r"memory: its state h \(6,\) would not fit the episodes under way"):
        policy.replace_component("memory", {"type": "leaky", "size": 6}, registry=REGISTRY, resize=True)
    with pytest.raises(WiringError, match="what remembers and what does not"):
        policy.replace_component("memory", nn.Linear(6, 5), registry=REGISTRY)


def test_shared_weights_are_swapped_together() -> None:
    components = {
        "one": {"type": "mlp", "in_keys": "observation", "hidden": [4]},
        "two": {"use": "one", "in_keys": "one"},
        "policy": {"type": "action_head", "in_keys": "two"},
        "state_value": {"type": "value_head", "in_keys": "two"},
    }
    policy = policysmith.build(
        {"model": {"type": "graph", "components": components}}, spaces.Box(-1, 1, (4,)), spaces.Discrete(3), seed=0
    )
    policy.replace_component("one", {"type": "mlp", "hidden": [9, 4]})
    assert policy.components["one"].module is policy.components["two"].module
    torch.testing.assert_close(policy(OBS), policy.slow("forward", OBS))


@pytest.mark.parametrize("swaps", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_swaps_leave_nothing_behind(swaps: int) -> None:
    policy = build()
    optimizer = Optimizers.of(list(policy.parameters()))
    act = policy.acting(deterministic=True)
    watched = []
    for index in range(swaps):
        policy.replace_component("trunk", {"type": "mlp", "hidden": [4 + index % 3, 6]}, optimizer=optimizer)
        if index % 10 == 0:
            watched.append(weakref.ref(policy.components["trunk"].module))
            step(policy, optimizer)
        torch.testing.assert_close(act(OBS)[2], policy.slow("value", OBS))
    policy.replace_component("trunk", {"type": "mlp", "hidden": [6]}, optimizer=optimizer)
    policy.replace_component("trunk", {"type": "mlp", "hidden": [6]}, optimizer=optimizer)
    act(OBS)
    gc.collect()
    assert not any(ref() is not None for ref in watched)
    assert len(optimizer.torch_optimizer.state) <= len(optimizer.parameters) == len(list(policy.parameters()))


def test_a_call_under_way_ends_with_the_component_it_began_with() -> None:
    """A swap from within a call, as another thread would do it, does not tear the call apart."""
    policy = build()
    want = policy(OBS)

    class Interrupting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if not policy.config.get("swapped"):
                policy.config["swapped"] = True
                policy.replace_component("state_value", {"type": "value_head", "hidden": [5]})
            return x

    trunk = policy.components["trunk"].module
    policy.components["trunk"] = TensorComponent(nn.Sequential(trunk, Interrupting()), ["observation"], ["trunk"])
    during = policy(OBS)
    torch.testing.assert_close(during[1], want[1])
    assert not torch.equal(policy(OBS)[1], want[1])


def step(policy: Any, optimizer: Any) -> None:
    log_prob, _, value = policy.evaluate_actions(OBS, torch.zeros(5, dtype=torch.int64))
    loss = log_prob.mean() + value.square().mean()
    if isinstance(optimizer, Optimizers):
        optimizer.step(loss)
    else:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
