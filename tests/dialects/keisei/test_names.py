"""Models by name: arguments checked together, one's own classes, independent registries, plugins."""

import inspect

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import policysmith
from policysmith import ModelRegistry, create_model, model_factory, model_factory_v2
from policysmith.dialects.keisei.names import ActorCriticResTower
from policysmith.errors import ConfigError, RegistryError
from policysmith.policy import ActorCritic
from policysmith.registry import Registry, default_registry

SHAPE = (4, 5, 5)
CONFIG = {"model_type": "resnet", "obs_shape": [4, 5, 5], "num_actions": 7, "tower_depth": 1, "tower_width": 8}


class Flat(nn.Module):
    """A model of one's own that offers the two calls and wants little."""

    def __init__(self, obs_shape, num_actions, scale=1.0):
        super().__init__()
        self.scale = scale
        self.out = nn.Linear(int(np.prod(obs_shape)), num_actions + 1)

    def forward(self, obs):
        out = self.out(obs.flatten(1)) * self.scale
        return out[:, :-1], out[:, -1]

    def get_action_and_value(self, obs, legal_mask=None, deterministic=False):
        logits, value = self(obs)
        action = logits.argmax(-1)
        return action, logits.log_softmax(-1).gather(-1, action[:, None]).squeeze(-1), value


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch):
    """What a test registers in the default registry is gone after it."""
    entries = {slot: dict(entries) for slot, entries in default_registry._entries.items()}
    monkeypatch.setattr(default_registry, "_entries", entries)


def size(model):
    return sum(p.numel() for p in model.parameters())


def test_the_signature_is_the_documented_one():
    parameters = inspect.signature(model_factory).parameters
    assert list(parameters) == [
        "model_type", "obs_shape", "num_actions", "tower_depth", "tower_width", "se_ratio", "kwargs",
    ]  # fmt: skip
    defaults = [p.default for p in parameters.values() if p.default is not p.empty]
    assert defaults == [9, 256, None]


def test_resnet_takes_its_size_and_its_own_arguments():
    model = model_factory("resnet", SHAPE, 7, 2, 8, 0.5, dropout_rate=0.1)
    torch.manual_seed(0)
    assert isinstance(model, ActorCriticResTower)
    assert size(model) == size(ActorCriticResTower(4, 7, 2, 8, 0.5, board_size=(5, 5)))
    assert {type(m) for m in model.modules()} >= {nn.Dropout2d}


@pytest.mark.parametrize("name", ["dummy", "testmodel", "resumemodel"])
def test_small_models_ignore_the_size_asked_for(name):
    smallest = size(ActorCriticResTower(4, 7, 1, 16, None, board_size=(5, 5)))
    for options in ({}, {"tower_depth": 99, "tower_width": 512, "se_ratio": 0.5, "dropout_rate": 0.5}):
        model = model_factory(name, SHAPE, 7, **options)
        assert isinstance(model, ActorCriticResTower) and size(model) == smallest
        assert not any(isinstance(m, nn.Dropout2d) for m in model.modules())


