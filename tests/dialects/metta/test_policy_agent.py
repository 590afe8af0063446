"""PolicyAgent: a policy from its configuration, whose call on a TensorDict also draws the action."""

import copy
import pickle

import gymnasium as gym
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from tensordict.nn import InteractionType, set_interaction_type

import policysmith
from policysmith import ActorCritic, PolicyAgent
from policysmith.dialects.metta.policy_agent import StatefulPolicyAgent
from policysmith.errors import ConfigError

SPACES = (spaces.Box(-1, 1, (4,)), spaces.Discrete(3))
MLP = {"model": {"type": "mlp", "hidden": [8]}, "seed": 3}
MEMORY = {
    "seed": 3,
    "model": {
        "type": "graph",
        "components": {
            "memory": {"type": "lstm", "hidden_size": 8, "in_keys": "observation"},
            "policy": {"type": "action_head", "in_keys": "memory"},
            "state_value": {"type": "value_head", "in_keys": "memory"},
        },
    },
}
COPIERS = {"deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}


def observation(rows=5, **entries):
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))
    return TensorDict({"observation": x, **entries}, [rows])


def test_an_agent_is_the_policy_that_build_builds():
    agent, policy = PolicyAgent(MLP, *SPACES), policysmith.build(MLP, *SPACES)
    assert isinstance(agent, ActorCritic) and type(agent) is PolicyAgent
    obs = observation()["observation"]
    assert all(map(torch.equal, agent(obs), policy(obs)))
    assert agent.config == policy.config
    assert list(agent.state_dict()) == list(policy.state_dict())


@pytest.mark.parametrize("source", ["preset", "mapping", "file"])
def test_an_agent_takes_what_build_takes(source, tmp_path):
    (tmp_path / "policy.yaml").write_text("environment: {id: CartPole-v1}\nmodel: {type: mlp, hidden: [8]}\n")
    config = {
        "preset": "cartpole",
        "mapping": {"environment": {"id": "CartPole-v1"}, "model": "mlp"},
        "file": tmp_path / "policy.yaml",
    }[source]
    agent = PolicyAgent(config, overrides=["execution.executor=parallel"], seed=1)
    action, _ = agent.predict(gym.make("CartPole-v1").reset(seed=0)[0])
    assert gym.make("CartPole-v1").action_space.contains(action)
    with pytest.raises(ConfigError, match="did you mean"):
        PolicyAgent({"model": {"type": "mlpp"}}, *SPACES)


def test_a_tensordict_gains_action_and_value_beside_the_standard_keys():
    agent, given = PolicyAgent(MLP, *SPACES), observation()
    result = agent(given)
    assert result is given
    assert set(result.keys()) == {"observation", *agent.out_keys}
    assert set(agent.out_keys) == {"action", "action_log_prob", "value", "state_value", "logits"}
    logits, value = agent(given["observation"])
    assert torch.equal(result["logits"], logits)
    assert torch.equal(result["value"], value) and torch.equal(result["state_value"], value)
    log_prob, _, _ = agent.evaluate_actions(given["observation"], result["action"])
    torch.testing.assert_close(result["action_log_prob"], log_prob)


def test_actions_are_drawn_or_under_tensordicts_own_switch_the_best():
    agent = PolicyAgent(MLP, *SPACES)
    drawn = agent(TensorDict({"observation": torch.zeros(500, 4)}, [500]))["action"]
    assert len(drawn.unique()) == 3
    with set_interaction_type(InteractionType.DETERMINISTIC):
        result = agent(observation())
    assert torch.equal(result["action"], result["logits"].argmax(-1))


def test_masks_hold():
    agent, mask = PolicyAgent(MLP, *SPACES), torch.tensor([False, True, False]).expand(200, 3)
    result = agent(observation(200, action_mask=mask))
    assert (result["action"] == 1).all() and (result["action_log_prob"] == 0).all()


