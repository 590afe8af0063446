"""Policies with memory: acting step by step is the same function as learning over sequences."""

from __future__ import annotations

import copy
import pickle
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor, nn

import policysmith
from policysmith.errors import ConfigError, PolicysmithError, ShapeError
from policysmith.policy.actor_critic import ActorCritic
from policysmith.registry import Infer, default_registry

REGISTRY = default_registry.copy()
B, T = 3, 7


@REGISTRY.register("leaky", stateful=True, causal=True)
class Leaky(nn.Module):
    """h ← tanh(W x + U h), the smallest memory there is."""

    def __init__(self, features: Annotated[int, Infer("flat_features")], size: int = 5) -> None:
        super().__init__()
        self.inner, self.back = nn.Linear(features, size), nn.Linear(size, size)
        self.start = nn.Parameter(torch.linspace(-1, 1, size))

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        return {"h": self.start.expand(batch, -1)}

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        h = torch.tanh(self.inner(x) + self.back(state["h"]))
        return h, {"h": h}

    def unroll(self, x: Tensor, state: dict[str, Tensor], first: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        outputs, h = [], state["h"]
        for t in range(x.shape[1]):
            if first is not None:
                h = torch.where(first[:, t, None], self.start, h)
            y, after = self(x[:, t], {"h": h})
            h = after["h"]
            outputs.append(y)
        return torch.stack(outputs, 1), {"h": h}


def build(obs: Any = None, action: Any = None, **leaky: Any) -> ActorCritic:
    components = {
        "encoder": {"type": "mlp", "in_keys": "observation", "hidden": [6]},
        "memory": {"type": "leaky", "in_keys": "encoder", **leaky},
        "policy": {"type": "action_head", "in_keys": ["memory", "encoder"]},
        "state_value": {"type": "value_head", "in_keys": "memory"},
    }
    policy = policysmith.build(
        {"model": {"type": "graph", "components": components}},
        obs or spaces.Box(-1, 1, (4,)),
        action or spaces.Discrete(3),
        registry=REGISTRY,
        seed=0,
    )
    assert policy.has_memory
    return policy


def data(policy: ActorCritic) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    obs = torch.randn(B, T, 4, generator=generator)
    first = torch.rand(B, T, generator=generator) < 0.3
    first[0, 0] = True
    state = {key: torch.randn(t.shape, generator=generator) for key, t in policy.init_state(B).items()}
    state["memory/h"][0] = torch.nan  # garbage that the reset must not let through
    return obs, first, state


def stepped(policy: ActorCritic, obs: Tensor, first: Tensor, state: Any, mask: Any = None) -> Any:
    actions, log_probs, values = [], [], []
    for t in range(obs.shape[1]):
        action, log_prob, value, state = policy.act(obs[:, t], state, first[:, t], None if mask is None else mask[:, t])
        actions.append(action)
        log_probs.append(log_prob)
        values.append(value)
    return torch.stack(actions, 1), torch.stack(log_probs, 1), torch.stack(values, 1), state


@pytest.mark.parametrize("action", [spaces.Discrete(3), spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([2, 3])])
def test_acting_and_evaluating_agree(action: Any) -> None:
    policy = build(action=action)
    obs, first, state = data(policy)
    actions, log_prob, value, _ = stepped(policy, obs, first, state)
    again, entropy, value_again = policy.evaluate(obs, actions, state, first)
    torch.testing.assert_close(again, log_prob)
    torch.testing.assert_close(value_again, value)
    assert entropy.shape == (B, T) and entropy.isfinite().all()


def test_gradients_of_steps_and_of_the_sequence_agree() -> None:
    policy = build()
    obs, first, state = data(policy)
    state["memory/h"][0] = 0.0
    actions, log_prob, value, _ = stepped(policy, obs, first, state)
    parameters = list(policy.parameters())
    by_steps = torch.autograd.grad(log_prob.sum() + value.square().sum(), parameters)
    log_prob, _, value = policy.evaluate(obs, actions, state, first)
    at_once = torch.autograd.grad(log_prob.sum() + value.square().sum(), parameters)
    for one, other in zip(by_steps, at_once, strict=True):
        torch.testing.assert_close(one, other)


def test_unroll_hands_on_the_state() -> None:
    policy = build()
    obs, first, state = data(policy)
    params, value, after = policy.unroll(obs, state, first)
    early, value_early, middle = policy.unroll(obs[:, :3], state, first[:, :3])
    late, value_late, end = policy.unroll(obs[:, 3:], middle, first[:, 3:])
    torch.testing.assert_close(torch.cat([early, late], 1), params)
    torch.testing.assert_close(torch.cat([value_early, value_late], 1), value)
    torch.testing.assert_close(end["memory/h"], after["memory/h"])
    torch.testing.assert_close(stepped(policy, obs, first, state)[3]["memory/h"], after["memory/h"])


def test_nothing_before_a_beginning_changes_anything_after() -> None:
    policy = build()
    obs, first, state = data(policy)
    first[:, 4] = True
    before = policy.unroll(obs, state, first)
    obs[:, :4] += 1.0
    after = policy.unroll(obs, policy.init_state(B), first)
    torch.testing.assert_close(before[0][:, 4:], after[0][:, 4:])
    assert not torch.equal(before[0][1:, :4], after[0][1:, :4])


def test_the_emitted_step_is_the_slow_one() -> None:
    policy = build()
    obs, _, state = data(policy)
    state["memory/h"][0] = 0.0
    fast = policy.act(obs[:, 0], state, None, deterministic=True)
    slow = policy.slow("act", obs[:, 0], *state.values(), deterministic=True)
    assert torch.equal(fast[0], slow[0][0]) and torch.equal(fast[1], slow[1]) and torch.equal(fast[2], slow[2])
    assert torch.equal(fast[3]["memory/h"], slow[3][0])


def test_calls_without_memory_raise_and_name_act() -> None:
    policy = build()
    obs = torch.zeros(2, 4)
    calls = [
        lambda: policy(obs),
        lambda: policy.get_action_and_value(obs),
        lambda: policy.get_value(obs),
        lambda: policy.evaluate_actions(obs, torch.zeros(2)),
        lambda: policy.distribution(obs),
        lambda: policy.evaluating(),
        lambda: policy.scoring(),
        lambda: policy.reading(["encoder"]),
    ]
    for call in calls:
        with pytest.raises(PolicysmithError, match=r"has a memory \('memory'\).*(act|evaluate|distribution)\("):
            call()


@pytest.mark.parametrize("action", [spaces.Discrete(3), spaces.Box(-1, 1, (2,))], ids=["discrete", "box"])
def test_a_policy_without_memory_is_one_with_an_empty_state(action: Any) -> None:
    """The calls of policies with memory serve it too, and give what its own calls give row by row."""
    model = {"type": "mlp", "hidden": [6]}
    policy = policysmith.build({"model": model}, spaces.Box(-1, 1, (4,)), action, seed=0)
    obs, state = torch.randn(B, T, 4), policy.init_state(B)
    assert state == {} and not policy.has_memory
    torch.manual_seed(0)
    chosen, *rest, after = policy.act(obs[:, 0], state, torch.ones(B, dtype=torch.bool))
    torch.manual_seed(0)
    assert all(map(torch.equal, (chosen, *rest), policy.get_action_and_value(obs[:, 0]))) and after == {}
    rows, actions = obs.flatten(0, 1), policy.get_action_and_value(obs.flatten(0, 1))[0]
    expected = policy.evaluate_actions(rows, actions)
    for found, row in zip(policy.evaluate(obs, actions.unflatten(0, (B, T)), state), expected, strict=True):
        torch.testing.assert_close(found.flatten(0, 1), row)
    params, value, end = policy.unroll(obs, state, torch.rand(B, T) < 0.3)
    torch.testing.assert_close((params.flatten(0, 1), value.flatten(0, 1)), policy(rows))
    torch.testing.assert_close(policy.get_value(rows, state), policy.get_value(rows))
    assert end == {} and policy.predict(np.zeros(4, np.float32), "kept")[1] == "kept"
    with pytest.raises(ShapeError, match="the state must hold nothing; found memory/h"):
        policy.act(obs[:, 0], {"memory/h": torch.zeros(B, 5)})


@pytest.mark.parametrize("deterministic", [False, True])
def test_no_state_begins_an_episode_in_every_row(deterministic: bool) -> None:
    policy, obs = build(), torch.randn(B, 4)
    results = []
    for state in (None, policy.init_state(B)):
        torch.manual_seed(0)
        action, log_prob, value, after = policy.act(obs, state, deterministic=deterministic)
        results.append([action, log_prob, value, after["memory/h"]])
    assert all(map(torch.equal, *results))


def test_a_wrong_state_is_refused_by_name() -> None:
    policy = build()
    with pytest.raises(ShapeError, match=r"must hold memory/h; found memry/h \(did you mean 'memory/h'\?\)"):
        policy.act(torch.zeros(2, 4), {"memry/h": torch.zeros(2, 5)})
    with pytest.raises(ShapeError, match="3 rows for 2 observations"):
        policy.act(torch.zeros(2, 4), policy.init_state(3))
    with pytest.raises(ShapeError, match=r"expected a sequence \(B, T, 4\)"):
        policy.evaluate(torch.zeros(2, 4), torch.zeros(2))


def test_get_value_is_the_value_of_acting() -> None:
    policy = build()
    obs, first, state = data(policy)
    torch.testing.assert_close(
        policy.get_value(obs[:, 0], state, first[:, 0]), policy.act(obs[:, 0], state, first[:, 0])[2]
    )


def test_distribution_agrees_with_acting() -> None:
    policy = build()
    obs, first, state = data(policy)
    action, log_prob, _, _ = policy.act(obs[:, 0], state, first[:, 0])
    torch.testing.assert_close(
        policy.distribution(obs[:, 0], state=state, first=first[:, 0]).log_prob(action), log_prob
    )


def test_masks_hold_over_sequences() -> None:
    policy = build(action=spaces.Discrete(4))
    obs, first, state = data(policy)
    mask = torch.rand(B, T, 4, generator=torch.Generator().manual_seed(2)) < 0.5
    mask[..., 1] |= ~mask.any(-1)
    actions, log_prob, _, _ = stepped(policy, obs, first, state, mask)
    assert mask.gather(-1, actions.unsqueeze(-1)).all()
    again, entropy, _ = policy.evaluate(obs, actions, state, first, mask)
    torch.testing.assert_close(again, log_prob)
    for_all = torch.tensor([True, False, True, True])
    _, one, _ = policy.evaluate(obs, actions.new_zeros(B, T), state, first, for_all)
    _, every, _ = policy.evaluate(obs, actions.new_zeros(B, T), state, first, for_all.expand(B, T, 4))
    assert torch.equal(one, every) and not torch.equal(one, entropy)


def test_masks_lie_in_the_observation() -> None:
    space = spaces.Dict({"x": spaces.Box(-1, 1, (4,)), "action_mask": spaces.MultiBinary(3)})
    components = {
        "memory": {"type": "leaky", "in_keys": "observation"},
        "policy": {"type": "action_head", "in_keys": "memory"},
        "state_value": {"type": "value_head", "in_keys": "memory"},
    }
    policy = policysmith.build(
        {"model": {"type": "graph", "components": components}}, space, spaces.Discrete(3), registry=REGISTRY, seed=0
    )
    mask = torch.tensor([0, 1, 0], dtype=torch.int8).expand(2, T, 3)
    obs = {"x": torch.randn(2, T, 4), "action_mask": mask}
    log_prob, entropy, _ = policy.evaluate(obs, torch.ones(2, T, dtype=torch.int64), policy.init_state(2))
    assert torch.equal(log_prob, torch.zeros(2, T)) and torch.equal(entropy, torch.zeros(2, T))


def test_predict_carries_the_state() -> None:
    policy = build()
    observation = np.full(4, 0.5, np.float32)
    action, state = policy.predict(observation)
    assert np.ndim(action) == 0 and state["memory/h"].shape == (1, 5)
    _, later = policy.predict(observation, state)
    assert not torch.equal(state["memory/h"], later["memory/h"])
    expected = policy.act(torch.as_tensor(observation)[None], state, deterministic=True)[3]
    torch.testing.assert_close(later, expected)


def test_acting_is_act_in_inference_mode() -> None:
    policy = build()
    obs, first, state = data(policy)
    state["memory/h"][0] = 0.0
    got = policy.acting(deterministic=True)(obs[:, 0], state, first[:, 0])
    want = policy.act(obs[:, 0], state, first[:, 0], deterministic=True)
    assert got[2].is_inference() and torch.equal(got[0], want[0])
    torch.testing.assert_close(got[3], want[3])


@pytest.mark.parametrize("action", [spaces.Discrete(3), spaces.Dict({"a": spaces.Discrete(3)})])
def test_acting_takes_masks_and_composite_actions_as_act_does(action: Any) -> None:
    policy = build(action=action)
    obs, first, state = data(policy)
    mask = torch.tensor([[0, 1, 0]]).expand(B, -1)
    for legal in (None, mask if isinstance(action, spaces.Discrete) else {"a": mask}):
        got = policy.acting(deterministic=True)(obs[:, 0], state, first[:, 0], legal)
        want = policy.act(obs[:, 0], state, first[:, 0], legal, deterministic=True)
        torch.testing.assert_close(got, want)


def test_acting_names_what_does_not_fit_and_sees_a_swap() -> None:
    policy = build()
    obs, first, state = data(policy)
    act = policy.acting(deterministic=True)
    with pytest.raises(ShapeError, match="3 rows for 2 observations"):
        act(obs[:2, 0], state)
    with pytest.raises(ShapeError, match="observation"):
        act(torch.zeros(B, 5), state)
    before = act(obs[:, 0], state, first[:, 0])[2]
    policy.components["memory"].module.start.data.add_(1.0)
    policy.components["memory"].module.inner = nn.Linear(6, 5)
    after = act(obs[:, 0], state, first[:, 0])[2]
    torch.testing.assert_close(after, policy.act(obs[:, 0], state, first[:, 0])[2].detach())
    assert not torch.equal(before, after)


def test_tensordicts_step_and_unroll() -> None:
    policy = build()
    obs, first, state = data(policy)
    td = TensorDict({"observation": obs[:, 0], "is_init": first[:, :1], **state}, [B])
    policy(td)
    params, value, after = policy.unroll(obs[:, :1], state, first[:, :1])
    torch.testing.assert_close(td["logits"], params[:, 0])
    torch.testing.assert_close(td["state_value"], value[:, 0])
    torch.testing.assert_close(td["next", "memory/h"], after["memory/h"])

    over_time = {key: tensor.unsqueeze(1).expand(B, T, *tensor.shape[1:]) for key, tensor in state.items()}
    sequence = TensorDict({"observation": obs, "is_init": first.unsqueeze(-1), **over_time}, [B, T])
    policy(sequence)
    torch.testing.assert_close(sequence["logits"], policy.unroll(obs, state, first)[0])
    torch.testing.assert_close(
        policy.evaluate_actions(sequence, torch.zeros(B, T, dtype=torch.int64))[0],
        policy.evaluate(obs, torch.zeros(B, T, dtype=torch.int64), state, first)[0],
    )


def test_the_container_runs_a_memory_by_its_keys() -> None:
    policy = build()
    obs, first, state = data(policy)
    one = policy.components({"observation": obs[:, 0], "is_init": first[:, 0], **state})
    many = policy.components({"observation": obs, "is_init": first, **state})
    params, value, after = policy.unroll(obs, state, first)
    torch.testing.assert_close(one["state_value"], value[:, 0])
    torch.testing.assert_close(many["policy"], params)
    torch.testing.assert_close(many["memory/h"], after["memory/h"])


def test_hooks_on_a_memory_are_called() -> None:
    policy = build()
    obs, first, state = data(policy)
    calls: list[str] = []
    policy.act(obs[:, 0], state, first[:, 0])
    handle = policy.components["memory"].register_forward_hook(lambda *_: calls.append("memory"))
    expected = policy.slow("act", obs[:, 0], *policy.init_state(B).values(), deterministic=True)
    calls.clear()
    got = policy.act(obs[:, 0], policy.init_state(B), None, deterministic=True)
    assert calls == ["memory"] and torch.equal(got[2], expected[2])
    policy.unroll(obs, state, first)
    assert calls == ["memory"] * 2
    handle.remove()
    policy.act(obs[:, 0], state, first[:, 0])
    assert calls == ["memory"] * 2


def test_copies_pickles_and_stores_like_any_policy(tmp_path: Any) -> None:
    policy = build()
    obs, first, state = data(policy)
    for twin in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        torch.testing.assert_close(twin.unroll(obs, state, first), policy.unroll(obs, state, first), equal_nan=True)
    policysmith.save(policy, tmp_path / "stored")
    loaded = policysmith.load(tmp_path / "stored", registry=REGISTRY)
    torch.testing.assert_close(loaded.unroll(obs, state, first), policy.unroll(obs, state, first), equal_nan=True)


def test_one_step_compiles_and_exports() -> None:
    policy = build()
    obs, first, state = data(policy)
    state["memory/h"][0] = 0.0
    want = policy.act(obs[:, 0], state, first[:, 0], deterministic=True)

    def step(obs: Tensor, state: dict[str, Tensor], first: Tensor) -> Any:
        return policy.act(obs, state, first, deterministic=True)

    compiled = torch.compile(step, fullgraph=True, backend="eager")(obs[:, 0], state, first[:, 0])
    torch.testing.assert_close(compiled, want)

    class Stepper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.policy = policy

        def forward(self, obs: Tensor, state: dict[str, Tensor], first: Tensor) -> Any:
            return self.policy.act(obs, state, first, deterministic=True)

    exported = torch.export.export(Stepper(), (obs[:, 0], state, first[:, 0])).module()
    torch.testing.assert_close(exported(obs[:, 0], state, first[:, 0]), want)


def test_a_state_that_changes_shape_is_a_problem_of_the_plan() -> None:
    registry = default_registry.copy()

    @registry.register("growing", stateful=True)
    class Growing(Leaky):
        def forward(self, x: Tensor, state: dict[str, Tensor]) -> Any:
            y, after = super().forward(x, state)
            return y, {"h": torch.cat([after["h"], after["h"]], -1)}

    components = {
        "memory": {"type": "growing", "in_keys": "observation"},
        "policy": {"type": "action_head", "in_keys": "memory"},
        "state_value": {"type": "value_head", "in_keys": "memory"},
    }
    with pytest.raises(ConfigError, match=r"model\.components\.memory: .*its state changes"):
        policysmith.build(
            {"model": {"type": "graph", "components": components}},
            spaces.Box(-1, 1, (4,)),
            spaces.Discrete(2),
            registry=registry,
        )
