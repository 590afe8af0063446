"""The transformer as a model: windows and episodes, its heads, training, storing, and options that do not belong."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import policysmith
from policysmith.errors import ConfigError
from policysmith.registry import default_registry

T, F, A = 5, 4, 3
WINDOW, STEP, ACTIONS = spaces.Box(-1, 1, (T, F)), spaces.Box(-1, 1, (F,)), spaces.Discrete(A)
TWO_HEADS = {"type": "mha", "heads": 2}


def build(space: Any = WINDOW, actions: Any = ACTIONS, **options: Any) -> Any:
    model = {"type": "transformer", "dim": 8, "layers": 1, "attention": TWO_HEADS, **options}
    return policysmith.build({"seed": 0, "model": model}, space, actions)


def problems(space: Any = WINDOW, **options: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        build(space, **options)
    return {problem.path: problem.message for problem in caught.value.problems}


def observations(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, T, F, generator=torch.Generator().manual_seed(0))


WINDOW_MODELS: dict[str, dict[str, Any]] = {
    "decoder_only": {},
    "encoder_only": {"architecture": "encoder_only"},
    "latent": {"architecture": "encoder_only", "attention": {"type": "latent_queries", "heads": 2, "n_latents": 3}},
    "queries": {"architecture": "encoder_decoder", "queries": 2, "pooling": "mean"},
    "shifted": {"architecture": "encoder_decoder", "decoder_input": "shifted", "causal": True, "decoder_layers": 2},
    "extractor": {"extractor": {"type": "resnet", "hidden": 6}, "pooling": "attention"},
    "experts": {"feedforward": {"type": "moe", "experts": 3}, "norm": "rms", "residual": "gated"},
    "heads": {"head": {"type": "mlp", "hidden": [6]}, "placement": "sandwich", "position": "time"},
    "batch": {"norm": "batch", "batch_coupled": True},
}


@pytest.mark.parametrize("name", WINDOW_MODELS)
def test_a_window_model_speaks_the_protocol_and_learns(name):
    policy = build(**WINDOW_MODELS[name])
    obs = observations()
    logits, value = policy(obs)
    assert logits.shape == (4, A) and value.shape == (4,)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.03)
    actions, target = torch.tensor([0, 1, 2, 0]), torch.tensor([1.0, -1.0, 0.5, 0.0])
    losses = []
    for _ in range(40):
        log_prob, _, value = policy.evaluate_actions(obs, actions)
        loss = (value - target).square().mean() - log_prob.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    policy.eval()
    chosen, log_prob, value = policy.get_action_and_value(obs)
    again, _, value_again = policy.evaluate_actions(obs, chosen)
    torch.testing.assert_close(log_prob, again)
    torch.testing.assert_close(value, value_again)
    action, state = policy.predict(obs[0].numpy())
    assert ACTIONS.contains(int(action)) and state is None


@pytest.mark.parametrize("name", WINDOW_MODELS)
def test_a_window_model_is_stored_and_loaded(name, tmp_path):
    policy = build(**WINDOW_MODELS[name]).eval()
    policysmith.save(policy, tmp_path / "policy")
    found = policysmith.load(tmp_path / "policy")(observations())
    assert all(torch.equal(a, b) for a, b in zip(found, policy(observations()), strict=True))


def test_the_components_are_those_that_the_options_ask_for():
    assert [n for n in build().components] == ["stack", "pooling", "policy", "state_value"]
    assert [n for n in build(STEP, context=3).components] == ["memory", "policy", "state_value"]
    with_all = build(extractor="basic", head={"type": "mlp", "hidden": [6]})
    assert [n for n in with_all.components] == [
        "extractor", "stack", "pooling", "actor", "critic", "policy", "state_value",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "causal"),
    [
        ({}, True),
        ({"architecture": "encoder_only"}, False),
        ({"architecture": "encoder_only", "causal": True}, True),
    ],
)
def test_the_extractor_is_as_causal_as_the_stack(options, causal):
    """From end to end: the stack's outputs, seen before the pooling, depend on later steps or don't."""
    policy = build(extractor={"type": "basic", "hidden": 6}, **options).eval()
    parts = [policy.components[name].module for name in ("extractor", "stack")]
    x, other = observations(), observations()
    other[:, -1] += torch.randn(F)
    before, after = (parts[1](parts[0](o))[:, :-1] for o in (x, other))
    assert torch.equal(before, after) is causal


def test_with_context_it_remembers_an_episode():
    policy = build(STEP, context=3)
    assert policy.has_memory
    obs, first = observations(), torch.tensor([[True, False, False, True, False]] * 4)
    params, value, after = policy.unroll(obs, None, first)
    state = policy.init_state(4)
    for t in range(T):
        _, _, one, state = policy.act(obs[:, t], state, first[:, t])
        torch.testing.assert_close(one, value[:, t])
    assert params.shape == (4, T, A)
    for key, tensor in after.items():
        torch.testing.assert_close(state[key], tensor)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(5),
        spaces.Box(0, 255, (6, 6, 3), np.uint8),
        spaces.Dict(seen=spaces.Box(-1, 1, (3,)), room=spaces.Discrete(4)),
    ],
    ids=lambda s: type(s).__name__,
)
def test_a_memory_takes_any_observation(space):
    policy = build(space, context=3)
    space.seed(0)
    action, state = policy.predict(space.sample(), None)
    assert ACTIONS.contains(int(action)) and state["memory/position"].tolist() == [1]


def test_actions_may_be_continuous():
    space = spaces.Box(-2, 2, (2,))
    policy = build(actions=space, std="dependent", squash=True)
    assert space.contains(policy.predict(observations()[0].numpy())[0])


def test_dimensions_and_parts_that_do_not_fit_are_problems_before_anything_is_built():
    assert "dim=9 is not a multiple of heads=2" in problems(dim=9)["model.stack"]
    assert "'latent_queries' lets a step see the whole sequence" in problems(attention="latent_queries")["model.stack"]
    assert "for one step at a time use transformer_memory" in problems(STEP)["model.stack"]
    assert "are not there yet when it acts" in problems(STEP, context=3, norm="instance")["model.memory"]
    assert "batch normalisation makes a row's action depend on" in problems(norm="batch")["model.stack"]


def test_every_option_that_needs_a_window_is_a_problem_of_its_own():
    found = problems(
        STEP, context=3, architecture="encoder_decoder", extractor="basic", pooling="mean", causal=False,
        decoder_layers=1, queries=2, decoder_input="queries",
    )  # fmt: skip
    assert sorted(found) == [
        f"model.{name}"
        for name in ("architecture", "causal", "decoder_input", "decoder_layers", "extractor", "pooling", "queries")
    ]
    assert set(found.values()) == {
        "needs a whole window, and with context the steps come one by one: remove it, or context"
    }
    assert build(STEP, context=3, causal=True)


def test_a_window_has_no_target():
    found = problems(architecture="encoder_decoder", decoder_input="target")
    assert found == {"model.decoder_input": "a window has no target beside it: use queries or shifted"}


def test_nested_options_are_checked_like_any():
    found = problems(attention={"type": "mha", "kv_heads": 2}, feedforward="mlpp", norm={"type": "rms", "ep": 1})
    assert "unknown option of 'mha'" in found["model.attention.kv_heads"]
    assert "did you mean 'mlp'?" in found["model.feedforward"]
    assert "did you mean 'eps'?" in found["model.norm.ep"]


def test_temperature_divides_the_logits_alike_in_acting_and_evaluating():
    plain, cold = build(), build(temperature=0.5)
    obs = observations()
    torch.testing.assert_close(cold(obs)[0], 2 * plain(obs)[0])
    chosen, log_prob, _ = cold.get_action_and_value(obs)
    torch.testing.assert_close(cold.evaluate_actions(obs, chosen)[0], log_prob)
    expected = torch.log_softmax(2 * plain(obs)[0], -1).gather(1, chosen.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(log_prob, expected)
    with pytest.raises(ConfigError, match=r"temperature=0\.5 is for logits; a Box has initial_std"):
        build(actions=spaces.Box(-1, 1, (2,)), temperature=0.5)


class Recall(gym.Env):
    """Shows a bit at first and asks for it two steps later: no memory, no reward."""

    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.bit, self.time = int(self.np_random.integers(2)), 0
        return np.array([2 * self.bit - 1, 0], np.float32), {}

    def step(self, action):
        self.time += 1
        done = self.time == 3
        return np.array([0, self.time == 2], np.float32), float(done and action == self.bit), done, False, {}


gym.register("policysmith/Recall-v0", entry_point=Recall)


@pytest.mark.parametrize("memory", [{"type": "transformer", "context": 4}, {"type": "gtrxl"}], ids=["plain", "gtrxl"])
def test_training_by_ppo_solves_what_only_a_memory_can(memory, tmp_path):
    options = {"dim": 16, "layers": 1, "attention": TWO_HEADS}
    model: dict[str, Any] = {**memory, **options}
    if memory["type"] == "gtrxl":
        model = {
            "type": "graph",
            "components": {
                "memory": {"type": "gtrxl", "in_keys": "observation", "context": 4, **options},
                "policy": {"type": "action_head", "in_keys": "memory"},
                "state_value": {"type": "value_head", "in_keys": "memory"},
            },
        }
    config = {
        "seed": 0,
        "environment": {"id": "policysmith/Recall-v0", "num_envs": 8},
        "model": model,
        "training": {"type": "ppo", "total_steps": 4096, "rollout_steps": 32, "learning_rate": 0.003},
    }
    result = policysmith.train(config, output=tmp_path / "run", progress=False, evaluate=False)
    assert policysmith.evaluate(result.policy, episodes=50).mean == 1


def test_the_schema_of_the_model_names_its_slots():
    parameters = default_registry.entry("model", "transformer").schema.parameters
    assert {"attention", "feedforward", "norm", "position", "residual", "extractor", "head"} <= set(parameters)
