"""RegularizedModule: each trainable parameter counts once, in training mode, however wrappers nest."""

import itertools

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn

from policysmith.graph import TensorComponent
from policysmith.graph.component import AUX
from policysmith.wrappers import Frozen, LoRA, RegularizedModule, SafeModule, WeightMonitoringModule

from .parts import Bare, Constant, LinearModule, chain

X = torch.ones(2, 4)


def l2(module, scale=0.01):
    return scale * sum(p.detach().square().sum() for p in module.parameters())


def l1(module, scale):
    return scale * sum(p.detach().abs().sum() for p in module.parameters())


def loss_of(module):
    return module({"input": X})["regularization_loss"]


def test_the_loss_is_that_of_the_formula_with_its_gradient():
    module = chain(4, 8, 3)
    loss = loss_of(RegularizedModule(module, l2_scale=0.01, l1_scale=0.5))
    torch.testing.assert_close(loss, l2(module) + l1(module, 0.5))
    loss.backward()
    for p in module.parameters():
        torch.testing.assert_close(p.grad, 0.02 * p.detach() + 0.5 * p.detach().sign())


def test_weights_of_zero_have_a_gradient_of_zero():
    module = chain(4, 3)
    nn.init.zeros_(module.module[0].weight)
    loss_of(RegularizedModule(module, l2_scale=1.0, l1_scale=1.0)).backward()
    assert module.module[0].weight.grad.tolist() == [[0.0] * 4] * 3


def test_evaluation_mode_adds_nothing():
    assert "regularization_loss" not in RegularizedModule(chain(4, 3)).eval()({"input": X})


def test_a_plain_mapping_gets_a_scalar_and_a_tensordict_the_batch_shape():
    module = chain(4, 3)
    assert loss_of(RegularizedModule(module)).shape == ()
    for batch in ([], [2], [2, 5]):
        data = RegularizedModule(module)(TensorDict({"input": torch.ones(*batch, 4)}, batch))
        assert data["regularization_loss"].shape == tuple(batch)
        torch.testing.assert_close(data["regularization_loss"].mean(), l2(module))


@pytest.mark.parametrize("in_tensordict", [False, True], ids=["dict", "TensorDict"])
def test_losses_of_other_modules_are_added_to(in_tensordict):
    first, second = chain(4, 4, out_key="hidden"), TensorComponent(nn.Linear(4, 3), ["hidden"], ["output"])
    data = TensorDict({"input": X}, [2]) if in_tensordict else {"input": X}
    data["regularization_loss"] = torch.full((2,) if in_tensordict else (), 5.0)
    RegularizedModule(second, 0.1)(RegularizedModule(first, 0.01)(data))
    torch.testing.assert_close(data["regularization_loss"].mean(), 5 + l2(first, 0.01) + l2(second, 0.1))


BETWEEN = {
    "nothing": lambda m: m,
    "safe": SafeModule,
    "monitoring": WeightMonitoringModule,
    "both": lambda m: WeightMonitoringModule(SafeModule(m)),
}


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("in_tensordict", [False, True], ids=["dict", "TensorDict"])
def test_of_nested_ones_the_outermost_decides(between, in_tensordict):
    module = chain(4, 3)
    nested = RegularizedModule(BETWEEN[between](RegularizedModule(RegularizedModule(module, 7.0), 0.01)), 0.5)
    data = TensorDict({"input": X}, [2]) if in_tensordict else {"input": X}
    torch.testing.assert_close(nested(data)["regularization_loss"].mean(), l2(module, 0.5))


def test_the_inner_one_alone_still_counts():
    module = chain(4, 3)
    inner = RegularizedModule(module, 0.01)
    outer = RegularizedModule(SafeModule(inner), 0.5)
    loss_of(outer)
    torch.testing.assert_close(loss_of(inner), l2(module, 0.01))


def test_an_error_inside_leaves_nothing_behind():
    module = chain(4, 3)
    inner = RegularizedModule(module, 0.01)
    with pytest.raises(ValueError, match="NaN"):
        RegularizedModule(SafeModule(inner), 0.5)({"input": X * torch.nan})
    torch.testing.assert_close(loss_of(inner), l2(module, 0.01))


def test_around_a_sequence_of_modules_each_parameter_counts_once():
    first, second = TensorDictModule(nn.Linear(4, 4), ["input"], ["h"]), TensorDictModule(nn.Linear(4, 3), ["h"], ["y"])
    both = TensorDictSequential(RegularizedModule(first, 3.0), second)
    data = RegularizedModule(both, 0.01)(TensorDict({"input": X}, [2]))
    torch.testing.assert_close(data["regularization_loss"].mean(), l2(nn.ModuleList([first, second])))


def test_modules_of_others_inside_keep_their_own_loss():
    class Active(Bare):
        def forward(self, mapping):
            mapping["regularization_loss"] = torch.tensor(2.0)
            return super().forward(mapping)

    module = Active()
    torch.testing.assert_close(loss_of(RegularizedModule(module, 0.1)), 2 + l2(module, 0.1))


def test_only_what_learns_is_regularised():
    module = chain(4, 8, 3)
    module.module[0].requires_grad_(False)
    torch.testing.assert_close(loss_of(RegularizedModule(module)), l2(module.module[1]))
    assert loss_of(RegularizedModule(Constant(X))) == 0
    assert "regularization_loss" not in RegularizedModule(Frozen(chain(4, 3))).train()({"input": X})


def test_with_deltas_the_deltas_alone():
    module = LoRA(chain(4, 3), rank=2)
    found = loss_of(RegularizedModule(module))
    down = dict(module.named_parameters())["0.lora_A"]
    torch.testing.assert_close(found, 0.01 * down.detach().square().sum())


def test_a_sink_takes_the_loss_instead_of_the_mapping():
    module, sink = chain(4, 3), {"regularization_loss": torch.tensor(1.0)}
    mapping = {"input": X, AUX: sink}
    result = RegularizedModule(SafeModule(RegularizedModule(module, 7.0)), 0.01)(mapping)
    assert "regularization_loss" not in result
    torch.testing.assert_close(sink["regularization_loss"], 1 + l2(module))


def test_parameters_of_several_types_and_scales_of_zero():
    module = LinearModule(4, 3)
    module.linear.bias = nn.Parameter(module.linear.bias.double())
    found = RegularizedModule(module, 0.0, 0.5).penalty()
    torch.testing.assert_close(found.double(), l1(module, 0.5).double())
    assert RegularizedModule(module, 0.0, 0.0).penalty() == 0
    with pytest.raises(ValueError, match="≥ 0"):
        RegularizedModule(module, -1.0)


def test_compiled_whole_it_is_the_same():
    torch._dynamo.reset()
    module = chain(4, 3)
    wrapped = RegularizedModule(SafeModule(RegularizedModule(module, 7.0)), 0.01)
    compiled = torch.compile(loss_of, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(wrapped), l2(module))


def test_in_any_order_with_other_wrappers_the_loss_is_the_same():
    kinds = [SafeModule, RegularizedModule, WeightMonitoringModule]
    module = chain(4, 3)
    for order in itertools.permutations(kinds):
        wrapped = module
        for kind in order:
            wrapped = kind(wrapped)
        torch.testing.assert_close(loss_of(wrapped), l2(module))
