"""The public face: names, lazy imports, and the ten-line network of the README."""

import inspect
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from omegaconf import OmegaConf

import policysmith
from policysmith import api
from policysmith.errors import ConfigError
from policysmith.registry import default_registry

PUBLIC = [
    "ActorCritic", "ActorCriticProtocol", "ActorModule", "Component", "ComponentContainer", "GraphModel",
    "LinearModule", "MergeModule", "ModelConfig", "ModelFactory", "ModelRegistry", "PolicyAgent",
    "PolicyConstructorModelFactory", "PolicyStore", "build", "build_model", "check", "create_model", "describe",
    "errors", "evaluate", "list_types", "load", "model_factory", "model_factory_v2", "register", "save", "train",
]  # fmt: skip

IMAGE_AND_VECTOR = """\
format: 1
environment: {id: policysmith/Camera-v0, num_envs: 2}
model:
  type: graph
  components:
    eye:         {type: conv, in_keys: observation.image, channels: [8, 16], stride: 2, features: 32}
    joined:      {type: concat, in_keys: [eye, observation.y]}
    trunk:       {type: mlp, in_keys: joined, hidden: [32]}
    policy:      {type: action_head, in_keys: trunk}
    state_value: {type: value_head, in_keys: trunk}
training: {type: ppo, total_steps: 256, rollout_steps: 32}
"""


class Camera(gym.Env):
    observation_space = spaces.Dict(image=spaces.Box(0, 255, (16, 16, 3), np.uint8), y=spaces.Box(-1, 1, (3,)))
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), float(action == 1), bool(self.np_random.random() < 0.1), False, {}


gym.register("policysmith/Camera-v0", entry_point=Camera)


