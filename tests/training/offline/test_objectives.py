"""Objectives of offline learning: their losses are the papers', and each finds the better actions it is made for."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

import policysmith
from policysmith import api
from policysmith.errors import ConfigError, DatasetError
from policysmith.registry import default_registry
from policysmith.training.datasets import from_arrays
from policysmith.training.offline.batches import make_batch
from policysmith.training.offline.objectives import (
    AdvantageWeightedRegression,
    FlowMatching,
    ImplicitQLearning,
    Start,
)
from tests.training.offline_data import ACTIONS, BOX, REMEMBERING, config, flowing, walk


def choices(episodes=100, seed=0, bad=0.7):
    """One step an episode: the better of two actions is told by the observation, and the data mostly has the other."""
    rng = np.random.default_rng(seed)
    seen = rng.normal(size=(episodes, 3)).astype(np.float32)
    better = (seen[:, 0] > 0).astype(np.int64)
    acted = np.where(rng.random(episodes) < bad, 1 - better, better)
    over = np.ones(episodes, bool)
    arrays = {"observation": seen, "action": acted, "reward": (acted == better).astype(np.float32), "terminated": over}
    return from_arrays(arrays | {"last_observation": seen}, BOX, gym.spaces.Discrete(2))


def started(objective, data, kind="discrete"):
    policy = policysmith.build(config(), BOX, ACTIONS[kind])
    learner = objective.start(Start(policy, data, 0, default_registry))
    return policy, learner, make_batch(learner.data, data.rows(torch.arange(len(data))))


@pytest.mark.parametrize(
    ("objective", "share"),
    [
        ("bc", 0.0),
        ({"type": "awr", "temperature": 0.3}, 1.0),
        ({"type": "iql", "expectile": 0.9, "inverse_temperature": 10.0, "target_rate": 0.05}, 1.0),
    ],
    ids=["bc", "awr", "iql"],
)
def test_what_was_rewarded_is_preferred_to_what_was_usual(objective, share):
    description = config(objective, updates=200, batch_size=100, learning_rate=0.01, validation_share=0.0)
    data = choices()
    policy = api.train_offline(description, dataset=data, progress=False).policy
    seen = data.columns["observation"][data.rows(torch.arange(len(data)))]
    better = policy.predict(seen.numpy())[0] == (seen[:, 0] > 0).numpy()
    assert better.mean() > 0.85 if share else better.mean() < 0.4


def test_awr_is_the_papers_loss():
    data = walk()
    options = AdvantageWeightedRegression(gamma=0.9, temperature=0.5, max_weight=2.0, normalize_advantage=False)
    policy, learner, batch = started(options, data)
    rows = data.rows(torch.arange(len(data)))
    log_prob, _, value = policy.evaluate_actions(data.columns["observation"][rows], data.columns["action"][rows])
    returns = torch.tensor(
        [
            sum(0.9**k * float(r) for k, r in enumerate(data.columns["reward"][row : start + length]))
            for start, length in zip(data.starts.tolist(), data.lengths.tolist(), strict=True)
            for row in range(start, start + length)
        ]
    )
    weight = ((returns - value) / 0.5).exp().clamp(max=2.0).detach()
    expected = -(weight * log_prob).mean() + 0.5 * 0.5 * (value - returns).square().mean()
    torch.testing.assert_close(learner.loss(batch).value, expected)


def test_iql_is_the_papers_loss():
    data = walk()
    options = ImplicitQLearning(gamma=0.9, expectile=0.8, inverse_temperature=2.0, max_weight=1.5)
    policy, learner, batch = started(options, data)
    for target, critic in zip(learner.targets, learner.critics, strict=True):
        for ours, theirs in zip(target.parameters(), critic.parameters(), strict=True):
            ours.data = theirs.data + 0.1 * torch.randn_like(theirs)
    rows = data.rows(torch.arange(len(data)))
    seen, acted = data.columns["observation"][rows], data.columns["action"][rows]
    log_prob, _, value = policy.evaluate_actions(seen, acted)
    asked = {"observation": seen, "action": acted - 2}  # the space begins at 2
    q = [critic.get_value(asked) for critic in learner.critics]
    judged = torch.minimum(*(target.get_value(asked) for target in learner.targets)).detach()
    going_on = 1 - data.columns["terminated"][rows].float()
    after = policy.get_value(data.columns["observation"][rows + 1]).detach()
    following = data.columns["reward"][rows] + 0.9 * going_on * after
    u = judged - value
    expectile = ((0.8 - (u < 0).float()).abs() * u.square()).mean()
    weight = (2.0 * u).exp().clamp(max=1.5).detach()
    expected = -(weight * log_prob).mean() + expectile + sum((each - following).square().mean() for each in q)
    torch.testing.assert_close(learner.loss(batch).value, expected)


def test_targets_follow_at_their_rate_and_are_never_trained():
    _, learner, batch = started(ImplicitQLearning(target_rate=0.25), walk())
    before = [p.clone() for p in learner.targets.parameters()]
    trained = {id(p) for p in learner.parameters()}
    assert not trained & {id(p) for p in learner.targets.parameters()}
    assert {id(p) for p in learner.critics.parameters()} <= trained
    for parameter in learner.critics.parameters():
        parameter.data += 1.0
    learner.after_step()
    for old, now in zip(before, learner.targets.parameters(), strict=True):
        torch.testing.assert_close(now, old + 0.25)
    learner.loss(batch).value.backward()
    assert all(p.grad is None for p in learner.targets.parameters())


@pytest.mark.parametrize("kind", ACTIONS)
def test_iql_takes_actions_of_every_kind(kind):
    result = api.train_offline(config("iql", updates=8), dataset=walk(kind), progress=False)
    assert np.isfinite(result.metrics["training/q_loss"])


def test_iql_leaves_out_what_came_after_if_it_was_not_recorded():
    """Last steps of episodes that were cut off teach the Q networks nothing."""
    data = walk(final=False)
    data.columns["terminated"][:] = False
    _, learner, batch = started(ImplicitQLearning(), data)
    before = learner.loss(batch).scalars["q_loss"]
    data.columns["reward"][data.starts + data.lengths - 1] = 1000.0
    torch.testing.assert_close(before, learner.loss(batch).scalars["q_loss"])
    data.columns["terminated"][data.starts + data.lengths - 1] = True
    _, learner, batch = started(ImplicitQLearning(), data)
    assert learner.loss(batch).scalars["q_loss"] > 1000


def test_the_q_networks_may_be_another_model():
    from policysmith.registry import part

    critic = part("model", {"type": "mlp", "hidden": [5]})
    _, learner, _ = started(ImplicitQLearning(critic=critic), walk())
    assert {tuple(p.shape) for p in learner.critics.parameters()} >= {(5, 6)}  # three numbers, three choices


@pytest.mark.slow
def test_awr_learns_over_sequences():
    description = config("awr", REMEMBERING, sequence_length=4, burn_in=2, updates=100, learning_rate=0.02)
    metrics = api.train_offline(description, dataset=walk(episodes=24), progress=False).metrics
    assert metrics["validation/accuracy"] > 0.6


def test_iql_refuses_a_memory():
    with pytest.raises(ConfigError, match="iql is for memoryless policies, and 'memory' remembers; use bc or awr"):
        api.train_offline(config("iql", REMEMBERING), dataset=walk(), progress=False)


@pytest.mark.parametrize("objective", ["awr", "iql"])
def test_rewards_are_asked_for(objective):
    data = walk()
    columns = {name: column for name, column in data.columns.items() if name != "reward"}
    with pytest.raises(DatasetError, match=f"has no reward, which {objective} needs"):
        api.train_offline(config(objective), dataset=replace(data, columns=columns), progress=False)


def test_auxiliary_losses_of_components_are_trained():
    model = {
        "type": "graph",
        "components": {
            "trunk": {"type": "mlp", "in_keys": "observation", "hidden": [8], "wrappers": ["regularized"]},
            "policy": {"type": "action_head", "in_keys": "trunk"},
            "state_value": {"type": "value_head", "in_keys": "trunk"},
        },
    }
    metrics = api.train_offline(config("bc", model), dataset=walk(), progress=False).metrics
    assert metrics["training/loss"] > metrics["training/bc_loss"]


def test_a_scripted_balancer_is_cloned():
    """CartPole: push to where the pole falls; an untrained policy holds it for about 20 steps."""
    env = gym.make("CartPole-v1")
    columns: dict[str, list] = {"observation": [], "action": [], "reward": [], "terminated": []}
    lengths = []
    for seed in range(6):
        obs, over, steps = env.reset(seed=seed)[0], False, 0
        while not over and steps < 300:
            action = int(obs[2] + 0.3 * obs[3] + 0.02 * obs[0] + 0.05 * obs[1] > 0)
            after, reward, terminated, truncated, _ = env.step(action)
            for name, value in zip(columns, (obs, action, reward, terminated), strict=True):
                columns[name].append(value)
            obs, over, steps = after, terminated or truncated, steps + 1
        lengths.append(steps)
    data = from_arrays({name: np.array(rows) for name, rows in columns.items()} | {"lengths": np.array(lengths)})
    description = config("bc", updates=150, batch_size=128, learning_rate=0.01)
    description |= {"environment": {"id": "CartPole-v1"}, "evaluation": {"episodes": 4}}
    assert api.train_offline(description, dataset=data, progress=False).evaluation.mean > 150


class Levers(gym.Env):
    """Four steps; the reward of each is the lever that is pulled, so any return from 0 to 8 can be had."""

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space, action_space = gym.spaces.Box(0, 4, (1,), np.float32), gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.full(1, self.steps, np.float32), float(action), self.steps == 4, False, {}


gym.register("policysmith/Levers-v0", entry_point=Levers)


@pytest.mark.slow
def test_a_return_that_is_asked_for_is_got():
    """The data pulls the same lever all the time; which one, only the return tells."""
    levers = np.arange(30) % 3
    arrays = {
        "observation": np.tile(np.arange(4, dtype=np.float32), 30)[:, None],
        "action": levers.repeat(4),
        "reward": levers.repeat(4).astype(np.float32),
        "lengths": np.full(30, 4),
    }
    description = config("decision_transformer", updates=120, batch_size=60, learning_rate=0.02)
    for target in (0.0, 8.0):
        wrappers = [{"type": "ReturnToGo", "target": target}]
        environment = {"id": "policysmith/Levers-v0", "wrappers": wrappers}
        description |= {"environment": environment, "observation": {"scale": {"return_to_go": 8.0}}}
        description |= {"evaluation": {"episodes": 2}}
        result = api.train_offline(description, dataset=from_arrays(arrays), progress=False)
        assert result.evaluation.mean == target


def test_a_decision_transformer_reads_the_return():
    with pytest.raises(ConfigError, match="needs an observation 'return_to_go': add the environment wrapper"):
        api.train_offline(config("decision_transformer"), dataset=walk(), progress=False)


@pytest.mark.slow
def test_a_flow_makes_the_recorded_actions():
    description = config("flow_matching", flowing(), updates=150, batch_size=128, learning_rate=0.01)
    result = api.train_offline(description, dataset=walk("box", 40), progress=False)
    assert result.metrics["validation/mse"] < 0.25  # an action that says nothing is off by 0.64
    losses = [loss for _, loss in result.losses["training"]]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
def test_a_flow_chooses_between_two_ways_where_the_mean_is_neither():
    """Half of the actions are -1, half 1, whatever is seen: cloning by a Gaussian would give 0."""
    rng = np.random.default_rng(0)
    acted = rng.choice([-1.0, 1.0], (512, 1)).astype(np.float32)
    arrays = {"observation": np.zeros((512, 3), np.float32), "action": acted, "lengths": np.full(64, 8)}
    space = gym.spaces.Box(-1, 1, (1,), np.float32)
    rate = {"type": "linear", "start": 0.01, "end": 0.0005}
    model = flowing(sampled=True, steps=16, hidden=[32, 32])
    description = config("flow_matching", model, updates=300, batch_size=256, learning_rate=rate)
    policy = api.train_offline(description, dataset=from_arrays(arrays, BOX, space), progress=False).policy
    torch.manual_seed(0)
    drawn = policy.predict(np.zeros((200, 3), np.float32))[0]
    assert (np.abs(drawn) > 0.7).mean() > 0.75 and 0.35 < (drawn > 0).mean() < 0.65  # noise itself: 0.48


def test_flow_matching_is_the_papers_loss():
    data = walk("box")
    policy = policysmith.build(config(model=flowing(horizon=3)), BOX, ACTIONS["box"])
    learner = FlowMatching().start(Start(policy, data, 0, default_registry))
    rows = data.rows(torch.arange(len(data)))
    batch, head = make_batch(learner.data, rows), policy.components["policy"].module
    torch.manual_seed(5)
    found = learner.loss(batch).value
    torch.manual_seed(5)
    actions = data.columns["action"]
    mean, deviation = actions[rows].mean(0), actions[rows].std(0, correction=0)
    ends = {int(s + k): int(s + n) for s, n in zip(data.starts, data.lengths, strict=True) for k in range(int(n))}
    chunks = [[min(row + h, ends[row] - 1) for h in range(3)] for row in rows.tolist()]
    real = torch.tensor([[row + h < ends[row] for h in range(3)] for row in rows.tolist()]).float()
    target = ((actions[torch.tensor(chunks)] - mean) / deviation).flatten(1)
    noise, time = torch.randn_like(target), torch.rand(len(target), 1)
    seen = data.columns["observation"][rows]
    features = torch.cat([policy.components["trunk"].module(seen), seen], -1)
    velocity = head.velocity(features, noise + time * (target - noise), time)
    error = (velocity - (target - noise)).square().reshape(len(rows), 3, 2).mean(-1)
    torch.testing.assert_close(found, (error * real).sum() / real.sum(), atol=1e-5, rtol=1e-5)


def test_a_head_without_a_flow_is_refused():
    with pytest.raises(ConfigError, match="teaches a head of type flow_head, and 'policy' is 'action_head'"):
        api.train_offline(config("flow_matching"), dataset=walk("box"), progress=False)
    with pytest.raises(ConfigError, match="flow_head makes the actions of one Box"):
        api.train_offline(config("flow_matching", flowing()), dataset=walk(), progress=False)


def reaching(episodes=40, length=8, seed=0):
    """A picture with a light on the left or on the right, where the hand is, and a hand that goes to the light."""
    rng = np.random.default_rng(seed)
    side = rng.choice([-1, 1], episodes)
    pictures = np.zeros((episodes, length, 6, 6), np.uint8)
    pictures[side < 0, :, 2:4, 0:2] = pictures[side > 0, :, 2:4, 4:6] = 255
    places, hand = [], rng.uniform(-1, 1, episodes)
    for _ in range(length):
        places.append(hand)
        hand = hand + 0.5 * (side - hand)
    hands = np.stack(places, 1)[..., None].astype(np.float32)
    return {
        "observation.image": pictures.reshape(-1, 6, 6),
        "observation.hand": hands.reshape(-1, 1),
        "action": (0.5 * (side[:, None, None] - hands)).reshape(-1, 1),
        "lengths": np.full(episodes, length),
    }


def test_an_image_and_a_position_become_chunks_of_actions(tmp_path):
    """A backbone, an embedding of what else is known, and a decoder of actions, by flow matching; served from disk."""
    space = gym.spaces.Dict(image=gym.spaces.Box(0, 255, (6, 6), np.uint8), hand=gym.spaces.Box(-1, 1, (1,)))
    components = {
        "backbone": {"type": "mlp", "in_keys": "observation.image", "hidden": [32]},
        "info_embedder": {"type": "mlp", "in_keys": "observation.hand", "hidden": [16]},
        "action_decoder": {"type": "flow_head", "in_keys": ["backbone", "info_embedder"], "hidden": [64], "horizon": 4},
        "state_value": {"type": "value_head", "in_keys": "backbone"},
    }
    data = from_arrays(reaching(), space, gym.spaces.Box(-1, 1, (1,)))
    description = config(
        "flow_matching", {"type": "graph", "components": components}, updates=200, batch_size=128, learning_rate=0.005
    )
    result = api.train_offline(description, dataset=data, output=tmp_path / "run", progress=False)
    assert result.metrics["validation/mse"] < 0.02  # actions are ±0.5 at first
    served = policysmith.load(tmp_path / "run")
    picture = np.zeros((6, 6), np.uint8)
    picture[2:4, 4:6] = 255
    action, _ = served.predict({"image": picture, "hand": np.zeros(1, np.float32)})
    assert 0.3 < action[0] < 0.7
