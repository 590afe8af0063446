import pytest
import torch

from policysmith.parts import GlobalPool
from policysmith.parts.global_pool import global_pool
from tests.reference.se_resnet import pooled

SMALLEST = {torch.float16: 6e-8, torch.bfloat16: 1e-40, torch.float32: 1e-45, torch.float64: 5e-324}


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (2, 1, 9, 9), (4, 3, 1, 1), (2, 2, 1, 7)])
def test_it_is_mean_maximum_and_population_deviation(shape):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(GlobalPool(shape[1:])(x), pooled(x), rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(global_pool, torch.randn(2, 3, 2, 4, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("dtype", list(SMALLEST), ids=str)
@pytest.mark.parametrize("level", [0.0, 1.0, -7.3, 1e-3])
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "nearly constant"])
def test_a_plane_without_variety_has_a_finite_gradient(dtype, level, constant):
    x = torch.full((2, 3, 9, 9), level, dtype=dtype)
    if not constant:
        x[1, 2, 4, 4] += abs(level) * torch.finfo(dtype).eps if level else SMALLEST[dtype]
    x.requires_grad_()
    deviation = global_pool(x)[:, 6:]
    deviation.sum().backward()
    assert deviation.isfinite().all() and deviation.max() < 1e-2
    assert x.grad.isfinite().all() and x.grad.abs().max() <= 1.0


def test_dead_planes_say_zero_and_learn_nothing():
    x = torch.zeros(1, 2, 3, 3, requires_grad=True)
    found = global_pool(x)
    found[:, 4:].sum().backward()
    assert not found.any() and not x.grad.any()


def test_a_large_plane_does_not_overflow_in_half_precision():
    x = torch.zeros(1, 1, 2, 2, dtype=torch.float16)
    x[..., 0] = 20_000.0
    assert global_pool(x).tolist() == [[10_000.0, 20_000.0, 10_000.0]]
