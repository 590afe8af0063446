import pytest
import torch
from gymnasium import spaces

import policysmith
from policysmith.errors import ConfigError
from policysmith.policy import SpatialPolicyHead

MODEL = {
    "type": "graph",
    "batch_coupled": True,
    "components": {
        "policy": {"type": "spatial_policy_head", "in_keys": "observation", "channels": 4},
        "state_value": {"type": "board_value_head", "in_keys": "observation"},
    },
}


def build(action_space, board=(3, 4)):
    return policysmith.build({"model": MODEL}, spaces.Box(-1, 1, (5, *board)), action_space, seed=0)


def test_actions_count_rows_then_columns_then_moves():
    """The logit of move m at (row, column) depends on the features of that point alone."""
    torch.manual_seed(0)
    head = SpatialPolicyHead((5, 3, 4), 6, 3 * 4 * 7).eval()
    torch.nn.init.normal_(head.conv2.weight)
    x = torch.randn(1, 5, 3, 4)
    for row, column in ((0, 0), (1, 3), (2, 1)):
        changed = x.clone()
        changed[0, :, row, column] += 1.0
        moved = (head(changed) != head(x))[0].nonzero().flatten()
        start = (row * 4 + column) * 7
        assert set(moved.tolist()) <= set(range(start, start + 7)) and len(moved) >= 6


def test_the_same_move_has_the_same_weights_at_every_point():
    head = SpatialPolicyHead((5, 2, 2), 6, 12).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            head(torch.ones(1, 5, 2, 2)).view(4, 3), head(torch.ones(1, 5, 2, 2)).view(4, 3)[:1].expand(4, 3)
        )
    assert head.conv2.weight.shape == (3, 6, 1, 1)


def test_a_policy_starts_almost_uniform():
    policy = build(spaces.Discrete(24))
    probabilities = policy(torch.randn(8, 5, 3, 4))[0].softmax(-1)
    assert (probabilities - 1 / 24).abs().max() < 0.01


def test_a_space_that_starts_elsewhere_is_fine():
    policy = build(spaces.Discrete(24, start=-3))
    action, _, _ = policy.get_action_and_value(torch.randn(64, 5, 3, 4))
    assert action.min() >= -3 and action.max() <= 20


@pytest.mark.parametrize(
    ("space", "problem"),
    [
        (spaces.Discrete(25), r"25 actions are no multiple of the 3 · 4 = 12 points; board_policy_head takes any"),
        (spaces.Discrete(6), r"6 actions are no multiple of the 3 · 4 = 12 points"),
        (spaces.MultiDiscrete([6, 6]), r"chooses one of 12 · M moves, which needs a Discrete action space; board_pol"),
        (spaces.Box(-1, 1, (12,)), r"needs a Discrete action space"),
        (spaces.MultiBinary(12), r"needs a Discrete action space"),
        (spaces.Dict(move=spaces.Discrete(12)), r"needs a Discrete action space"),
    ],
    ids=str,
)
def test_other_action_spaces_are_refused_with_their_numbers(space, problem):
    with pytest.raises(ConfigError, match=rf"^model\.components\.policy: .*{problem}"):
        build(space)
