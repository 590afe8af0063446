"""A leaf function is one call to a tracer, and itself to everyone else."""

from __future__ import annotations

import torch
from torch import fx

from policysmith.ops.leaf_function import leaf_function


@leaf_function
def halves(x, scale, *, flip=False):
    """Branches on a shape and makes a tensor: neither can be traced."""
    steps = torch.arange(x.shape[0], device=x.device)
    y = x * scale + steps[:, None] if len(x) > 1 else x
    return (y.flip(0), steps) if flip else (y, steps)


def test_to_a_tracer_it_is_one_call_that_gives_the_same():
    graph = fx.Tracer().trace(lambda x: halves(x, 2.0, flip=True)[0] + 1)
    calls = [node for node in graph.nodes if node.op == "call_function" and node.target is halves]
    assert len(calls) == 1
    x = torch.randn(3, 2)
    assert torch.equal(fx.GraphModule({}, graph)(x), halves(x, 2.0, flip=True)[0] + 1)


def test_it_keeps_its_name_and_documentation():
    assert halves.__name__ == "halves" and halves.__doc__.startswith("Branches")


def test_gradients_and_transforms_pass_through():
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: halves(t, 2.0)[0], x)
    expected = 2 * x + torch.arange(3.0, dtype=torch.float64)[:, None]
    torch.testing.assert_close(torch.func.vmap(lambda t: halves(t, 2.0)[0])(torch.stack((x, x)))[1], expected)


def test_torch_compile_sees_through_it():
    compiled = torch.compile(lambda x: halves(x, 3.0)[0] * 2, fullgraph=True, backend="eager")
    x = torch.randn(3, 2)
    assert torch.equal(compiled(x), halves(x, 3.0)[0] * 2)


def test_on_a_device_context_tensors_land_where_the_input_is():
    with torch.device("meta"):
        y, steps = halves(torch.ones(2, 2, device="cpu"), 1.0)
    assert y.device.type == steps.device.type == "cpu"
