import pytest
import torch

import policysmith
from policysmith.graph import TensorSpec
from policysmith.ops.init import initialize
from policysmith.parts import SEResNetTower
from policysmith.parts.se_resnet_tower import GlobalPoolBiasBlock
from tests.reference.se_resnet import Block


def lively(module):
    """Weights, norms and statistics that all matter."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) if "running_var" in name else 0.2 * torch.randn_like(tensor))
    return module


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("shape", [(5, 8, 9, 9), (2, 8, 3, 7)])
def test_a_block_equals_its_slow_twin_in_values_gradients_and_statistics(training, shape):
    torch.manual_seed(0)
    slow = lively(Block(8, 4, 6).double()).train(training)
    fast = GlobalPoolBiasBlock(8, 2, 6).double().train(training)
    fast.load_state_dict(slow.state_dict())
    inputs = [torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    outputs = [block(x.requires_grad_()) for block, x in zip((fast, slow), inputs, strict=True)]
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    for output in outputs:
        output.square().mean().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-9, atol=1e-12)
    others = dict(slow.named_parameters())
    for name, parameter in fast.named_parameters():
        torch.testing.assert_close(parameter.grad, others[name].grad, rtol=1e-9, atol=1e-12, msg=name)
    state = slow.state_dict()
    for name, tensor in fast.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=1e-12, atol=1e-12, msg=name)


def test_every_point_hears_of_every_other_after_one_block():
    torch.manual_seed(0)
    tower = SEResNetTower((3, 9, 9), 1, 8, 4, 6).eval()
    initialize(tower)
    x = torch.randn(1, 3, 9, 9)
    far = x.clone()
    far[..., 8, 8] += 5.0
    assert (tower(far) - tower(x))[..., 0, 0].abs().max() > 1e-4, "convolutions alone reach three points"


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("num_blocks", [1, 10, 40])
def test_depth_does_not_blow_the_features_up_before_statistics_are_taken(num_blocks, training):
    torch.manual_seed(0)
    tower = SEResNetTower((6, 9, 9), num_blocks, 32, 4, 16).train(training)
    initialize(tower)
    with torch.no_grad():
        features = tower((torch.rand(16, 6, 9, 9) < 0.3).float())
    assert 0.1 < features.std() < 10.0


def test_gates_without_a_hidden_unit_are_refused():
    with pytest.raises(ValueError, match=r"channels=8 over se_reduction=16 leaves .* set se_reduction to at most 8$"):
        SEResNetTower((3, 9, 9), 1, 8, 16)
    assert SEResNetTower((3, 9, 9), 1, 8, 8).blocks[0].se_fc1.out_features == 1


def test_it_is_a_component_like_any_other():
    components = {
        "eye": {"type": "se_resnet_tower", "in_keys": "x", "num_blocks": 1, "channels": 6, "se_reduction": 2},
        "pooled": {"type": "global_pool", "in_keys": "eye"},
    }
    inputs = {"x": TensorSpec((4, 5, 6))}
    model = policysmith.build_model({"components": components}, inputs=inputs, seed=0)
    assert model(torch.randn(2, 4, 5, 6)).shape == (2, 18)
