"""Every code block of seeds/001, with our import paths."""

import inspect
import logging

import pytest
import torch
from gymnasium import spaces
from torch import nn

import policysmith
from policysmith import ActorCriticProtocol, ModelRegistry, model_factory, model_factory_v2
from policysmith.dialects.keisei.names import ActorCriticResTower
from policysmith.registry import default_registry

logger = logging.getLogger(__name__)

PRODUCTION = """\
# Configuration for ResNet model
model:
  type: "resnet"
  tower_depth: 9
  tower_width: 256
  se_ratio: 0.25
"""
TEST = """\
# Configuration for test model
model:
  type: "dummy"
  # Other parameters ignored for dummy models
"""


def tower(model):
    """The convolutions of the trunk that look at neighbours: one that lifts the planes, two in each block."""
    modules = model.components["trunk"].modules()
    return [m for m in modules if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]


def blocks(model):
    return (len(tower(model)) - 1) / 2


def width(model):
    return tower(model)[-1].out_channels


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_signature():
    names = ["model_type", "obs_shape", "num_actions", "tower_depth", "tower_width", "se_ratio"]
    assert list(inspect.signature(model_factory).parameters)[:6] == names


def test_model_configuration_schema():
    config = {
        "model_type": "resnet",
        "obs_shape": (46, 9, 9),
        "num_actions": 3781,
        "tower_depth": 1,
        "tower_width": 8,
        "se_ratio": None,
        "additional_params": {"dropout_rate": 0.1},
    }
    for build in (model_factory_v2, ModelRegistry().create_model):
        model = build(config)
        assert type(model) is ActorCriticResTower
        assert (blocks(model), width(model)) == (1, 8)
        assert [m.p for m in model.modules() if isinstance(m, nn.Dropout2d)] == [0.1]


def test_factory_return_interface():
    model = model_factory("dummy", (46, 9, 9), 3781)
    assert isinstance(model, ActorCriticProtocol)
    obs = torch.randn(2, 46, 9, 9)
    policy_logits, value_estimate = model.forward(obs)
    assert policy_logits.shape == (2, 3781) and value_estimate.shape == (2,)
    action, log_prob, value = model.get_action_and_value(obs, legal_mask=None, deterministic=False)
    assert action.shape == log_prob.shape == value.shape == (2,)


def test_usage_patterns():
    model = model_factory(
        model_type="resnet",
        obs_shape=(46, 9, 9),  # Shogi observation shape
        num_actions=3781,  # Shogi action space
        tower_depth=9,
        tower_width=256,
        se_ratio=0.25,
    )
    assert sum(p.numel() for p in model.parameters()) == 11_652_702
    test_model = model_factory(
        model_type="dummy",
        obs_shape=(46, 9, 9),
        num_actions=3781,
        tower_depth=1,  # Ignored for test models
        tower_width=16,  # Ignored for test models
        se_ratio=None,  # Ignored for test models
    )
    assert isinstance(test_model, ActorCriticResTower)


def test_model_type_strategy():
    obs_shape = (46, 9, 9)
    production = ActorCriticResTower(input_channels=obs_shape[0], num_actions=7, tower_width=8)
    small = ActorCriticResTower(
        input_channels=obs_shape[0], num_actions=7, tower_depth=1, tower_width=16, se_ratio=None
    )
    assert (blocks(production), width(production)) == (9, 8)
    assert (blocks(small), width(small)) == (1, 16)


def test_model_factory_resnet():
    """Test ResNet model creation."""
    model = model_factory(
        model_type="resnet", obs_shape=(46, 9, 9), num_actions=3781, tower_depth=9, tower_width=256, se_ratio=0.25
    )
    assert type(model) is ActorCriticResTower and isinstance(model, ActorCriticProtocol)
    assert (blocks(model), width(model)) == (9, 256)
    plain = model_factory(model_type="resnet", obs_shape=(46, 9, 9), num_actions=3781, se_ratio=None)
    gates = 9 * (2 * 256 * 64 + 64 + 256)  # a squeeze to a quarter and back in every block
    assert parameters(model) - parameters(plain) == gates


