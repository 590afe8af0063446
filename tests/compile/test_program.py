"""Emitted code stays right when what it was made from changes; whatever can't be traced stays a call."""

from __future__ import annotations

import copy
import gc
import random
import weakref
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.utils import parametrizations, parametrize, prune

from policysmith.graph import Component, GraphModel, TensorComponent, build_model
from policysmith.registry import Infer, default_registry
from tests.laws.policies import batch_of, leaves, lively, policy_of

X = torch.linspace(-1, 1, 12).view(3, 4)
TWO = {
    "a": {"type": "mlp", "in_keys": "x", "hidden": [5]},
    "b": {"type": "nn.Linear", "in_keys": "a", "out_features": 2},
}


def model(components: Any = TWO, **parts: Any) -> GraphModel:
    """A graph of one input x (4,); further parts are registered for it alone."""
    registry = default_registry.copy()
    for name, part in parts.items():
        registry.register(name)(part)
    return build_model({"inputs": {"x": [4]}, "components": components}, registry, seed=0)


def one(part: Any, **options: Any) -> GraphModel:
    """A graph of one part."""
    return model({"part": {"type": "part", "in_keys": "x", **options}}, part=part)


def inner(graph: GraphModel, name: str = "part") -> Any:
    return graph.graph_modules[name]


def agrees(graph: GraphModel, x: Tensor = X) -> Tensor:
    """The result of a call, which is that of the slow twin."""
    torch.manual_seed(0)
    found = graph(x)
    torch.manual_seed(0)
    assert torch.equal(found, graph.slow(x))
    return found


def is_flat(graph: GraphModel) -> bool:
    """Whether no module is called from the code."""
    return all(node.op != "call_module" for node in graph.program().graph.nodes)


def changes(graph: GraphModel, act: Callable[[], Any]) -> Tensor:
    """An act changes the result of the next call, and to what the slow twin says."""
    before = agrees(graph)
    act()
    after = agrees(graph)
    assert not torch.equal(before, after)
    return after


