"""Rules by component: who updates what, by which step size, what decays, and what is held."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import policysmith
from policysmith.errors import ConfigError
from policysmith.training.optim.optimizers import Optimizers, optimize
from policysmith.training.run.freezing import offline_components_frozen

COMPONENTS = {
    "trunk": {"type": "mlp", "in_keys": "observation", "hidden": [8], "norm": "layer"},
    "policy": {"type": "action_head", "in_keys": "trunk"},
    "state_value": {"type": "value_head", "in_keys": "trunk"},
}


def config(training: dict | None = None, **components) -> dict:
    made = {name: {**component, **components.get(name, {})} for name, component in COMPONENTS.items()}
    steps = {"type": "ppo", "total_steps": 128, "rollout_steps": 16, "minibatches": 2, "epochs": 2}
    return {
        "environment": {"id": "CartPole-v1", "num_envs": 2},
        "model": {"type": "graph", "components": made},
        "training": {**steps, **(training or {})},
    }


def trained(training: dict | None = None, **components):
    return policysmith.train(config(training, **components), progress=False, evaluate=False).policy


def weights(policy) -> dict:
    return {name: tensor.clone() for name, tensor in policy.state_dict().items()}


def nets() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"a": nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), "b": nn.Linear(4, 2)})


def losses(modules: nn.ModuleDict, count: int = 4):
    torch.manual_seed(1)
    for _ in range(count):
        yield modules["b"](modules["a"](torch.randn(8, 3))).square().mean() * 30


def _split(loss):
    """A loss as two that add up to it; the first graph is kept for the second."""
    first = loss * 0.25
    first.backward = lambda: torch.autograd.backward(loss * 0.25, retain_graph=True)
    return [first, loss * 0.75]


def test_without_rules_it_is_plain_adam():
    mine, theirs = nets(), nets()
    ours, reference = optimize(mine, None, {}, eps=1e-5), torch.optim.Adam(theirs.parameters(), lr=0.05, eps=1e-5)
    (found,) = ours.torch_optimizers.values()
    assert type(found) is torch.optim.Adam and len(found.param_groups) == 1 and found.defaults["fused"]
    ours.advance(0.0, 0.05)
    for loss in losses(mine):
        ours.step(loss)
    for loss in losses(theirs):
        reference.zero_grad()
        loss.backward()
        reference.step()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_it_equals_torchs_own_optimisers_side_by_side():
    mine, theirs = nets(), nets()
    rules = {"a": {"type": "adamw", "learning_rate": 0.01, "weight_decay": 0.1}}
    ours = optimize(mine, {"type": "sgd", "momentum": 0.9}, rules)
    ours.advance(0.0, 0.05)
    first, norm = theirs["a"]
    decayed = {"params": [first.weight], "weight_decay": 0.1}
    plain = {"params": [first.bias, norm.weight, norm.bias], "weight_decay": 0.0}
    reference = [
        torch.optim.AdamW([decayed, plain], lr=0.01),
        torch.optim.SGD(theirs["b"].parameters(), lr=0.05, momentum=0.9),
    ]
    for loss in losses(mine):
        ours.step(loss, 0.5)
    for loss in losses(theirs):
        theirs.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        for inner in reference:
            inner.step()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_norms_and_biases_do_not_decay():
    modules = nets()
    ours = optimize(modules, {"type": "adamw", "weight_decay": 0.5}, {})
    ours.advance(0.0, 0.1)
    before = {name: p.detach().clone() for name, p in modules.named_parameters()}
    ours.step(sum(p.sum() * 0 for p in modules.parameters()))
    changed = {name for name, p in modules.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"a.0.weight", "b.weight"}


def test_a_schedule_of_its_own_goes_on_beside_the_algorithms():
    rules = {"a": {"type": "adam", "learning_rate": {"type": "linear", "start": 1.0}}}
    ours = optimize(nets(), None, rules)
    ours.advance(0.25, 0.5)
    assert ours.rates() == {"component/a": 0.75, "others": 0.5}


def test_state_goes_on_where_it_was():
    straight, stopped = nets(), nets()
    make = lambda modules: optimize(modules, "adam", {"a": {"type": "sgd", "momentum": 0.9}})  # noqa: E731
    one, two = make(straight), make(stopped)
    for loss in losses(straight):
        one.step(loss)
    given = losses(stopped)
    for _ in range(2):
        two.step(next(given))
    continued = make(stopped)
    continued.load_state(two.state())
    for loss in given:
        continued.step(loss)
    for a, b in zip(straight.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(a, b)


def test_gradients_of_several_losses_add_up():
    whole, parts = nets(), nets()
    together, apart = optimize(whole, None, {}), optimize(parts, None, {})
    for loss in losses(whole):
        together.step(loss)
    for loss in losses(parts):
        apart.step(_split(loss))
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_accumulated_parts_make_the_update_of_the_whole():
    whole, parts = trained(), trained({"accumulate": 4})
    for name, tensor in whole.state_dict().items():
        assert torch.allclose(tensor, parts.state_dict()[name], atol=1e-5), name


def test_ppo_trains_each_component_by_its_rule_and_resumes(tmp_path):
    rules = {"optimizer": "adamw", "optimizers": {"trunk": {"type": "sgd", "learning_rate": 0.0}}}
    start = weights(policysmith.build(config(rules)))
    policysmith.train(config(rules), output=tmp_path / "run", progress=False, evaluate=False)
    found = weights(policysmith.load(tmp_path / "run"))
    moved = {name.split(".")[1] for name in found if not torch.equal(found[name], start[name])}
    assert moved == {"policy", "state_value"}
    more = policysmith.train(
        None, ["training.total_steps=192"], resume=tmp_path / "run", progress=False, evaluate=False
    )
    assert more.steps == 192


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"trunc": "adam"}, "training.optimizers.trunc: there is no component 'trunc' (did you mean 'trunk'?)"),
        ({"trunk": "adamm"}, "unknown optimizer 'adamm'"),
        ({"trunk": {"type": "adam", "beta1": 1.0}}, "training.optimizers.trunk.beta1: must be < 1"),
    ],
)
def test_rules_that_fit_nothing_are_told(rules, words):
    assert words in "\n".join(map(str, policysmith.check(config({"optimizers": rules}))))


def test_a_rule_for_what_does_not_learn_is_told():
    found = policysmith.check(config({"optimizers": {"trunk": "adam"}}, trunk={"freeze": True}))
    assert "nothing of 'trunk' learns" in str(found[0])


def test_what_learns_offline_alone_is_held_online_to_the_last_bit_and_free_again_after():
    batch_norm = {"norm": "batch"}
    made = config(None, trunk={"online_update": False, **batch_norm})
    made["model"]["batch_coupled"] = True
    start = weights(policysmith.build(made))
    policy = policysmith.train(made, progress=False, evaluate=False).policy
    found = weights(policy)
    moved = {name.split(".")[1] for name in found if not torch.equal(found[name], start[name])}
    assert moved == {"policy", "state_value"}
    assert all(p.requires_grad for p in policy.parameters())


def test_where_nothing_is_left_to_learn_online_it_is_an_error():
    held = {name: {"online_update": False} for name in COMPONENTS}
    with (
        pytest.raises(ConfigError, match="nothing else learns"),
        offline_components_frozen(policysmith.build(config(None, **held))),
    ):
        pass


def test_a_rule_of_ones_own_is_registered_like_any_part():
    from policysmith.registry import default_registry, register

    @register("signs", slot="optimizer")
    class Signs:
        learning_rate, weight_decay = None, 0.0

        def make(self, groups):
            return torch.optim.SGD(groups)

    modules = nets()
    before = [p.clone() for p in modules.parameters()]
    try:
        optimizer = optimize(modules, "signs", {})
    finally:
        del default_registry._entries["optimizer"]["signs"]
    optimizer.advance(0.0, 0.5)
    optimizer.step(next(losses(modules)))
    for old, new in zip(before, modules.parameters(), strict=True):
        assert torch.allclose(new, old - 0.5 * new.grad)


def test_loggers_and_callbacks_of_ones_own_see_every_iteration_and_may_end_it(tmp_path):
    from policysmith.registry import default_registry, register

    seen: list[int] = []

    @register("noting", slot="logger")
    class Noting:
        def __init__(self, word: str = "x") -> None:
            self.word = word

        def report(self, report, steps_per_second):
            seen.append(report.step)

        def close(self):
            seen.append(-1)

    @register("at_once", slot="callback")
    def at_once(after: int = 1):
        return lambda report: report.iteration >= after

    try:
        made = config({"loggers": ["noting"], "callbacks": [{"type": "at_once", "after": 2}]})
        result = policysmith.train(made, output=tmp_path / "run", progress=False, evaluate=False)
    finally:
        del default_registry._entries["logger"]["noting"], default_registry._entries["callback"]["at_once"]
    assert seen == [32, 64, -1] and result.steps == 64


def ruled(policy, weight_decay: float = 0.1) -> Optimizers:
    rules = {
        "trunk": {"type": "adamw", "weight_decay": weight_decay, "learning_rate": 0.001},
        "policy": {"type": "sgd", "momentum": 0.9, "learning_rate": {"type": "linear", "start": 0.1}},
    }
    return optimize(policy.components, {"type": "adam"}, rules)


def stepped(optimizer, policy):
    log_prob, entropy, value = policy.evaluate_actions(torch.randn(6, 4), torch.zeros(6, dtype=torch.int64))
    optimizer.step((log_prob + entropy + value).mean())


def places(optimizer: Optimizers) -> dict:
    return {
        name: [([id(p) for p in group["params"]], group["weight_decay"]) for group in inner.param_groups]
        for name, inner in optimizer.torch_optimizers.items()
    }


WIDER = {"type": "mlp", "hidden": [16, 12], "norm": "layer"}


def test_a_swap_leaves_rules_as_a_policy_made_anew_would_have_them():
    """Where the old trunk had no biases, the group without decay waits for those of the new one."""
    plain = config()
    linear = {"type": "nn.Linear", "in_keys": "observation", "out_features": 8, "bias": False}
    plain["model"]["components"]["trunk"] = linear
    policy = policysmith.build(plain, seed=0)
    optimizer = ruled(policy)
    stepped(optimizer, policy)
    kept = optimizer.torch_optimizers["others"].state[next(policy.components["state_value"].parameters())]
    policy.replace_component("trunk", {"type": "mlp", "hidden": [8], "norm": "layer"}, optimizer=optimizer)
    assert places(optimizer) == places(ruled(policy))
    assert optimizer.torch_optimizers["others"].state[next(policy.components["state_value"].parameters())] is kept
    policy.replace_component("trunk", WIDER, resize=True, optimizer=optimizer)
    assert places(optimizer) == places(ruled(policy))
    stepped(optimizer, policy)
    optimizer.load_state(optimizer.state())
    ruled(policy).load_state(optimizer.state())


def test_after_a_swap_rules_step_as_those_made_anew_do():
    policy = policysmith.build(config(), seed=0)
    optimizer = ruled(policy)
    policy.replace_component("trunk", WIDER, resize=True, optimizer=optimizer)
    twin = copy.deepcopy(policy)
    fresh = ruled(twin)
    for progress in (0.0, 0.5):
        for chosen, of in ((optimizer, policy), (fresh, twin)):
            torch.manual_seed(3)
            chosen.advance(progress, 0.01)
            stepped(chosen, of)
    assert optimizer.rates() == fresh.rates()
    assert weights(policy).keys() == weights(twin).keys()
    assert all(torch.equal(weights(policy)[name], tensor) for name, tensor in weights(twin).items())


def test_what_begins_to_learn_by_a_swap_goes_by_its_rule():
    policy = policysmith.build(config(trunk={"freeze": True}), seed=0)
    rules = {"policy": {"type": "sgd"}, "state_value": {"type": "sgd", "learning_rate": 0.5}}
    optimizer = optimize(policy.components, {"type": "adam"}, rules)
    assert optimizer.rates().keys() == {"component/policy", "component/state_value"}  # nothing is left for the usual
    policy.replace_component("trunk", WIDER | {"hidden": [8]}, optimizer=optimizer)
    assert places(optimizer)["others"][0][0] == [id(p) for p in policy.components["trunk"].parameters()]
    policy.rollback()
    assert optimizer.rates().keys() == {"component/policy", "component/state_value"}
