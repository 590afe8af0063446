"""A swap moves parameters group by group in optimisers of torch's, and happens whole or not at all."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from policysmith.errors import WiringError
from policysmith.policy.actor_critic import ActorCritic
from policysmith.training.optim.averaging import WeightAverage
from policysmith.training.optim.optimizers import Optimizers
from tests.policy.test_swap import OBS, build, snapshot, step, unchanged

WIDER = {"type": "mlp", "hidden": [16, 12, 6]}
OTHER_WIDTH = {"type": "mlp", "hidden": [48]}


def named(policy: Any, optimizer: torch.optim.Optimizer) -> list[list[str]]:
    """The names of each group's parameters; one that is none of the policy's is a KeyError."""
    names = {id(p): name.removeprefix("components.") for name, p in policy.named_parameters()}
    return [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]


def parts(policy: Any, *components: str) -> list[nn.Parameter]:
    return [p for name in components for p in policy.components[name].parameters()]


def by_component(policy: Any) -> torch.optim.Adam:
    groups = [{"params": parts(policy, "trunk"), "lr": 1e-3}, {"params": parts(policy, "policy", "state_value")}]
    return torch.optim.Adam(groups, lr=1e-2)


def kinds(policy: Any, *components: str) -> list[list[nn.Parameter]]:
    """Weights of two axes, and all others."""
    found = parts(policy, *(components or policy.components))
    return [[p for p in found if p.dim() >= 2], [p for p in found if p.dim() < 2]]


def test_what_a_resize_rebuilds_stays_in_its_group() -> None:
    policy = build()
    optimizer = by_component(policy)
    step(policy, optimizer)
    policy.replace_component("trunk", OTHER_WIDTH, resize=True, optimizer=optimizer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 4]
    assert [{n.partition(".")[0] for n in g} for g in named(policy, optimizer)] == [
        {"trunk"},
        {"policy", "state_value"},
    ]
    assert not optimizer.state
    step(policy, optimizer)


def test_biases_without_decay_stay_without_decay() -> None:
    policy = build()
    weights, others = kinds(policy)
    optimizer = torch.optim.AdamW([{"params": others, "weight_decay": 0.0}, {"params": weights, "weight_decay": 0.1}])
    policy.replace_component("trunk", {**WIDER, "norm": "layer"}, optimizer=optimizer)
    assert [[id(p) for p in group["params"]] for group in optimizer.param_groups] == [
        [id(p) for p in kind] for kind in reversed(kinds(policy))
    ]


def test_a_component_in_several_groups_is_matched_by_name() -> None:
    """Each layer has a step size of its own, and one of them shares its with a head."""
    policy = build()
    layers = [list(layer.parameters()) for layer in policy.components["trunk"].module if isinstance(layer, nn.Linear)]
    groups = [layers[1], [*layers[0], *parts(policy, "policy")], parts(policy, "state_value")]
    optimizer = torch.optim.SGD([{"params": group, "lr": 10.0**-i} for i, group in enumerate(groups)])
    before = named(policy, optimizer)
    policy.replace_component("trunk", {"type": "mlp", "hidden": [9, 6]}, optimizer=optimizer)
    assert [sorted(group) for group in named(policy, optimizer)] == [sorted(group) for group in before]


def test_several_optimizers_each_take_what_is_theirs(caplog: Any) -> None:
    policy = build()
    weights, others = kinds(policy, "trunk", "policy")
    optimizers = [
        torch.optim.Muon(weights),
        torch.optim.AdamW(others),
        torch.optim.SGD(parts(policy, "state_value")),
    ]
    policy.replace_component("trunk", {"type": "mlp", "hidden": [7, 5]}, resize=True, optimizer=optimizers)
    weights, others = kinds(policy, "trunk", "policy")
    found = [[id(p) for p in optimizer.param_groups[0]["params"]] for optimizer in optimizers]
    assert found == [[id(p) for p in group] for group in (weights, others, parts(policy, "state_value"))]
    assert not caplog.records


def test_what_is_trained_outside_stays_outside_and_is_told(caplog: Any) -> None:
    policy = build()
    optimizer = torch.optim.SGD(parts(policy, "policy", "state_value"))
    policy.replace_component("trunk", OTHER_WIDTH, resize=True, optimizer=optimizer)
    assert {name.partition(".")[0] for name in named(policy, optimizer)[0]} == {"policy", "state_value"}
    assert "'trunk' learned outside the optimizer" in caplog.text


def test_parameters_of_a_kind_that_there_was_none_of_are_told(caplog: Any) -> None:
    policy = build(components=graph(trunk={"type": "nn.Linear", "out_features": 6, "bias": False}))
    optimizer = by_component(policy)
    policy.replace_component("trunk", {"type": "mlp", "hidden": [6]}, optimizer=optimizer)
    assert named(policy, optimizer)[0] == ["trunk.0.weight", "trunk.0.bias"]
    assert "'trunk' had no biases or norms before" in caplog.text


def test_names_in_groups_follow() -> None:
    policy = build()
    optimizer = torch.optim.Adam(policy.named_parameters())
    policy.replace_component("trunk", WIDER, optimizer=optimizer)
    assert optimizer.param_groups[0]["param_names"] == [name for name, _ in policy.named_parameters()]
    policy.rollback()
    assert optimizer.param_groups[0]["param_names"] == [name for name, _ in policy.named_parameters()]


def test_what_an_optimizer_holds_besides_the_policy_stays() -> None:
    policy, own = build(), nn.Linear(2, 2)
    for optimizer in (
        torch.optim.Adam([*policy.parameters(), *own.parameters()]),
        Optimizers.of([*policy.parameters(), *own.parameters()]).torch_optimizer,
    ):
        policy.replace_component("trunk", WIDER, optimizer=optimizer)
        held = [id(p) for p in optimizer.param_groups[0]["params"]]
        assert held == [id(p) for p in [*policy.parameters(), *own.parameters()]]
        policy.rollback()


def graph(**changes: Any) -> dict[str, Any]:
    components = {
        "trunk": {"type": "mlp", "hidden": [6]},
        "policy": {"type": "action_head"},
        "state_value": {"type": "value_head"},
    }
    keys = {"trunk": "observation", "policy": "trunk", "state_value": "trunk"}
    return {name: {"in_keys": keys[name], **changes.get(name, made)} for name, made in components.items()}


def test_a_frozen_component_has_no_place_but_a_learning_one_that_follows_it_needs_one() -> None:
    frozen = {"type": "mlp", "hidden": [6], "freeze": True}
    policy = build(components=graph(trunk=frozen))
    optimizer = torch.optim.Adam([{"params": parts(policy, "policy")}, {"params": parts(policy, "state_value")}])
    before = named(policy, optimizer)
    policy.replace_component("trunk", {**frozen, "hidden": [5, 6]}, optimizer=optimizer)
    assert named(policy, optimizer) == before
    with pytest.raises(WiringError, match=r"nothing of 'trunk' was in the optimizer, so which of its 2 groups is for"):
        policy.replace_component("trunk", {"type": "mlp", "hidden": [6]}, optimizer=optimizer)
    assert named(policy, optimizer) == before
    module = nn.Linear(4, 6)
    optimizer.add_param_group({"params": module.parameters()})
    policy.replace_component("trunk", module, optimizer=optimizer)
    assert named(policy, optimizer) == [*before, ["trunk.weight", "trunk.bias"]]


def test_lora_comes_and_goes() -> None:
    policy = build()
    optimizer = by_component(policy)
    policy.replace_component("trunk", {**OTHER_WIDTH, "hidden": [6], "wrappers": ["lora"]}, optimizer=optimizer)
    assert [name.rpartition(".")[2] for name in named(policy, optimizer)[0]] == ["lora_A", "lora_B"]
    policy.replace_component("trunk", {"type": "mlp", "hidden": [6], "wrappers": []}, optimizer=optimizer)
    assert [len(group) for group in named(policy, optimizer)] == [2, 4]


def test_shared_weights_come_once() -> None:
    shared = {
        "one": {"type": "mlp", "in_keys": "observation", "hidden": [4]},
        "two": {"use": "one", "in_keys": "one"},
        "policy": {"type": "action_head", "in_keys": "two"},
        "state_value": {"type": "value_head", "in_keys": "two"},
    }
    policy = build(components=shared)
    groups = [{"params": parts(policy, "policy", "state_value")}, {"params": parts(policy, "one")}]
    optimizer = torch.optim.Adam(groups)
    policy.replace_component("one", {"type": "mlp", "hidden": [9, 4]}, optimizer=optimizer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [4, 4]
    named(policy, optimizer)


def test_a_tied_weight_neither_leaves_nor_comes_twice() -> None:
    policy = build()
    optimizer = torch.optim.Adam(policy.parameters())
    tied = nn.Linear(6, 6)
    policy.replace_component("trunk", nn.Sequential(nn.Linear(4, 6), tied), optimizer=optimizer)
    before = {id(p) for p in policy.parameters()}
    head = nn.Sequential(tied, nn.Linear(6, 3))
    policy.replace_component("policy", head, optimizer=optimizer)
    held = [id(p) for p in optimizer.param_groups[0]["params"]]
    assert len(held) == len(set(held)) and set(held) == {id(p) for p in policy.parameters()}
    policy.rollback()
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == before
    policy.replace_component("policy", head, optimizer=optimizer)
    policy.replace_component("trunk", nn.Linear(4, 6), optimizer=optimizer)  # the other still holds the tied one
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in policy.parameters()}


SCHEDULERS = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, [lambda n: 0.5**n, lambda n: 0.9**n]),
    "one_cycle": lambda o: lr_scheduler.OneCycleLR(o, [0.1, 0.2], total_steps=20),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, min_lr=[1e-5, 1e-4]),
}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_schedules_go_on_as_without_a_swap(kind: str) -> None:
    def rates(swaps: bool) -> list[list[float]]:
        policy, found = build(), []
        optimizer = by_component(policy)
        scheduler = SCHEDULERS[kind](optimizer)
        for index in range(6):
            step(policy, optimizer)
            if swaps and index == 2:
                policy.replace_component("trunk", OTHER_WIDTH, resize=True, optimizer=optimizer)
            scheduler.step(*([1.0] if kind == "plateau" else []))
            found.append([group["lr"] for group in optimizer.param_groups])
        return found

    assert rates(True) == rates(False)


def everything(policy: Any, optimizer: Any, average: WeightAverage) -> Any:
    inner = optimizer.torch_optimizer
    return (
        [[id(p) for p in group["params"]] for group in inner.param_groups],
        {id(p): {k: v.clone() for k, v in state.items()} for p, state in inner.state.items()},
        {name: tensor.clone() for name, tensor in average._average.items()},
        {name: id(p) for name, p in average._learning.items()},
    )


def assert_same(found: Any, wanted: Any) -> None:
    assert found[0] == wanted[0] and found[3] == wanted[3]
    assert found[1].keys() == wanted[1].keys() and found[2].keys() == wanted[2].keys()
    for i, state in wanted[1].items():
        assert all(torch.equal(found[1][i][k], v) for k, v in state.items())
    assert all(torch.equal(found[2][name], tensor) for name, tensor in wanted[2].items())


class Failing:
    """Follows, and fails, before or after the others did their part."""

    def exchange_parameters(self, exchange: Any, undo: Any) -> None:
        raise MemoryError("no room")


STEPS = ["_put", "_replan", "hand_over", "_exchange_in", "_members", "average", "last follower", "watch"]


@pytest.mark.parametrize("failing", STEPS)
def test_a_failure_at_any_step_leaves_everything_as_it_was(failing: str, monkeypatch: Any) -> None:
    policy = build()
    optimizer = Optimizers.of(list(policy.parameters()))
    average = WeightAverage(policy, 0.9)
    average.follow(optimizer)
    step(policy, optimizer)
    want, before, held = policy(OBS), snapshot(policy), everything(policy, optimizer, average)
    followers = [Failing()] if failing == "last follower" else []
    with monkeypatch.context() as patch:
        fail_once(patch, failing)
        with pytest.raises(MemoryError):
            policy.replace_component("trunk", WIDER, optimizer=optimizer, followers=followers, guard=failing == "watch")
    unchanged(policy, before)
    assert_same(everything(policy, optimizer, average), held)
    torch.testing.assert_close(policy(OBS), want, rtol=0, atol=0)
    with pytest.raises(WiringError, match="no swap to roll back"):
        policy.rollback()
    policy.replace_component("trunk", WIDER, optimizer=optimizer)
    step(policy, optimizer)
    assert average.learning().keys() == dict(policy.named_parameters()).keys()


def fail_once(patch: Any, what: str) -> None:
    """Have a step do its work, or half of it, and then raise, the first time."""
    from policysmith.policy import parameter_exchange, swap

    calls = iter([True])

    def failing(original: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if next(calls, False):
                raise MemoryError("no room")
            return result

        return wrapper

    places: dict[str, tuple[Any, str]] = {
        "_put": (ActorCritic, "_put"),
        "_replan": (ActorCritic, "_replan"),
        "hand_over": (swap, "ParameterExchange"),
        "_exchange_in": (parameter_exchange, "_exchange_in"),
        "_members": (parameter_exchange, "_members"),
        "average": (WeightAverage, "exchange_parameters"),
        "watch": (swap.Swap, "watch"),
    }
    if what in places:
        owner, name = places[what]
        patch.setattr(owner, name, failing(getattr(owner, name)))


BAD = [
    (lambda p: torch.optim.LBFGS(p.parameters()), "LBFGS keeps one history"),
    (lambda p: torch.optim.Adam([nn.Parameter(torch.zeros(1))]), r"holds no parameter of 'trunk'"),
    (lambda p: object(), "expected one of torch's, or one that holds it as torch_optimizer, found object"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=["lbfgs", "stranger", "no optimizer"])
def test_an_optimizer_that_can_not_take_part_is_refused(make: Any, message: str) -> None:
    policy = build()
    optimizer, before = make(policy), snapshot(policy)
    with pytest.raises(WiringError, match=message):
        policy.replace_component("trunk", WIDER, optimizer=optimizer)
    unchanged(policy, before)


def test_muon_takes_no_biases() -> None:
    policy = build(components=graph(trunk={"type": "nn.Linear", "out_features": 6, "bias": False}))
    optimizer = torch.optim.Muon(parts(policy, "trunk"))
    with pytest.raises(WiringError, match=r"trunk.0.bias has 1 axes, and Muon takes matrices"):
        policy.replace_component("trunk", {"type": "mlp", "hidden": [6]}, optimizer=optimizer)


def test_whatever_can_not_follow_is_refused() -> None:
    policy = build()
    before = snapshot(policy)
    with pytest.raises(WiringError, match="AveragedModel can't follow a swap"):
        policy.replace_component("trunk", WIDER, followers=[torch.optim.swa_utils.AveragedModel(policy)])
    unchanged(policy, before)


def test_a_rollback_keeps_groups_that_were_added_since(caplog: Any) -> None:
    caplog.set_level(logging.WARNING)
    policy, own = build(), nn.Linear(2, 2)
    optimizer = by_component(policy)
    before = named(policy, optimizer)
    policy.replace_component("trunk", OTHER_WIDTH, resize=True, optimizer=optimizer)
    optimizer.add_param_group({"params": own.parameters()})
    policy.rollback()
    own_names = [[id(p) for p in group["params"]] for group in optimizer.param_groups][2]
    assert own_names == [id(p) for p in own.parameters()]
    optimizer.param_groups.pop()
    assert named(policy, optimizer) == before
