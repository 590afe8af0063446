"""The component proposal's own code, as it stands there, under the names of `policysmith.compat`."""

import gymnasium as gym
import pytest
import torch
from tensordict import TensorDict
from torch import nn

import policysmith
from policysmith import ActorModule, ComponentContainer, LinearModule, MergeModule, compat
from policysmith.compat import MettaAgent, MettaModule, ParallelDAGExecutor, SequentialDAGExecutor
from policysmith.compile.executors import ParallelExecutor, SequentialExecutor
from policysmith.parts import MultiHeadLatentAttention
from policysmith.wrappers import RegularizedModule, SafeModule

test_observation = TensorDict({"observation": torch.randn(4, 4)}, [4])


@pytest.fixture
def config():
    return {"environment": {"id": "CartPole-v1"}, "model": {"type": "mlp", "hidden": [8]}, "execution": "parallel"}


def test_the_names_are_aliases_and_nothing_else():
    assert sorted(compat.__all__) == [
        "MettaAgent", "MettaModule", "MultiLatentAttention", "ParallelDAGExecutor", "SequentialDAGExecutor",
        "inject_remapping_header",
    ]  # fmt: skip
    assert compat.MettaModule is policysmith.Component and compat.MettaAgent is policysmith.PolicyAgent
    assert compat.ParallelDAGExecutor is ParallelExecutor and compat.SequentialDAGExecutor is SequentialExecutor
    assert compat.MultiLatentAttention is MultiHeadLatentAttention


# "New Testing Approach"


def test_linear_module():
    linear = LinearModule(in_features=10, out_features=16)
    result = linear({"input": torch.randn(4, 10)})
    assert result["output"].shape == (4, 16)


def test_actor_module():
    actor = ActorModule(state_dim=64, action_dim=8)
    result = actor({"state": torch.randn(2, 64)})
    assert result["action"].shape == (2, 8)


def test_merge_module():
    merge = MergeModule(["input1", "input2"], merge_type="concat")
    result = merge({"input1": torch.randn(3, 5), "input2": torch.randn(3, 7)})
    assert result["merged"].shape == (3, 12)


# "Component vs Integration Testing"


def test_regularization_computation():
    base_module = LinearModule(5, 3)
    reg_module = RegularizedModule(base_module, l2_scale=0.01)

    # Test that regularization loss is computed correctly
    result = reg_module({"input": torch.randn(2, 5)})
    assert "regularization_loss" in result
    assert result["regularization_loss"] > 0


def test_full_agent_pipeline(config):
    agent = MettaAgent(config)
    result = agent(test_observation)
    assert "action" in result
    assert "value" in result


# "Core Components"


class TheirSafeModule(MettaModule):
    """Wraps computation with comprehensive safety checks."""

    def __init__(self, module, input_specs=None, output_specs=None, action_bounds=None, nan_check=True):
        # Inherit keys from wrapped module
        super().__init__(in_keys=module.in_keys, out_keys=module.out_keys)
        self.module = module
        self.input_specs = input_specs or {}
        self.output_specs = output_specs or {}
        self.action_bounds = action_bounds
        self.nan_check = nan_check

    def forward(self, tensordict):
        self._validate_inputs(tensordict)
        result = self.module(tensordict)
        self._validate_outputs(result)
        return result

    def _validate_inputs(self, tensordict):
        for key in getattr(self.module, "in_keys", []):
            if key not in tensordict:
                raise ValueError(f"Missing required input key: {key}")

    def _validate_outputs(self, tensordict):
        for key in getattr(self.module, "out_keys", []):
            if key not in tensordict:
                raise ValueError(f"Module failed to produce expected output: {key}")


class TheirContainer(nn.ModuleDict):
    """The container's calls, for what is written against them."""

    def __init__(self):
        super().__init__()
        self.execution_graph = {}


class StateManager(MettaModule):
    in_keys = ["current_state", "action"]  # noqa: RUF012
    out_keys = ["next_state", "state_delta"]  # noqa: RUF012

    def compute(self, current_state, action):
        return current_state + action, action


@pytest.mark.parametrize("to_mapping", [dict, lambda data: TensorDict(data, [2])], ids=["dict", "TensorDict"])
def test_a_module_that_writes_its_own_forward_is_a_component(to_mapping):
    safe = TheirSafeModule(LinearModule(5, 3))
    assert safe(to_mapping({"input": torch.randn(2, 5)}))["output"].shape == (2, 3)
    with pytest.raises(ValueError, match="Missing required input key: input"):
        safe(to_mapping({"other": torch.randn(2, 5)}))
    nested = RegularizedModule(SafeModule(safe))
    assert "regularization_loss" in nested(to_mapping({"input": torch.randn(2, 5)}))


def test_keys_are_class_attributes_as_well():
    result = StateManager()({"current_state": torch.ones(2), "action": torch.ones(2)})
    assert result["next_state"].tolist() == [2, 2] and result["state_delta"].tolist() == [1, 1]


def test_the_container_takes_declared_dependencies_and_swaps():
    container = ComponentContainer()
    container.register_component("first", LinearModule(4, 8, out_keys=["hidden"]), dependencies=None)
    container.register_component("second", LinearModule(8, 2, in_keys=["hidden"]), dependencies=["first"])
    tensordict = TensorDict({"input": torch.randn(3, 4)}, [3])
    assert container.execute(tensordict) is tensordict
    new_module = LinearModule(4, 8, out_keys=["hidden"])
    container.replace_component("first", new_module)
    assert container["first"] is new_module


# "Extensibility Considerations"


@pytest.mark.parametrize("execution", ["parallel", "sequential"])
def test_the_executor_follows_from_the_configuration(config, execution):
    agent = MettaAgent({**config, "execution": execution})
    kind = ParallelDAGExecutor if execution == "parallel" else SequentialDAGExecutor
    assert type(agent.executor) is kind
    assert isinstance(agent.components, ComponentContainer)
    mapping = agent.executor.execute(agent.components, {"observation": torch.randn(3, 4)})
    assert mapping["state_value"].shape[0] == 3
    assert gym.make("CartPole-v1").action_space.contains(agent.predict(gym.make("CartPole-v1").reset(seed=0)[0])[0])
