"""Component modules: a registered part under keys of its own, over a dict or a TensorDict and any batch dimensions."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import nn

import policysmith
from policysmith.dialects.metta.modules.layers import PartModule
from policysmith.errors import ConfigError, ShapeError, WiringError
from policysmith.graph import ComponentContainer
from policysmith.modules import (
    ActivationModule,
    ActorModule,
    Conv2dModule,
    DropoutModule,
    EmbeddingModule,
    FlattenModule,
    GRUModule,
    LayerNormModule,
    LinearModule,
    LSTMModule,
    MergeModule,
    ObsModule,
    ReLUModule,
)
from policysmith.wrappers import SafeModule

# Each module, the shape of one row that it reads, and of one that it writes.
MODULES = {
    "linear": (lambda: LinearModule(6, 4), (6,), (4,)),
    "actor": (lambda: ActorModule(6, 3, hidden=(5,)), (6,), (3,)),
    "obs": (lambda: ObsModule(), (8, 7, 3), (3, 8, 7)),
    "conv": (lambda: Conv2dModule(3, 4, 3, stride=2, padding=[1, 0]), (3, 8, 7), (4, 4, 3)),
    "flatten": (lambda: FlattenModule((3, 4)), (3, 4), (12,)),
    "layer norm": (lambda: LayerNormModule(6), (6,), (6,)),
    "dropout": (lambda: DropoutModule(0.2), (6,), (6,)),
    "relu": (lambda: ReLUModule(), (6,), (6,)),
    "elu": (lambda: ActivationModule({"type": "elu", "alpha": 0.5}), (6,), (6,)),
}
COPIERS = {"deepcopy": copy.deepcopy, "pickle": lambda module: pickle.loads(pickle.dumps(module))}

every_module = pytest.mark.parametrize("name", MODULES)


def made(name):
    make, event, result = MODULES[name]
    return make(), event, result


@every_module
@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (2, 3, 2), (0,)], ids=str)
def test_any_leading_batch_dimensions_pass(name, batch):
    module, event, result = made(name)
    module.eval()
    x = torch.randn(*batch, *event)
    given = {module.in_keys[0]: x}
    written = module(given)
    assert written is given
    y = written[module.out_keys[0]]
    assert y.shape == (*batch, *result)
    if batch == (2, 3):
        row = module({module.in_keys[0]: x[1, 2]})[module.out_keys[0]]
        torch.testing.assert_close(y[1, 2], row)


@every_module
def test_a_tensordict_gives_what_a_dict_gives(name):
    module, event, _ = made(name)
    module.eval()
    x = torch.randn(2, 3, *event)
    data = TensorDict({module.in_keys[0]: x}, [2, 3])
    assert module(data) is data
    assert torch.equal(data[module.out_keys[0]], module({module.in_keys[0]: x})[module.out_keys[0]])


@every_module
def test_keys_come_from_the_constructor_or_from_the_class(name):
    module, event, _ = made(name)
    kind = type(module)
    renamed = type("Renamed", (kind,), {"in_keys": ["mine"], "out_keys": [("deep", "result")]})
    own = copy.deepcopy(module)
    own.__class__ = renamed
    fresh = {"linear": lambda **k: renamed(6, 4, **k), "relu": renamed}.get(name)
    if fresh is not None:
        x = torch.randn(2, *event)
        assert fresh()({"mine": x})["deep"]["result"].shape[0] == 2
        assert fresh(in_keys=["other"], out_keys=["y"])({"other": x})["y"].shape[0] == 2
        assert kind.in_keys != ["mine"]


@every_module
@pytest.mark.parametrize("copier", COPIERS)
def test_copies_are_independent_and_equal(name, copier):
    module, event, _ = made(name)
    module.eval()
    twin = COPIERS[copier](module)
    x = torch.randn(2, *event)
    (key,), (out,) = module.in_keys, module.out_keys
    assert torch.equal(twin({key: x})[out], module({key: x})[out])
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in module.parameters()}


@pytest.mark.parametrize(
    ("module", "component", "shape"),
    [
        (lambda: LinearModule(6, 4), {"type": "nn.Linear", "out_features": 4}, (6,)),
        (lambda: Conv2dModule(3, 4, 3, bias=False), {"type": "nn.Conv2d", "out_channels": 4, "kernel_size": 3, "bias": False}, (3, 8, 8)),  # noqa: E501
        (lambda: LayerNormModule(6), {"type": "nn.LayerNorm"}, (6,)),
        (lambda: FlattenModule((3, 4)), {"type": "flatten"}, (3, 4)),
        (lambda: ActorModule(6, 3, hidden=(5,)), {"type": "mlp", "hidden": [5], "out_features": 3}, (6,)),
        (lambda: LSTMModule(6, 4), {"type": "lstm", "hidden_size": 4}, (6,)),
    ],
    ids=["linear", "conv", "layer norm", "flatten", "actor", "lstm"],
)  # fmt: skip
def test_a_file_says_the_same_by_the_parts_type_and_weights_interchange(module, component, shape):
    ours = module().eval()
    assert component["type"] == ours.part_type
    config = {"inputs": {"x": list(shape)}, "components": {"part": {**component, "in_keys": "x"}}}
    if component["type"] == "lstm":
        policy = policysmith.build(
            {"model": {"type": "graph", "components": {
                "part": {**component, "in_keys": "observation"},
                "policy": {"type": "action_head", "in_keys": "part"},
                "state_value": {"type": "value_head", "in_keys": "part"},
            }}}, spaces.Box(-1, 1, shape), spaces.Discrete(2))  # fmt: skip
        graph = policy.components["part"]
        run = lambda x: graph({"observation": x})["part"]  # noqa: E731
    else:
        model = policysmith.build_model(config).eval()
        graph, run = model.graph_modules["part"], model
    graph.load_state_dict(ours.state_dict())
    x = torch.randn(2, *shape)
    torch.testing.assert_close(run(x), ours({ours.in_keys[0]: x})[ours.out_keys[0]])


def test_an_embedding_reads_indices():
    module = EmbeddingModule(5, 3)
    assert module({"input": torch.tensor([[0, 4], [1, 2]])})["output"].shape == (2, 2, 3)


def test_an_actor_starts_near_zero_and_takes_bounds():
    actor = ActorModule(64, 8)
    assert [type(layer) for layer in actor.module] == [nn.Linear, nn.Tanh] * 2 + [nn.Linear]
    assert actor({"state": torch.randn(100, 64)})["action"].abs().max() < 0.2
    with torch.no_grad():
        actor.module[-1].bias.copy_(torch.linspace(-3, 3, 8))
    bounded = SafeModule(actor, action_bounds=(-1.0, 1.0))({"state": torch.randn(4, 64)})["action"]
    assert bounded.min() == -1 and bounded.max() == 1


@pytest.mark.parametrize(
    ("merge", "expected"),
    [
        ("concat", [1.0, 2, 3, 10, 20, 30]), ("add", [11.0, 22, 33]),
        ("subtract", [-9.0, -18, -27]), ("mean", [5.5, 11, 16.5]),
    ],
)  # fmt: skip
def test_merging(merge, expected):
    module = MergeModule(["a", "b"], merge_type=merge)
    result = module({"a": torch.tensor([[1.0, 2, 3]]), "b": torch.tensor([[10.0, 20, 30]])})["merged"]
    assert result.tolist() == [expected]


@pytest.mark.parametrize("slices", [{"b": (1, 3)}, [None, (1, 3)], {"b": [1, None]}, {("b",): (-2, None)}], ids=str)
def test_slices_cut_features_before_the_merge(slices):
    if ("b",) in slices:
        slices = {"b": slices["b",]}
    module = MergeModule(["a", "b"], slices=slices, out_key="both")
    assert module({"a": torch.tensor([1.0]), "b": torch.tensor([2.0, 3, 4])})["both"].tolist() == [1, 3, 4]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((["a", "b"], "sum"), "unknown merge_type 'sum'; there are: concat, add, subtract, mean"),
        ((["a", "b"], "meen"), "did you mean 'mean'"),
        ((["a"],), "a list of two in_keys or more, found"),
        (("ab",), "a list of two in_keys or more, found 'ab'"),
        ((["a", "b", "c"], "subtract"), "subtract takes two in_keys"),
        ((["a", "b"], "add", {"c": (0, 1)}), "slices: 'c' is none of the in_keys 'a', 'b'"),
        ((["a", "b"], "add", [(0, 1)]), "slices: 1 entries for 2 in_keys"),
        ((["a", "b"], "add", {"a": 3}), r"slices: expected \(start, stop\), found 3"),
    ],
)
def test_a_merge_that_can_not_be_is_refused_when_made(arguments, text):
    with pytest.raises(WiringError, match=text):
        MergeModule(*arguments)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: LinearModule(10, 16)({"input": torch.ones(4, 9)}), r"reads 'input' as \(…, 10\), found \(4, 9\)"),
        (lambda: Conv2dModule(3, 4, 3)({"input": torch.ones(2, 8, 8, 3)}), r"\(…, 3, any, any\), found \(2, 8, 8, 3\)"),
        (lambda: LSTMModule(3, 4)({"input": torch.ones(2, 4)}), r"reads 'input' as \(…, 3\), found \(2, 4\)"),
        (
            lambda: LSTMModule(3, 4)({"input": torch.ones(3)}),
            r"must be a step \(B, …\) or a sequence .*, found \(3,\)",
        ),
        (
            lambda: MergeModule(["a", "b"], "add")({"a": torch.ones(2, 3), "b": torch.ones(2, 4)}),
            r"add can't merge 'a' \(2, 3\), 'b' \(2, 4\)",
        ),
        (
            lambda: MergeModule(["a", "b"], slices={"a": (0, 9)})({"a": torch.ones(2, 3), "b": torch.ones(2, 4)}),
            r"'a' \(2, 3\), 'b' \(2, 4\) with slices \[\(0, 9\), None\]",
        ),
    ],
)
def test_an_input_of_another_shape_is_named(call, text):
    with pytest.raises(ShapeError, match=text):
        call()


def test_what_else_fails_goes_on_as_it_is():
    with pytest.raises(RuntimeError, match="dtype"):
        LinearModule(3, 4)({"input": torch.ones(2, 3, dtype=torch.float64)})
    with pytest.raises(KeyError, match="missing input key 'input'; there are: x"):
        LinearModule(3, 4)({"x": torch.ones(2, 3)})
    with pytest.raises(TypeError, match="takes a mapping or a TensorDict, found Tensor"):
        LinearModule(3, 4)(torch.ones(2, 3))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LinearModule(3, 0), "out_features: must be > 0, found 0"),
        (lambda: LSTMModule(3, 4, hiden=2), "hiden: unknown option of 'lstm'"),
        (lambda: ActivationModule("reluu"), "did you mean 'relu'"),
    ],
)
def test_wrong_options_are_problems_of_the_configuration(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


class Doubled(LinearModule):
    """Overrides what is computed."""

    def compute(self, *tensors):
        return 2 * super().compute(*tensors)


class Opaque(LinearModule):
    """Overrides forward(mapping) itself, and touches more than its keys."""

    def forward(self, mapping):
        mapping["seen"] = mapping["input"].sum()
        return super().forward(mapping)


@pytest.mark.parametrize("kind", [Doubled, Opaque])
def test_a_subclass_says_what_it_does_in_containers_and_in_the_plan_of_a_policy(kind):
    module = kind(4, 8, in_keys=["observation"], out_keys=["trunk"]) if kind is Doubled else None
    if module is None:
        module = Opaque(4, 8)
        mapping = ComponentContainer({"trunk": module}).execute({"input": torch.ones(2, 4)})
        assert mapping["seen"] == 8
        return
    components = {
        "trunk": {"type": "nn.Linear", "out_features": 8, "in_keys": "observation"},
        "policy": {"type": "action_head", "in_keys": "trunk"},
        "state_value": {"type": "value_head", "in_keys": "trunk"},
    }
    config = {"model": {"type": "graph", "components": components}}
    policy = policysmith.build(config, spaces.Box(-1, 1, (4,)), spaces.Discrete(2), seed=0)
    x = torch.randn(3, 4)
    policy(x)
    policy.replace_component("trunk", module)
    logits, _ = policy(x)
    trunk = 2 * nn.functional.linear(x, module.module.weight, module.module.bias)
    torch.testing.assert_close(logits, policy.components["policy"].module(trunk))
    torch.testing.assert_close(logits, policy.slow("forward", x)[0])


@pytest.mark.parametrize(("kind", "keys"), [(LSTMModule, ("h", "c")), (GRUModule, ("h",))])
def test_a_memory_threads_its_state_and_stepping_equals_the_sequence(kind, keys):
    module = kind(6, 5, num_layers=2, name="memory")
    x = torch.randn(3, 7, 6)
    first = torch.rand(3, 7) < 0.3
    whole = module({"input": x, "is_init": first})
    state, outputs = {}, []
    for t in range(7):
        step = module({"input": x[:, t], "is_init": first[:, t], **state})
        outputs.append(step["output"])
        state = {f"memory/{key}": step[f"memory/{key}"] for key in keys}
        assert all(tensor.shape == (3, 2, 5) for tensor in state.values())
    torch.testing.assert_close(whole["output"], torch.stack(outputs, 1))
    for key, tensor in state.items():
        torch.testing.assert_close(whole[key], tensor)


def test_a_reset_forgets_whatever_was_there_and_nothing_is_kept_inside():
    module = LSTMModule(6, 5)
    x = torch.randn(2, 6)
    fresh = module({"input": x})["output"]
    garbage = {"output/h": torch.full((2, 1, 5), torch.nan), "output/c": torch.full((2, 1, 5), torch.nan)}
    again = module({"input": x, "is_init": torch.ones(2, 1, dtype=torch.bool), **garbage})["output"]
    assert torch.equal(fresh, again)
    assert not list(module.buffers())


def test_a_tensordict_of_sequences_holds_the_state_of_every_step():
    module = LSTMModule(6, 5)
    x, start = torch.randn(2, 7, 6), {"output/h": torch.randn(2, 1, 5), "output/c": torch.randn(2, 1, 5)}
    states = {key: tensor.unsqueeze(1).expand(-1, 7, -1, -1) for key, tensor in start.items()}
    data = module(TensorDict({"input": x, **states}, [2, 7]))
    assert torch.equal(data["output"], module({"input": x, **start})["output"])
    assert torch.equal(data["output/h"], states["output/h"])


def test_modules_stand_in_a_container_in_any_order():
    container = ComponentContainer(
        {
            "head": LinearModule(8, 2, in_keys=["merged"], out_keys=["y"]),
            "both": MergeModule(["a", "b"], "add"),
            "right": LinearModule(4, 8, in_keys=["x"], out_keys=["b"]),
            "left": LinearModule(4, 8, in_keys=["x"], out_keys=["a"]),
        }
    )
    result = container.execute({"x": torch.randn(2, 3, 4)})
    assert result["y"].shape == (2, 3, 2)
    assert list(container.state_dict())[:2] == ["head.weight", "head.bias"]


def test_the_public_modules_bring_their_parts_along():
    code = (
        "import policysmith as p, sys; p.LinearModule(3, 4); p.ActorModule(3, 4); p.MergeModule(['a', 'b']); "
        "print('policysmith.api' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def test_all_of_them_are_part_modules_or_memories():
    for module in (made(name)[0] for name in MODULES):
        assert isinstance(module, PartModule)