# --- weights are live --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_optimiser_steps_take_effect(make):
    graph = model()
    optimiser = make(graph.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        optimiser.zero_grad()
        loss = agrees(graph).square().sum()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert is_flat(graph)


@pytest.mark.parametrize("assign", [False, True])
def test_loaded_weights_take_effect(assign):
    graph, other = model(), build_model({"inputs": {"x": [4]}, "components": TWO}, seed=9)
    found = changes(graph, lambda: graph.load_state_dict(other.state_dict(), assign=assign))
    assert torch.equal(found, other(X))


def test_a_reassigned_parameter_takes_effect():
    graph = model()
    changes(graph, lambda: setattr(graph.graph_modules["b"], "weight", nn.Parameter(torch.ones(2, 5))))
    changes(graph, lambda: graph.graph_modules["b"].register_parameter("bias", nn.Parameter(torch.full((2,), 7.0))))


def test_a_parameter_changed_by_hand_takes_effect():
    graph = model()
    changes(graph, lambda: graph.graph_modules["b"].weight.data.mul_(2))
    changes(graph, lambda: setattr(graph.graph_modules["b"].weight, "data", torch.zeros(2, 5)))


def test_a_parameter_taken_away_takes_effect():
    graph = model()
    graph.graph_modules["b"].bias.data.fill_(1)
    changes(graph, lambda: graph.graph_modules["b"].register_parameter("bias", None))


def test_a_moved_model_computes_in_its_new_type():
    graph = model()
    before = agrees(graph)
    graph.to(torch.float64)
    after = agrees(graph, X.double())
    assert after.dtype == torch.float64
    torch.testing.assert_close(after.float(), before)
    graph.to(torch.float32)
    assert torch.equal(agrees(graph), before)


def test_freezing_takes_effect():
    graph = model()
    agrees(graph)
    graph.requires_grad_(False)
    assert not graph(X).requires_grad
    graph.graph_modules["b"].requires_grad_(True)
    assert graph(X).requires_grad


def test_functional_call_uses_the_weights_it_is_given():
    graph = model()
    before = agrees(graph)
    doubled = {name: p.detach() * 2 for name, p in graph.named_parameters()}
    twin = copy.deepcopy(graph)
    twin.load_state_dict(doubled)
    assert torch.equal(functional_call(graph, doubled, (X,)), twin(X))
    assert torch.equal(agrees(graph), before)


def test_the_first_call_may_be_functional():
    graph = model()
    doubled = {name: p.detach() * 2 for name, p in graph.named_parameters()}
    twin = copy.deepcopy(graph)
    twin.load_state_dict(doubled)
    assert torch.equal(functional_call(graph, doubled, (X,)), twin(X))
    assert not torch.equal(agrees(graph), twin(X))


def test_vmap_over_weights_is_an_ensemble():
    members = [build_model({"inputs": {"x": [4]}, "components": TWO}, seed=i) for i in range(3)]
    params, buffers = stack_module_state(members)
    base = copy.deepcopy(members[0]).to("meta")
    found = vmap(lambda p, b: functional_call(base, (p, b), (X,)))(params, buffers)
    torch.testing.assert_close(found, torch.stack([member(X) for member in members]))


def test_vmap_over_some_of_the_weights():
    graph = model()
    biases = torch.randn(6, 2)
    found = vmap(lambda bias: functional_call(graph, {"graph_modules.b.bias": bias}, (X,)))(biases)
    expected = graph(X) - graph.graph_modules["b"].bias + biases.unsqueeze(1)
    torch.testing.assert_close(found, expected)


def test_gradients_by_torch_func_are_those_of_autograd():
    graph = model()
    params = {name: p.detach() for name, p in graph.named_parameters()}
    found = torch.func.grad(lambda p: functional_call(graph, p, (X,)).square().sum())(params)
    graph(X).square().sum().backward()
    for name, parameter in graph.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch's own, from its decompositions
def test_forward_mode_and_second_derivatives_work():
    graph, slow = model(), model()
    tangent = torch.ones_like(X)
    torch.testing.assert_close(torch.func.jvp(graph, (X,), (tangent,)), torch.func.jvp(slow.slow, (X,), (tangent,)))
    torch.testing.assert_close(
        torch.func.hessian(lambda x: graph(x).sum())(X[:1]), torch.func.hessian(lambda x: slow.slow(x).sum())(X[:1])
    )


# --- modules are watched -----------------------------------------------------------------------------------------


def test_a_replaced_component_takes_effect():
    graph = model()
    changes(graph, lambda: graph.graph_modules.update({"b": nn.Linear(5, 2)}))
    changes(graph, lambda: graph.graph_modules["a"].__setitem__(0, nn.Linear(4, 5)))
    changes(graph, lambda: graph.graph_modules["a"].__setitem__(1, nn.ReLU()))


def test_a_child_replaced_by_attribute_takes_effect():
    graph = one(Gate)
    changes(graph, lambda: setattr(inner(graph), "inside", nn.Linear(4, 4)))


def test_a_child_appended_takes_effect():
    graph = model()
    changes(graph, lambda: graph.graph_modules["a"].append(nn.ReLU()))


def test_a_child_removed_takes_effect():
    graph = model({"a": {"type": "mlp", "in_keys": "x", "hidden": [5, 5]}})
    changes(graph, lambda: graph.graph_modules["a"].pop(3))


class Gate(nn.Module):
    """x + tanh(linear(x))."""

    def __init__(self, width: Annotated[int, Infer("features")]) -> None:
        super().__init__()
        self.inside = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inside(x).tanh()


@pytest.mark.parametrize("place", ["component", "child", "leaf"])
@pytest.mark.parametrize("kind", ["forward", "forward_pre"])
def test_a_hook_registered_later_runs_and_its_removal_restores(place, kind):
    graph = model()
    targets = {
        "component": graph.graph_modules["a"],
        "child": graph.graph_modules["a"][0],
        "leaf": graph.graph_modules["b"],
    }
    before, code = agrees(graph), graph.code
    handles = []
    for _ in range(2):
        if kind == "forward":
            handles.append(targets[place].register_forward_hook(lambda m, args, out: out * 2))
        else:
            handles.append(targets[place].register_forward_pre_hook(lambda m, args: (args[0] * 2,)))
        assert not torch.equal(agrees(graph), before)
        before_second = agrees(graph)
    for handle in handles[::-1]:
        assert torch.equal(agrees(graph), before_second)
        handle.remove()
        before_second = copy.deepcopy(graph).slow(X)
    assert torch.equal(agrees(graph), before)
    graph.program().build()
    assert graph.code == code


def test_a_backward_hook_registered_later_runs():
    graph = model()
    agrees(graph)
    seen: list[Tensor] = []
    handle = graph.graph_modules["b"].register_full_backward_hook(lambda m, grad_in, grad_out: seen.append(grad_out[0]))
    graph(X).sum().backward()
    assert len(seen) == 1
    handle.remove()
    graph(X).sum().backward()
    assert len(seen) == 1


def test_a_hook_on_every_module_of_the_process_runs():
    graph = model()
    before, seen = agrees(graph), []
    handle = nn.modules.module.register_module_forward_hook(lambda m, args, out: seen.append(type(m).__name__))
    try:
        graph(X)
        assert seen.count("Linear") == 2
        assert "Tanh" in seen
    finally:
        handle.remove()
    count = len(seen)
    assert torch.equal(agrees(graph), before)
    assert len(seen) == count


def test_the_code_is_flat_again_after_a_hook_is_gone():
    graph = model()
    agrees(graph)
    handle = graph.graph_modules["b"].register_forward_hook(lambda m, args, out: out)
    agrees(graph)
    assert not is_flat(graph)
    handle.remove()
    for _ in range(3):
        agrees(graph)
    assert is_flat(graph)


def test_a_hook_elsewhere_costs_no_rebuild():
    graph = model()
    agrees(graph)
    run = graph.program().run
    nn.Linear(1, 1).register_forward_hook(lambda *_: None)
    agrees(graph)
    assert graph.program().run is run


def test_parametrizing_and_back():
    graph = model()

    class Doubled(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * 2

    before = agrees(graph)
    changes(graph, lambda: parametrize.register_parametrization(graph.graph_modules["b"], "weight", Doubled()))
    graph(X).sum().backward()
    assert graph.graph_modules["b"].parametrizations.weight.original.grad is not None
    parametrize.remove_parametrizations(graph.graph_modules["b"], "weight", leave_parametrized=False)
    assert torch.equal(agrees(graph), before)


@pytest.mark.parametrize(
    "wrap", [parametrizations.weight_norm, parametrizations.orthogonal, parametrizations.spectral_norm]
)
def test_torchs_own_parametrizations_work_before_and_after_the_first_call(wrap):
    for called in (False, True):
        graph = model().eval()
        if called:
            agrees(graph)
        wrap(graph.graph_modules["b"], "weight")
        agrees(graph)
        graph(X).sum().backward()
        agrees(graph)


def test_pruning_and_back():
    graph = model()
    changes(graph, lambda: prune.l1_unstructured(graph.graph_modules["b"], "weight", amount=0.5))
    changes(graph, lambda: prune.random_unstructured(graph.graph_modules["a"][0], "weight", amount=0.5))
    pruned = agrees(graph)
    graph(X).sum().backward()
    assert graph.graph_modules["b"].weight_orig.grad is not None
    prune.remove(graph.graph_modules["b"], "weight")
    prune.remove(graph.graph_modules["a"][0], "weight")
    assert torch.equal(agrees(graph), pruned)
    graph.load_state_dict(model().state_dict())


def test_the_mode_of_a_submodule_is_watched():
    graph = model({"a": {"type": "mlp", "in_keys": "x", "hidden": [50], "dropout": 0.5}}).train()
    torch.manual_seed(0)
    assert (graph(X) == 0).any()
    graph.graph_modules["a"].eval()
    assert not (graph(X) == 0).any()
    graph.graph_modules["a"][2].train()
    assert (graph(X) == 0).any()
    graph.eval()
    assert not (graph(X) == 0).any()
    graph.train()
    assert (graph(X) == 0).any()


def test_the_mode_of_a_part_of_ones_own_is_watched_whatever_it_derives_from():
    class Loud(nn.Linear):
        """Doubled in training."""

        def __init__(self, width: Annotated[int, Infer("features")]) -> None:
            super().__init__(width, width)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (2 if self.training else 1)

    graph = one(Loud)
    changes(graph, lambda: inner(graph).eval())
    changes(graph, lambda: inner(graph).train())


def test_batch_statistics_move_in_training_and_rest_in_evaluation():
    graph, slow = one(nn.BatchNorm1d, num_features=4), one(nn.BatchNorm1d, num_features=4)
    for training in (True, True, False, True):
        graph.train(training)
        slow.train(training)
        assert torch.equal(graph(X * 3 + 1), slow.slow(X * 3 + 1))
        for a, b in zip(graph.buffers(), slow.buffers(), strict=True):
            assert torch.equal(a, b)
    assert inner(graph).num_batches_tracked == 3


def test_an_option_changed_on_a_live_module_takes_effect():
    graph = model({"a": {"type": "mlp", "in_keys": "x", "hidden": [200], "dropout": 0.5}}).train()
    torch.manual_seed(0)
    assert (graph(X) == 0).any()
    graph.graph_modules["a"][2].p = 0.0
    assert not (graph(X) == 0).any()


# --- what can't be traced stays a call, and is right -------------------------------------------------------------


class Writing(nn.Module):
    """Counts its calls in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls


class WritingToAList(nn.Module):
    """Keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x + len(self.seen)


class WritingToABuffer(nn.Module):
    """Counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls


class WritingToABufferInPlace(WritingToABuffer):
    """Counts its calls by a method."""

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return x + self.calls


class WritingToABufferByIndex(WritingToABuffer):
    """Counts its calls through an index."""

    def forward(self, x: Tensor) -> Tensor:
        self.calls[...] = self.calls + 1
        return x + self.calls


class WritingToAChild(nn.Module):
    """Counts its calls in a child's attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.child = Writing()

    def forward(self, x: Tensor) -> Tensor:
        self.child.calls += 1
        return x + self.child.calls


class WritingAsOneOfTorch(nn.Module):
    """Counts its calls in an attribute; torch's own classes are traced unread, and what they write is noticed then."""

    __module__ = "torch.nn.modules.counting"

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls


WRITING = [
    Writing,
    WritingToAList,
    WritingToABuffer,
    WritingToABufferInPlace,
    WritingToABufferByIndex,
    WritingToAChild,
    WritingAsOneOfTorch,
]


@pytest.mark.parametrize("part", WRITING)
def test_a_part_that_writes_to_itself_does_so_at_each_call(part):
    graph = one(part)
    assert [int((graph(X) - X).mean().round()) for _ in range(4)] == [1, 2, 3, 4]


@pytest.mark.parametrize("part", [Writing, WritingToAList, WritingToABuffer, WritingToAChild, WritingAsOneOfTorch])
def test_compiling_is_not_a_call(part):
    graph = one(part)
    graph.program()
    graph.program().build()
    assert int((graph(X) - X).mean().round()) == 1


class OnShapes(nn.Module):
    """Two rows or more are centred."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0) if x.shape[0] > 1 else x * 10


class OnValues(nn.Module):
    """Doubled where the sum is positive."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or x.is_meta:
            return x
        return x * 2 if x.sum() > 0 else x


class OnTypes(nn.Module):
    """Doubled where it is floating point, through `isinstance` and dtype."""

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise TypeError("not a tensor")
        return x * 2


class OnIsinstance(nn.Module):
    """Another way for what is no tensor."""

    def forward(self, x: Any) -> Tensor:
        return x * 2 if isinstance(x, Tensor) else x * 0


class OnDimensions(nn.Module):
    """As many doublings as dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(x.dim()):
            x = x * 2
        return x


class OnLength(nn.Module):
    """Scaled by the number of rows."""

    def forward(self, x: Tensor) -> Tensor:
        return x * len(x)


class OnSize(nn.Module):
    """Scaled by the number of rows, with no branch."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], 2, -1).sum(1) * x.size(0)


class OnGradMode(nn.Module):
    """Doubled where gradients are wanted."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if torch.is_grad_enabled() else x


@pytest.mark.parametrize("part", [OnShapes, OnValues, OnTypes, OnIsinstance, OnDimensions, OnLength, OnSize])
def test_a_part_that_branches_on_what_it_is_given_is_right_for_every_input(part):
    graph, twin = one(part), part()
    for x in (X, X[:1], -X, X[:2] + 1, X[2:]):
        assert torch.equal(graph(x), twin(x))


def test_a_part_that_branches_on_the_gradient_mode_is_right_in_both():
    graph = one(OnGradMode)
    assert torch.equal(graph(X), X * 2)
    with torch.no_grad():
        assert torch.equal(graph(X), X)
    assert torch.equal(graph(X), X * 2)


class InPlace(nn.Module):
    """Overwrites a tensor of its own and returns that, not what the call returned."""

    def __init__(self, width: Annotated[int, Infer("features")]) -> None:
        super().__init__()
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        self.activation(y)
        return y


class InPlaceFunction(InPlace):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        F.relu(y, inplace=True)
        return y


class InPlaceUnderscore(InPlace):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        torch.relu_(y)
        return y


class InPlaceMethod(InPlace):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        y.relu_()
        return y


class InPlaceOut(InPlace):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        torch.mul(x, (x > 0).to(x.dtype), out=y)
        return y + 0.0


class InPlaceItem(InPlace):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        y[y < 0] = 0
        return y


class InPlaceOperator(InPlace):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        z = y
        z *= (x > 0).to(x.dtype)
        return y + 0.0


@pytest.mark.parametrize(
    "part", [InPlace, InPlaceFunction, InPlaceUnderscore, InPlaceMethod, InPlaceOut, InPlaceItem, InPlaceOperator]
)
def test_what_is_overwritten_in_a_forward_stays_overwritten(part):
    given = X.clone()
    assert torch.equal(one(part)(given), X.relu())
    assert torch.equal(given, X)


class WithoutGradient(nn.Module):
    """One stretch without gradients, as for a target or a running statistic."""

    def __init__(self, width: Annotated[int, Infer("features")]) -> None:
        super().__init__()
        self.learned, self.fixed = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.fixed(x)
        return self.learned(x) + y


class Undecorated(WithoutGradient):
    """The same by a decorated method."""

    @torch.no_grad()
    def target(self, x: Tensor) -> Tensor:
        return self.fixed(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.learned(x) + self.target(x)


@pytest.mark.parametrize("part", [WithoutGradient, Undecorated])
def test_a_stretch_without_gradients_stays_without(part):
    graph = one(part)
    graph(X).sum().backward()
    assert inner(graph).learned.weight.grad is not None
    assert inner(graph).fixed.weight.grad is None


class InHalf(nn.Module):
    """Computes in bfloat16 for a stretch."""

    def __init__(self, width: Annotated[int, Infer("features")]) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.linear(x)


def test_a_stretch_in_half_precision_stays_so():
    assert one(InHalf)(X).dtype == torch.bfloat16


def test_autocast_around_a_call_holds_inside():
    graph = model()
    with torch.autocast("cpu", torch.bfloat16):
        assert graph(X).dtype == torch.bfloat16
    assert agrees(graph).dtype == torch.float32


class RandomTensor(nn.Module):
    """Adds noise."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn(4).to(x.device)


class RandomLike(nn.Module):
    """Adds noise of the input's shape."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class RandomItem(nn.Module):
    """Adds one random number."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(1, device="cpu").item()


class RandomOrder(nn.Module):
    """Shuffles features."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, torch.randperm(4)] + torch.rand(())


class RandomNumpy(nn.Module):
    """Adds noise of NumPy's."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.from_numpy(np.random.rand(4)).float().to(x.device)


class RandomPython(nn.Module):
    """Adds a number of Python's."""

    def forward(self, x: Tensor) -> Tensor:
        return x + random.random()


@pytest.mark.parametrize("part", [RandomTensor, RandomLike, RandomItem, RandomOrder, RandomNumpy, RandomPython])
def test_randomness_is_never_frozen_into_the_code(part):
    graph = one(part)
    found = {graph(X).sum().item() for _ in range(8)}
    assert len(found) > 1


class MadeHere(nn.Module):
    """Adds a ramp made at each call."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.arange(4.0, device=x.device, dtype=x.dtype)


def test_tensors_made_in_a_forward_have_the_type_of_each_input():
    graph = one(MadeHere)
    assert torch.equal(graph(X), X + torch.arange(4.0))
    assert graph(X.double()).dtype == torch.float64


class PlainTensor(nn.Module):
    """Adds a tensor that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        with torch.device("cpu"):
            self.table = torch.arange(4.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table.to(x.device)


def test_a_plain_tensor_of_a_part_is_live():
    graph = one(PlainTensor)
    assert torch.equal(graph(X), X + torch.arange(4.0))
    inner(graph).table.add_(1)
    assert torch.equal(graph(X), X + torch.arange(4.0) + 1)
    inner(graph).table = torch.ones(4)
    assert torch.equal(graph(X), X + 1)


class Tuples(nn.Module):
    """Two outputs, by unpacking a tuple."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.chunk(2, -1)
        return first * second, torch.stack([first, second], dim=-1).amax(dim=-1, keepdim=False)


def test_unpacking_stays_right():
    graph = model({"part": {"type": "part", "in_keys": "x", "out_keys": ["p", "q"]}}, part=Tuples)
    graph.outputs = ("p", "q")
    for found, expected in zip(graph(X), Tuples()(X), strict=True):
        assert torch.equal(found, expected)


class TuplesAsACall(Tuples):
    """Two outputs of a part that can't be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return super().forward(x)


@pytest.mark.parametrize("outputs", ["q", ["p", "q"], {"first": "q"}])
def test_several_outputs_of_a_part_that_stays_a_call(outputs):
    registry = default_registry.copy()
    registry.register("part")(TuplesAsACall)
    part = {"type": "part", "in_keys": "x", "out_keys": ["p", "q"]}
    graph = build_model({"inputs": {"x": [4]}, "components": {"part": part}, "outputs": outputs}, registry)
    p, q = Tuples()(X)
    expected = [p, q] if isinstance(outputs, list) else [q]
    for found, wanted in zip(leaves(graph(X)), expected, strict=True):
        assert torch.equal(found, wanted)


class Arguments(nn.Module):
    """All sorts of literals: slices, ellipsis, None, dtypes, nested lists, infinities."""

    def forward(self, x: Tensor) -> Tensor:
        y = x[:, 1:3].unsqueeze(-1)[..., None].squeeze(-1).squeeze(-1)
        y = torch.cat([y, x[..., [0, 3]]], dim=-1).to(torch.float64).clamp(min=-0.5)
        y = torch.where(y > 0.9, float("inf"), y).nan_to_num(posinf=3.0).to(dtype=x.dtype)
        return (y**2 - -y) / (1 + y.abs()) // 0.125 * 0.5 + (x >= 0.25) * (x != 1) - ~(x < 0) * 1


def test_literals_of_every_kind_are_emitted():
    graph = one(Arguments)
    assert torch.equal(graph(X), Arguments()(X))
    assert torch.equal(graph(X * 2), Arguments()(X * 2))


class Unflattens(nn.Module):
    """Calls a method of tensors that torch writes in Python, in each way that it allows."""

    def __init__(self, width: Annotated[int, Infer("features")]) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (2, -1)).flip(1).flatten(1) - x.unflatten(dim=1, sizes=(-1, 2)).flip(2).flatten(1)


def test_a_method_that_forwards_to_a_function_is_emitted_as_that():
    graph = one(Unflattens)
    assert torch.equal(graph(X), Unflattens(X.shape[1])(X))
    assert ".unflatten" not in graph.code


class ByName(nn.Module):
    """Calls its child by keyword."""

    def __init__(self, width: Annotated[int, Infer("features")]) -> None:
        super().__init__()
        self.child = nn.Bilinear(width, width, 2)

    def forward(self, *, y: Tensor, x: Tensor | None = None) -> Tensor:
        return self.child(input2=y, input1=y if x is None else x)


def test_arguments_by_name_reach_the_part():
    graph = model({"part": {"type": "part", "in_keys": {"y": "x"}}}, part=ByName)
    assert torch.equal(graph(X), inner(graph)(y=X))


class SharedChild(nn.Module):
    """One layer applied twice, its weight also used bare."""

    def __init__(self, width: Annotated[int, Infer("features")]) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)
        self.tied = self.layer.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x)) @ self.tied


