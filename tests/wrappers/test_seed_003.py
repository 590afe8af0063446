"""The wrapper examples of the component proposal, as they stand there."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from policysmith.wrappers import RegularizedModule, SafeModule, StatefulModule, WeightMonitoringModule

from .parts import Bare, LinearModule


def policy_module():
    return Bare(64, 32, ["state"], ["action"])


def wrapped_step_by_step(base):
    safe_policy = SafeModule(base, action_bounds=(-1.0, 1.0))
    regularized_safe_policy = RegularizedModule(safe_policy, l2_scale=0.01)
    return WeightMonitoringModule(regularized_safe_policy, clip_value=1.0)


def wrapped_nested(base):
    return WeightMonitoringModule(
        RegularizedModule(SafeModule(base, action_bounds=(-1.0, 1.0)), l2_scale=0.01), clip_value=1.0
    )


@pytest.mark.parametrize("compose", [wrapped_step_by_step, wrapped_nested])
@pytest.mark.parametrize("to_mapping", [dict, lambda data: TensorDict(data, [16])], ids=["dict", "TensorDict"])
def test_composition(compose, to_mapping):
    base = policy_module()
    final_policy = compose(base)
    state = 10 * torch.randn(16, 64)
    result = final_policy(to_mapping({"state": state}))
    unbounded = base.linear(state)
    assert unbounded.abs().max() > 1, "or there would be nothing to bound"
    assert torch.equal(result["action"], unbounded.clamp(-1, 1))
    penalty = 0.01 * sum(p.square().sum() for p in base.parameters())
    torch.testing.assert_close(result["regularization_loss"].mean(), penalty)


def test_safe_module():
    safe_module = SafeModule(policy_module(), action_bounds=(-1.0, 1.0))
    result = safe_module({"state": torch.full((2, 64), 9.0)})
    assert result["action"].abs().max() <= 1
    with pytest.raises(ValueError, match="Missing required input key: 'state'"):
        safe_module({"other": torch.zeros(2, 64)})


def test_regularized_module():
    reg_module = RegularizedModule(policy_module(), l2_scale=0.01)
    assert reg_module({"state": torch.zeros(2, 64)})["regularization_loss"] > 0


def test_composed_wrappers():
    base_module = LinearModule(10, 5)
    composed = RegularizedModule(SafeModule(base_module, action_bounds=(-1.0, 1.0)), l2_scale=0.01)
    result = composed({"input": torch.randn(4, 10)})
    assert result["regularization_loss"] > 0
    assert result["output"].shape == (4, 5)
    with pytest.raises(ValueError, match="NaN"):
        composed({"input": torch.full((4, 10), torch.nan)})


def test_regularization_computation():
    base_module = LinearModule(5, 3)
    reg_module = RegularizedModule(base_module, l2_scale=0.01)

    # Test that regularization loss is computed correctly
    result = reg_module({"input": torch.randn(2, 5)})
    assert "regularization_loss" in result
    assert result["regularization_loss"] > 0


class StateManager(nn.Module):
    """The seed's: the action moves the state."""

    in_keys = ("current_state", "action")
    out_keys = ("next_state", "state_delta")

    def initial_state(self, batch):
        return {"state": torch.zeros(batch, 32)}

    def forward(self, mapping):
        mapping["state_delta"] = 0.1 * mapping["action"]
        mapping["next_state"] = mapping["current_state"] + mapping["state_delta"]
        return mapping


def test_stateful_module_adds_state_tracking_to_any_module():
    stateful = StatefulModule(policy_module(), StateManager())
    total, kept = torch.zeros(3, 32), {}
    for _ in range(3):
        result = stateful({"state": torch.randn(3, 64), **kept})
        total = total + 0.1 * result["action"]
        assert torch.equal(result["action/state"], total)
        kept = {"action/state": result["action/state"]}