def test_the_public_names_are_frozen():
    assert sorted(policysmith.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(policysmith, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        policysmith.biuld  # noqa: B018


@pytest.mark.parametrize("module", ["policysmith", "policysmith.api"])
def test_importing_the_package_or_its_verbs_imports_nothing_heavy(module):
    code = f"import sys, {module}; print([m for m in ('torch', 'pydantic', 'gymnasium') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_training_offline_takes_the_options_of_training():
    online, offline = (inspect.signature(verb).parameters for verb in (api.train, api.train_offline))
    own = {name: offline[name] for name in offline if name != "dataset"}
    assert {name: (p.kind, p.default) for name, p in own.items()} == {
        name: (p.kind, p.default) for name, p in online.items()
    }
    with pytest.raises(TypeError, match="outptu"):
        api.train_offline("cartpole", outptu="x")


def test_an_image_and_a_vector_in_ten_lines_train_and_reload_to_identical_outputs_in_a_new_process(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(IMAGE_AND_VECTOR)
    result = policysmith.train(path, output=tmp_path / "run", progress=False, evaluate=False)
    obs = {"image": torch.randint(0, 255, (5, 16, 16, 3), dtype=torch.uint8), "y": torch.randn(5, 3)}
    torch.save(obs, tmp_path / "obs.pt")
    code = (
        "import sys, torch, policysmith; here = sys.argv[1]; "
        "policy = policysmith.load(f'{here}/run'); obs = torch.load(f'{here}/obs.pt'); "
        "torch.save([t.detach() for t in policy(obs)], f'{here}/out.pt')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    for mine, theirs in zip(result.policy(obs), torch.load(tmp_path / "out.pt"), strict=True):
        assert torch.equal(mine, theirs)


def test_every_source_of_a_configuration_builds_the_same_policy(tmp_path):
    mapping = {"environment": {"id": "CartPole-v1"}, "model": {"type": "mlp", "hidden": [8]}, "seed": 3}
    path = tmp_path / "policy.yaml"
    path.write_text("environment: {id: CartPole-v1}\nmodel: {type: mlp, hidden: [8]}\nseed: 3\n")
    sources = [mapping, path, str(path), OmegaConf.create(mapping)]
    weights = [torch.cat([p.flatten() for p in policysmith.build(s).parameters()]) for s in sources]
    assert all(torch.equal(weights[0], w) for w in weights[1:])
    preset = policysmith.build("cartpole", overrides=["model.hidden=[8]", "seed=3"])
    assert torch.equal(weights[0], torch.cat([p.flatten() for p in preset.parameters()]))


def test_check_lists_every_problem_with_its_place(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "format: 1\nenvironment: {id: CartPole-v1}\nmodel:\n  type: graph\n  components:\n"
        "    trunk: {type: mlp, in_keys: obsrvation}\n    policy: {type: action_head, in_keys: trnk}\n"
        "    value: {type: value_head, in_keys: trunk}\n    other: {type: value_head, in_keys: trunk}\n"
    )
    text = "\n".join(map(str, policysmith.check(path)))
    assert "'value', 'other' all have the role value" in text
    path.write_text(path.read_text().replace("    other: {type: value_head, in_keys: trunk}\n", ""))
    problems = policysmith.check(path)
    assert [str(p).split("  ")[0].rsplit("bad.yaml", 1)[1] for p in problems] == [":6:33", ":7:42"]
    assert "did you mean 'observation'?" in str(problems[0]) and "did you mean 'trunk'?" in str(problems[1])
    assert policysmith.check("cartpole") == []


def test_wrong_options_and_wrong_wiring_are_reported_together(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "environment: {id: CartPole-v1}\nseed: one\nmodel:\n  type: graph\n  components:\n"
        "    trunk: {type: mlp, in_keys: observation, activation: reluu}\n"
        "    policy: {type: action_head, in_keys: trnk}\n    value: {type: value_head, in_keys: trunk}\n"
    )
    lines = [str(problem).rsplit("bad.yaml:", 1)[1].split(":")[0] for problem in policysmith.check(path)]
    assert lines == ["2", "6", "7"]


def test_what_the_training_asks_for_is_checked_with_the_model(tmp_path):
    path = tmp_path / "bad.yaml"
    text = "environment: {id: CartPole-v1}\nmodel: mlp\ntraining:\n  type: ppo\n  rollout_steps: 10\n"
    for line, words in (
        ("  sequence_length: 3\n", "training.sequence_length: rollout_steps=10 is not a multiple"),
        ("  value: multi_head\n", "training.value: multi_head trains edges that the model does not have"),
        ("  burn_in: 11\n", "training.burn_in: 11 steps are more than"),
    ):
        path.write_text(text + line)
        (problem,) = policysmith.check(path)
        assert words in str(problem) and "bad.yaml:6:" in str(problem)
        with pytest.raises(ConfigError, match=r"bad\.yaml:6"):
            policysmith.build(path)


def test_an_algorithm_of_ones_own_need_not_check_a_model():
    registry = default_registry.copy()

    @registry.register("mine", slot="algorithm")
    class Mine:
        """Trains nothing."""

    config = {"environment": {"id": "CartPole-v1"}, "model": "mlp", "training": "mine"}
    assert policysmith.check(config, registry=registry) == []


def test_an_unused_component_is_a_problem():
    config = {
        "environment": {"id": "CartPole-v1"},
        "model": {
            "type": "graph",
            "components": {
                "trunk": {"type": "mlp", "in_keys": "observation"},
                "spare": {"type": "mlp", "in_keys": "observation"},
                "policy": {"type": "action_head", "in_keys": "trunk"},
                "value": {"type": "value_head", "in_keys": "trunk"},
            },
        },
    }
    (problem,) = policysmith.check(config)
    assert problem.path == "model.components.spare" and "no head depends on 'spare'" in problem.message


def test_separate_shared_and_asymmetric_critics_are_wiring():
    space = spaces.Dict(seen=spaces.Box(-1, 1, (3,)), hidden=spaces.Box(-1, 1, (2,)))
    components = {
        "actor": {"type": "mlp", "in_keys": "observation.seen", "hidden": [8]},
        "critic": {"type": "mlp", "in_keys": ["observation.seen", "observation.hidden"], "hidden": [8]},
        "policy": {"type": "action_head", "in_keys": "actor"},
        "state_value": {"type": "value_head", "in_keys": "critic"},
    }
    policy = policysmith.build(
        {"model": {"type": "graph", "components": components}}, space, spaces.Discrete(2), seed=0
    )
    obs = {"seen": torch.randn(4, 3), "hidden": torch.randn(4, 2)}
    logits, value = policy(obs)
    changed_logits, changed_value = policy({**obs, "hidden": obs["hidden"] + 1})
    assert torch.equal(logits, changed_logits) and not torch.equal(value, changed_value)


def test_describe_of_configuration_policy_and_artifact_agree(cartpole_config, tmp_path):
    policy = policysmith.build(cartpole_config)
    policysmith.save(policy, tmp_path / "p")
    assert policysmith.describe(cartpole_config) == policysmith.describe(policy) == policysmith.describe(tmp_path / "p")
    totals = policysmith.describe(policy)["totals"]
    assert totals["parameters"] == sum(p.numel() for p in policy.parameters())
    assert totals["flops"] == 2 * (2 * (4 * 16 + 16 * 16) + 16 * 2 + 16 * 1)


def test_list_types_takes_wildcards():
    assert {t.name for t in policysmith.list_types("nn.Conv*")} >= {"nn.Conv1d", "nn.Conv2d"}
    (mlp,) = policysmith.list_types("mlp", slot="component")
    assert "hidden" in mlp.options and "in_features" not in mlp.options and mlp.summary


def test_spaces_are_needed_when_there_is_no_environment():
    with pytest.raises(ConfigError, match="environment: required, unless spaces are given"):
        policysmith.build({"model": "mlp"})