def test_tied_and_repeated_weights_stay_one():
    graph = one(SharedChild)
    agrees(graph)
    optimiser = torch.optim.SGD(graph.parameters(), 0.1)
    graph(X).sum().backward()
    optimiser.step()
    agrees(graph)


class Listed(nn.Module):
    """Parameters in lists and dictionaries."""

    def __init__(self, width: Annotated[int, Infer("features")]) -> None:
        super().__init__()
        self.scales = nn.ParameterList([nn.Parameter(torch.rand(width)) for _ in range(3)])
        self.named = nn.ParameterDict({"shift": nn.Parameter(torch.rand(width))})
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        for scale in self.scales:
            x = x * scale
        for layer in self.layers:
            x = layer(x)
        return x + self.named["shift"]


def test_parameters_in_lists_and_dictionaries_are_live():
    graph = one(Listed)
    changes(graph, lambda: inner(graph).scales[1].data.add_(1))
    changes(graph, lambda: inner(graph).named["shift"].data.add_(1))
    changes(graph, lambda: graph.load_state_dict({n: t * 2 for n, t in graph.state_dict().items()}, assign=True))
    changes(graph, lambda: inner(graph).layers.__setitem__(0, nn.Linear(4, 4)))


# --- errors ------------------------------------------------------------------------------------------------------