def test_model_factory_test_models():
    """Test creation of test/dummy models."""
    for model_type in ["dummy", "testmodel", "resumemodel"]:
        model = model_factory(
            model_type=model_type,
            obs_shape=(46, 9, 9),
            num_actions=3781,
            tower_depth=99,  # Should be ignored
            tower_width=512,  # Should be ignored
            se_ratio=0.5,  # Should be ignored
        )
        assert type(model) is ActorCriticResTower
        assert parameters(model) == parameters(model_factory("dummy", (46, 9, 9), 3781))
        assert (blocks(model), width(model)) == (1, 16)


def test_model_factory_unknown_type():
    """Test error handling for unknown model types."""
    with pytest.raises(ValueError, match="Unknown model_type"):
        model_factory(
            model_type="nonexistent",
            obs_shape=(46, 9, 9),
            num_actions=3781,
            tower_depth=9,
            tower_width=256,
            se_ratio=0.25,
        )


def test_factory_error_management(caplog):
    try:
        model_factory(model_type="unknown", obs_shape=(46, 9, 9), num_actions=3781)
    except ValueError as e:
        logger.error(f"Model creation failed: {e}")
    assert "Model creation failed: Unknown model_type: unknown" in caplog.text


@pytest.mark.parametrize(("text", "parameters"), [(PRODUCTION, 11_652_702), (TEST, 627_918)])
def test_model_type_configuration(text, parameters, tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(text)
    boards = spaces.Box(0, 1, (46, 9, 9)), spaces.Discrete(3781)
    assert policysmith.check(path, observation_space=boards[0], action_space=boards[1]) == []
    policy = policysmith.build(path, *boards)
    assert sum(p.numel() for p in policy.parameters()) == parameters


def test_production_model_creation():
    model = model_factory(
        model_type="resnet",
        obs_shape=(46, 9, 9),  # Shogi feature planes
        num_actions=3781,  # Shogi action space
        tower_depth=9,  # Deep network
        tower_width=256,  # Wide network
        se_ratio=0.25,  # Squeeze-Excitation attention
        dropout_rate=0.1,  # Additional parameter via kwargs
    )
    assert sum(isinstance(m, nn.Dropout2d) and m.p == 0.1 for m in model.modules()) == 9


def test_test_model_creation():
    observation = torch.randn(1, 46, 9, 9)
    test_model = model_factory(
        model_type="dummy",
        obs_shape=(46, 9, 9),
        num_actions=3781,
        tower_depth=999,  # Ignored
        tower_width=999,  # Ignored
        se_ratio=0.999,  # Ignored
    )
    policy_logits, value = test_model.forward(observation)
    assert policy_logits.shape == (1, 3781) and value.shape == (1,)


class CustomTransformer(nn.Module):
    """Points of the board as tokens; offers the two calls of the seed's ActorCriticProtocol."""

    def __init__(self, obs_shape, num_actions, attention_heads, transformer_layers):
        super().__init__()
        width = 8 * attention_heads
        self.embed = nn.Linear(obs_shape[0], width)
        layer = nn.TransformerEncoderLayer(width, attention_heads, width, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, transformer_layers)
        self.policy, self.value = nn.Linear(width, num_actions), nn.Linear(width, 1)

    def forward(self, obs):
        pooled = self.encoder(self.embed(obs.flatten(2).transpose(1, 2))).mean(1)
        return self.policy(pooled), self.value(pooled).squeeze(-1)

    def get_action_and_value(self, obs, legal_mask=None, deterministic=False):
        logits, value = self(obs)
        if legal_mask is not None:
            logits = logits.masked_fill(~legal_mask, torch.finfo(logits.dtype).min)
        choices = torch.distributions.Categorical(logits=logits)
        action = logits.argmax(-1) if deterministic else choices.sample()
        return action, choices.log_prob(action), value


def test_custom_model_integration(monkeypatch):
    entries = {slot: dict(entries) for slot, entries in default_registry._entries.items()}
    monkeypatch.setattr(default_registry, "_entries", entries)

    registry = ModelRegistry()
    registry.register_model("custom_transformer", CustomTransformer)

    model = model_factory(
        model_type="custom_transformer",
        obs_shape=(46, 9, 9),
        num_actions=3781,
        attention_heads=8,
        transformer_layers=6,
    )
    assert len(model.encoder.layers) == 6
    action, log_prob, value = model.get_action_and_value(torch.randn(2, 46, 9, 9))
    assert action.shape == log_prob.shape == value.shape == (2,)