@pytest.mark.parametrize("name", ["dummy", "testmodel", "resumemodel"])
def test_small_models_ignore_the_size_asked_for_in_a_file(name, tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(f"model: {{type: {name}, tower_depth: 99, tower_width: 512, se_ratio: 0.5}}\n")
    policy = policysmith.build(path, *spaces_of(SHAPE, 7))
    assert size(policy) == size(model_factory(name, SHAPE, 7))


def spaces_of(shape, actions):
    from gymnasium import spaces

    return spaces.Box(-1, 1, shape), spaces.Discrete(actions)


def test_sizes_may_be_what_spaces_have():
    model = model_factory("dummy", torch.zeros(SHAPE).shape, np.int64(7))
    assert model(torch.randn(2, *SHAPE))[0].shape == (2, 7)


def test_other_recipes_build_too_and_take_what_is_theirs():
    model = model_factory("mlp", SHAPE, 7, tower_depth=3, hidden=[8])
    assert isinstance(model, ActorCritic)
    assert model(torch.randn(2, *SHAPE))[0].shape == (2, 7)


def test_every_wrong_value_is_named_at_once():
    with pytest.raises(ValueError) as caught:
        model_factory("resnet", (4, 5), 0, -1, 0, 2.0)
    assert str(caught.value).splitlines() == [
        "obs_shape: expected (C, H, W), three integers > 0, found (4, 5)",
        "num_actions: must be > 0, found 0",
        "tower_depth: must be ≥ 0, found -1",
        "tower_width: must be > 0, found 0",
        "se_ratio: must be ≤ 1, found 2.0",
    ]


@pytest.mark.parametrize("shape", [(4, 5, 0), (4, 5, 5, 5), "455", 4, None, (4, 5.0, 5), (True, 5, 5)])
def test_a_shape_is_three_positive_integers(shape):
    with pytest.raises(ConfigError, match=r"obs_shape: expected \(C, H, W\)"):
        model_factory("dummy", shape, 7)


@pytest.mark.parametrize("value", [True, 2.0, "2", None])
def test_counts_are_integers(value):
    for name in ("num_actions", "tower_depth", "tower_width"):
        with pytest.raises(ConfigError, match=f"{name}: expected an integer"):
            create_model({**CONFIG, name: value})


def test_an_unknown_type_is_answered_with_those_there_are():
    with pytest.raises(ValueError) as caught:
        model_factory("resnt", SHAPE, 7)
    text = str(caught.value)
    assert text.startswith("Unknown model_type: resnt (did you mean 'resnet'?); supported: dummy, ")
    assert all(name in text for name in ("dummy", "graph", "mlp", "resnet", "resumemodel", "testmodel"))


@pytest.mark.parametrize("name", ["resnet", "dummy", "mlp"])
def test_unknown_arguments_are_refused_by_name(name):
    with pytest.raises(ConfigError) as caught:
        model_factory(name, SHAPE, 7, droput_rate=0.1, attention_heads=8)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["droput_rate", "attention_heads"]
    assert f"unknown argument of model '{name}'" in lines[1]
    assert name == "mlp" or "did you mean 'dropout_rate'?" in lines[0]


def test_what_follows_from_other_arguments_is_not_stated_again():
    with pytest.raises(ConfigError, match="board_size: is set by the factory's own arguments"):
        model_factory("resnet", SHAPE, 7, board_size=(5, 5))
    with pytest.raises(ConfigError, match="tower_depth: is set by"):
        create_model({**CONFIG, "additional_params": {"tower_depth": 2}})


@pytest.mark.parametrize("build", [create_model, model_factory_v2, lambda c: ModelRegistry().create_model(c)])
def test_a_mapping_says_the_same(build):
    torch.manual_seed(0)
    expected = model_factory("resnet", SHAPE, 7, 1, 8, 0.5, dropout_rate=0.1).state_dict()
    config = {**CONFIG, "se_ratio": 0.5, "additional_params": {"dropout_rate": 0.1}}
    for given in (config, OmegaConf.create(config)):
        torch.manual_seed(0)
        found = build(given).state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert size(build({k: v for k, v in CONFIG.items() if not k.startswith("tower")} | {"model_type": "dummy"}))


def test_a_mapping_is_checked_strictly():
    with pytest.raises(ConfigError) as caught:
        create_model({"model_type": "resnet", "obs_shape": [4, 5, 5], "tower_dept": 2, "additional_params": [1]})
    text = str(caught.value)
    assert "num_actions: required option" in text
    assert "tower_dept: unknown option of 'create_model' (did you mean 'tower_depth'?)" in text
    assert "additional_params:" in text
    with pytest.raises(ConfigError, match="expected a mapping with model_type, obs_shape and num_actions, found 'res"):
        create_model("resnet")


def test_a_model_built_by_name_is_stored_and_loaded(tmp_path):
    model = model_factory("dummy", SHAPE, 7).eval()
    policysmith.save(model, tmp_path / "model")
    obs = torch.randn(2, *SHAPE)
    assert torch.equal(policysmith.load(tmp_path / "model")(obs)[0], model(obs)[0])


def test_two_builds_share_nothing():
    one, two = (model_factory("dummy", SHAPE, 7) for _ in range(2))
    assert not {id(p) for p in one.parameters()} & {id(p) for p in two.parameters()}


def test_ones_own_class_is_built_with_the_arguments_that_it_names():
    ModelRegistry().register_model("flat", Flat)
    assert "flat" in ModelRegistry().list_models() and ModelRegistry().list_models("fl*") == ["flat"]
    model = model_factory("flat", SHAPE, 7, scale=2.0)
    assert type(model) is Flat and model.scale == 2.0
    assert model.get_action_and_value(torch.randn(2, *SHAPE))[0].shape == (2,)
    with pytest.raises(ConfigError, match=r"sclae: unknown argument of model 'flat' \(did you mean 'scale'\?\)"):
        model_factory("flat", SHAPE, 7, sclae=2.0)


def test_every_argument_of_the_factory_can_be_named():
    class Greedy(Flat):
        def __init__(self, num_actions, *, obs_shape, input_channels, board_size, tower_depth, se_ratio, **rest):
            super().__init__(obs_shape, num_actions)
            self.given = (input_channels, board_size, tower_depth, se_ratio, rest)

    ModelRegistry().register_model("greedy", Greedy)
    assert model_factory("greedy", SHAPE, 7, 3, 8, 0.5, heads=2).given == (4, (5, 5), 3, 0.5, {"heads": 2})


def test_a_missing_argument_of_ones_own_class_is_named():
    class Demanding(Flat):
        def __init__(self, obs_shape, num_actions, vocabulary):
            super().__init__(obs_shape, num_actions)

    ModelRegistry().register_model("demanding", Demanding)
    with pytest.raises(ConfigError, match="vocabulary: model 'demanding' requires this argument"):
        model_factory("demanding", SHAPE, 7)


def test_a_class_without_the_protocol_is_refused_when_registered():
    class Bare(nn.Module):
        pass

    class Claims(policysmith.ActorCriticProtocol):
        def forward(self, obs):
            return obs, obs

    registry = ModelRegistry()
    with pytest.raises(RegistryError, match=r"Bare does not define forward\(obs\) and get_action_and_value\(obs, "):
        registry.register_model("bare", Bare)
    with pytest.raises(RegistryError, match="Claims does not define get_action_and_value"):
        registry.register_model("claims", Claims)
    with pytest.raises(RegistryError, match="expected a class"):
        registry.register_model("object", Flat(SHAPE, 7))
    assert not {"bare", "claims", "object"} & set(registry.list_models())


def test_a_taken_name_is_refused_and_the_same_class_twice_is_fine():
    registry = ModelRegistry()
    registry.register_model("flat", Flat)
    registry.register_model("flat", Flat)
    with pytest.raises(RegistryError, match=r"model 'resnet' is already registered by policysmith\.policy\.models"):
        registry.register_model("resnet", Flat)


def test_an_isolated_registry_is_independent():
    alone = ModelRegistry.isolated()
    alone.register_model("flat", Flat)
    config = {**CONFIG, "model_type": "flat"}
    assert type(alone.create_model(config)) is Flat
    assert isinstance(alone.create_model(CONFIG), ActorCriticResTower)
    for elsewhere in (create_model, ModelRegistry.isolated().create_model):
        with pytest.raises(ValueError, match="Unknown model_type: flat"):
            elsewhere(config)
    ModelRegistry().register_model("later", Flat)
    assert "later" not in alone.list_models()


def test_a_handle_on_a_registry_of_types_sees_its_recipes():
    registry = Registry()

    @registry.register("tiny", slot="model")
    def tiny():
        return {}

    assert ModelRegistry(registry).list_models() == ["tiny"]
    with pytest.raises(ConfigError):
        create_model({**CONFIG, "model_type": "tiny"}, registry)


def test_an_installed_plugin_supplies_models(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(
        "from policysmith import ModelRegistry\n"
        "from tests.dialects.keisei.test_names import Flat\n"
        "def models(registry):\n"
        "    ModelRegistry(registry).register_model('plugged', Flat)\n"
    )
    metadata = tmp_path / "my_models-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-models\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[policysmith.plugins]\nmy_models = my_models:models\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert type(model_factory("plugged", SHAPE, 7)) is Flat
    assert type(ModelRegistry.isolated().create_model({**CONFIG, "model_type": "plugged"})) is Flat