class Failing(nn.Module):
    """Raises once there is something to raise for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = {"forward": 0}
        self.error: Exception | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_meta:
            self.calls["forward"] += 1
            if self.error is not None:
                raise self.error
        return x * (1 if x.sum().isfinite() else 2) if not x.is_meta else x


@pytest.mark.parametrize("error", [KeyError("mine"), ValueError("mine"), RuntimeError("mine")])
def test_an_error_in_a_part_reaches_the_caller_once(error):
    graph = one(Failing)
    graph(X)
    part = inner(graph)
    part.error, part.calls["forward"] = error, 0
    with pytest.raises(type(error), match="mine") as caught:
        graph(X)
    assert caught.value is error
    assert part.calls["forward"] == 1
    part.error = None
    assert torch.equal(graph(X), X)


def test_an_error_of_torch_says_what_torch_says():
    graph = model()
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        graph(torch.zeros(3, 9))
    agrees(graph)


def test_a_dropped_model_is_freed():
    graph = model()
    agrees(graph)
    graph.bound()(X)
    dead = weakref.ref(graph)
    del graph
    gc.collect()
    assert dead() is None


def test_a_dropped_policy_is_freed():
    policy = policy_of("vector", "hybrid")
    obs = batch_of(policy)
    policy.get_action_and_value(obs)
    policy.acting()(obs)
    dead = weakref.ref(policy)
    del policy
    gc.collect()
    assert dead() is None


# --- the bound form, opaque components, policies -----------------------------------------------------------------


def test_the_bound_form_calls_every_module():
    graph = model()
    calls: list[str] = []
    for name, part in graph.graph_modules.items():
        part.register_forward_hook(lambda m, args, out, name=name: calls.append(name))
    assert torch.equal(graph.bound()(X), graph(X))
    assert calls[:2] == ["a", "b"]


def test_the_code_is_readable_and_holds_no_text_of_the_user():
    graph = model({"weird_name_of_mine": TWO["a"]})
    assert "linear(x0" in graph.code
    assert "weird_name_of_mine" not in graph.code.replace("['weird_name_of_mine']", "")


class Opaque(Component):
    """Overrides forward: only calling it says what it does."""

    def __init__(self, in_keys: Any, out_keys: Any) -> None:
        super().__init__(in_keys, out_keys)
        self.linear = nn.Linear(4, 8)

    def forward(self, mapping: Any) -> Any:
        mapping[self.out_keys[0]] = self.linear(mapping[self.in_keys[0]]) * 2
        return mapping


class Pure(Opaque):
    """Writes only compute."""

    forward = Component.forward

    def compute(self, x: Tensor) -> Tensor:
        return self.linear(x) * 2


@pytest.mark.parametrize("kind", [Opaque, Pure])
def test_a_policy_takes_components_of_ones_own(kind):
    policy = lively(policy_of("vector", "discrete"))
    obs = batch_of(policy)
    before = policy(obs)
    mine = kind(["observation"], ["actor"])
    policy.components.replace_component("actor", mine)
    params, value = policy(obs)
    assert not torch.equal(params, before[0])
    assert torch.equal(value, before[1])
    assert torch.equal(params, policy.components["policy"].module(mine.linear(obs) * 2))
    assert torch.equal(params, policy.slow("forward", obs)[0])
    chosen, log_prob, _ = policy.get_action_and_value(obs)
    again, _, _ = policy.evaluate_actions(obs, chosen)
    assert torch.equal(log_prob, again)
    again.sum().backward()
    assert mine.linear.weight.grad is not None
    policy.components.replace_component("actor", TensorComponent(nn.Linear(4, 8), ["observation"], ["actor"]))
    assert torch.equal(policy(obs)[0], policy.slow("forward", obs)[0])


@pytest.mark.parametrize("call", ["forward", "get_action_and_value", "evaluate_actions", "get_value", "acting"])
def test_a_swap_in_a_policy_is_seen_by_every_call(call):
    policy = lively(policy_of("vector", "discrete"))
    obs = batch_of(policy)
    act = policy.acting(True)
    calls = {
        "forward": lambda: policy(obs),
        "get_action_and_value": lambda: policy.get_action_and_value(obs, deterministic=True)[1:],
        "evaluate_actions": lambda: policy.evaluate_actions(obs, torch.zeros(4, dtype=torch.long))[::2],
        "get_value": lambda: (policy.get_value(obs),) * 2,
        "acting": lambda: act(obs)[1:],
    }
    before = calls[call]()
    for name in ("actor", "critic"):
        policy.components.replace_component(name, TensorComponent(nn.Linear(4, 8), ["observation"], [name]))
    after = calls[call]()
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    hook = policy.components["critic"].register_forward_hook(
        lambda m, args, out: out.update({"critic": out["critic"] * 0}) or out
    )
    hooked = calls[call]()
    assert not torch.equal(hooked[-1], after[-1])
    hook.remove()
    assert torch.equal(calls[call]()[-1], after[-1])


def test_a_component_may_write_a_tensordict_of_its_own_keys():
    component = Pure(["observation"], ["h"])
    data = component(TensorDict({"observation": X}, [3]))
    assert data["h"].shape == (3, 8)