@pytest.mark.parametrize(
    ("space", "keys"),
    [
        (spaces.Box(-1, 1, (2,)), {"loc", "scale"}),
        (spaces.Dict(move=spaces.Discrete(2), force=spaces.Box(-1, 1, (1,))), {"params"}),
    ],
    ids=["box", "dict"],
)
def test_every_action_space_is_served(space, keys):
    agent = PolicyAgent(MLP, SPACES[0], space)
    result = agent(observation())
    assert keys <= set(result.keys())
    assert set(result["action"].keys()) == {"move", "force"} if keys == {"params"} else result["action"].shape == (5, 2)


def test_one_that_remembers_reads_and_writes_its_state():
    agent = PolicyAgent(MEMORY, *SPACES)
    assert type(agent) is StatefulPolicyAgent and agent.has_memory
    first = agent(observation(is_init=torch.ones(5, 1, dtype=torch.bool)))
    assert {"action", "value", "logits", ("next", "memory/h")} <= set(first.keys(include_nested=True))
    second = observation(**{"memory/h": first["next", "memory/h"], "memory/c": first["next", "memory/c"]})
    expected = agent.unroll(second["observation"].unsqueeze(1).expand(-1, 2, -1))[0][:, 1]
    torch.testing.assert_close(agent(second)["logits"], expected)
    action, _, value, state = agent.act(second["observation"], agent.init_state(5))
    assert action.shape == value.shape == (5,) and set(state) == {"memory/h", "memory/c"}


def test_a_sequence_gains_no_action():
    agent, taken = PolicyAgent(MEMORY, *SPACES), torch.randint(3, (5, 7))
    data = agent(TensorDict({"observation": torch.randn(5, 7, 4), "action": taken}, [5, 7]))
    assert torch.equal(data["action"], taken) and data["value"].shape == (5, 7)


@pytest.mark.parametrize("config", [MLP, MEMORY], ids=["plain", "memory"])
@pytest.mark.parametrize("copier", COPIERS)
def test_copies_are_agents_and_independent(config, copier):
    agent = PolicyAgent(config, *SPACES)
    twin = COPIERS[copier](agent)
    assert type(twin) is type(agent)
    assert torch.equal(twin(observation())["logits"], agent(observation())["logits"])
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert agent(observation())["logits"].abs().sum() > 0


@pytest.mark.parametrize("config", [MLP, MEMORY], ids=["plain", "memory"])
def test_a_saved_agent_is_a_policy_and_a_loaded_policy_can_be_an_agent(config, tmp_path):
    agent = PolicyAgent(config, *SPACES)
    policysmith.save(agent, tmp_path / "p")
    loaded = policysmith.load(tmp_path / "p")
    again = PolicyAgent.of(loaded)
    assert type(again) is type(agent) and again.components is loaded.components
    assert torch.equal(again(observation())["logits"], agent(observation())["logits"])


def test_a_component_is_swapped_and_rolled_back():
    agent = PolicyAgent(MLP, *SPACES)
    before = agent(observation())["logits"]
    name = next(iter(agent.components))
    agent.replace_component(name, {"type": "mlp", "hidden": [8], "activation": "relu"}, seed=1)
    assert not torch.equal(agent(observation())["logits"], before)
    agent.rollback()
    assert torch.equal(agent(observation())["logits"], before)


def test_an_agents_class_can_be_extended_whether_it_remembers_or_not():
    class Mine(PolicyAgent):
        """With something of its own."""

    for config in (MLP, MEMORY):
        agent = Mine(config, *SPACES)
        assert type(agent) is Mine and agent(observation())["logits"].shape == (5, 3)
    _, state = agent.predict(SPACES[0].sample())
    assert set(state) == {"memory/h", "memory/c"}


def test_a_mode_is_taken_over():
    policy = policysmith.build(MLP, *SPACES).eval()
    assert not PolicyAgent.of(policy).training
