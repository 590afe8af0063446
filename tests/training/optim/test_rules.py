import pytest
import torch
from torch import nn

from policysmith.training.optim.optimizers import Optimizers
from policysmith.training.optim.rules import AdamRule


def _losses(step, parameters, seed):
    torch.manual_seed(seed)
    for _ in range(5):
        x = torch.randn(8, 4)
        step(sum((p * x.mean()).square().sum() for p in parameters) * 100)


def test_equals_torch_adam_with_clip_grad_norm():
    torch.manual_seed(0)
    mine = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5))]
    theirs = [nn.Parameter(p.detach().clone()) for p in mine]
    ours = Optimizers.of(mine, 0.01, AdamRule(eps=1e-5))
    reference = torch.optim.Adam(theirs, lr=0.01, eps=1e-5)

    def slow_step(loss):
        reference.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(theirs, 0.5)
        reference.step()

    _losses(lambda loss: ours.step(loss, 0.5), mine, 1)
    _losses(slow_step, theirs, 1)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_restored_state_continues_as_if_never_interrupted(layout):
    """Also where it was stored in another memory format than the parameter has: the fused kernel walks memory."""
    torch.manual_seed(0)
    start = torch.randn(3, 4, 2, 5).contiguous(memory_format=layout)
    straight, stopped = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    one, two = Optimizers.of([straight], 0.01), Optimizers.of([stopped], 0.01)
    _losses(one.step, [straight], 1)
    _losses(two.step, [stopped], 1)
    continued = Optimizers.of([stopped], 0.01)
    continued.load_state({name: tensor.contiguous() for name, tensor in two.state().items()})
    _losses(one.step, [straight], 2)
    _losses(continued.step, [stopped], 2)
    assert torch.equal(straight, stopped)


def test_a_parameter_without_gradient_stays_where_it_is():
    used, idle = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Optimizers.of([used, idle], 0.1)
    optimizer.step(used.sum(), 0.5)
    assert torch.equal(idle, torch.ones(2)) and not torch.equal(used, torch.ones(2))
