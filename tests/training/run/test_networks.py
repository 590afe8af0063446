"""Networks of their own files learn from recorded data, then online with one of them updated, and are served."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml

import policysmith
from policysmith.api import train_offline
from policysmith.errors import CheckpointError
from policysmith.training.datasets import from_arrays

FILES = {
    "backbone": """
schema_version: 1
model: {sequential: {inputs: [image], layers: [{_type_: nn.Flatten}, {_type_: nn.LazyLinear, out_features: 8}]}}
""",
    "info_embedder": "components: {info: {type: mlp, in_keys: proprioception, hidden: [8]}}\n",
    "action_decoder": """
components:
  both:    {type: concat, in_keys: [backbone, info]}
  actions: {type: nn.Linear, in_keys: both, out_features: 2}
  worth:   {type: nn.Linear, in_keys: both, out_features: 1}
outputs: {policy: actions, value: worth}
""",
}
HELD = ("backbone", "info_embedder")
SPACE = gym.spaces.Dict(image=gym.spaces.Box(0, 1, (2, 3, 3)), proprioception=gym.spaces.Box(-1, 1, (3,)))


class Reach(gym.Env):
    """Six steps; the right action is told by the first number."""

    observation_space, action_space = SPACE, gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._see(), {}

    def step(self, action):
        self.steps += 1
        reward = float(action == (self.seen["proprioception"][0] > 0))
        return self._see(), reward, False, self.steps >= 6, {}

    def _see(self):
        image = self.np_random.random((2, 3, 3), np.float32)
        self.seen = {"image": image, "proprioception": self.np_random.uniform(-1, 1, 3).astype(np.float32)}
        return self.seen


gym.register("policysmith/ReachForTests-v0", entry_point=Reach)


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def write(folder, name: str, settings: dict, training: dict):
    config = {
        "environment": {"id": "policysmith/ReachForTests-v0", "num_envs": 2},
        "model": {
            "type": "networks",
            "component_config_paths": {name: f"{name}.yaml" for name in FILES},
            "component_build_args": settings,
        },
        "training": training,
    }
    (folder / name).write_text(yaml.safe_dump(config))
    return folder / name


def recorded(rows: int = 60):
    rng = np.random.default_rng(0)
    near = rng.uniform(-1, 1, (rows, 3)).astype(np.float32)
    ends = np.arange(rows) % 6 == 5
    arrays = {
        "observation.image": rng.random((rows, 2, 3, 3), np.float32),
        "observation.proprioception": near,
        "action": (near[:, 0] > 0).astype(np.int64),
        "reward": np.ones(rows, np.float32),
        "terminated": ends,
        "lengths": np.full(rows // 6, 6),
    }
    return from_arrays(arrays, SPACE, gym.spaces.Discrete(2))


def test_offline_first_then_online_with_one_network_updated(folder):
    offline = write(folder, "offline.yaml", {}, {"type": "offline", "updates": 40, "batch_size": 16})
    learned = train_offline(offline, dataset=recorded(), output=folder / "cloned", progress=False, evaluate=False)
    assert learned.losses["training"][-1][1] < 0.6
    settings = {name: {"load": "cloned", "online_update": name not in HELD} for name in FILES}
    ppo = {"type": "ppo", "total_steps": 64, "rollout_steps": 16, "minibatches": 2}
    online = write(folder, "online.yaml", settings, ppo)
    policysmith.train(online, output=folder / "online", progress=False, evaluate=False)
    before, after = (policysmith.load(folder / name).state_dict() for name in ("cloned", "online"))
    moved = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"action_decoder"}
    served = policysmith.load(folder / "online")
    observation, _ = gym.make("policysmith/ReachForTests-v0").reset(seed=0)
    assert served.predict(observation)[0] in (0, 1)


def test_a_component_that_an_artifact_has_not_is_told(folder):
    policy = policysmith.build(write(folder, "a.yaml", {}, {"type": "ppo"}))
    policysmith.save(policy, folder / "stored")
    config = yaml.safe_load((folder / "a.yaml").read_text())
    model = config["model"]
    model["component_config_paths"] = {"spine": "backbone.yaml", **model["component_config_paths"]}
    del model["component_config_paths"]["backbone"]
    model["component_build_args"] = {"spine": {"load": "stored"}}
    model["wiring"] = {"action_decoder": {"backbone": "spine"}}
    with pytest.raises(CheckpointError, match="holds no weights of a component 'spine'; there are: "):
        policysmith.build(config, base_dir=folder)


@pytest.mark.parametrize("section", ["components", "component_build_args"])
def test_check_tells_every_load_that_leads_nowhere(tmp_path, section):
    """A new policy would not get its weights; one that is stored has them, wherever the files went."""
    graph = "  type: graph\n  components:\n    trunk: {type: mlp, in_keys: observation, load: gone.pt}\n"
    graph += "    policy: {type: action_head, in_keys: trunk, load: runs/gone}\n"
    graph += "    state_value: {type: value_head, in_keys: trunk}\n"
    networks = "  type: networks\n  component_config_paths: {trunk: trunk.yaml}\n"
    networks += "  policy: {type: action_head, in_keys: trunk}\n  value: {type: value_head, in_keys: trunk}\n"
    networks += "  component_build_args: {trunk: {load: gone.pt}}\n"
    (tmp_path / "trunk.yaml").write_text("components: {trunk: {type: mlp, in_keys: observation, hidden: [8]}}\n")
    file = tmp_path / "policy.yaml"
    model = graph if section == "components" else networks
    file.write_text(f"environment: {{id: CartPole-v1}}\nmodel:\n{model}")
    problems = policysmith.check(file)
    assert problems[0].path == f"model.{section}.trunk.load" and problems[0].place.startswith(f"{file}:")
    assert problems[0].message == f"there is nothing at {tmp_path / 'gone.pt'} to take weights from"
    assert len(problems) == (2 if section == "components" else 1)
    (tmp_path / "gone.pt").touch()
    (tmp_path / "runs" / "gone").mkdir(parents=True)
    assert policysmith.check(file) == []
