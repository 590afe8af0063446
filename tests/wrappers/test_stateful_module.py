"""StatefulModule: state is an argument and a result; sequences are what their steps are."""

import subprocess
import sys

import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import nn

import policysmith
from policysmith.errors import ConfigError, WiringError
from policysmith.graph import Component
from policysmith.parts import GRU, LSTM
from policysmith.wrappers import RegularizedModule, SafeModule, StatefulModule, WeightMonitoringModule

from .parts import COPIERS, chain, graph, observations, policy_of

B, T = 4, 7


class Sum(Component):
    """A manager with a weight: what was put out so far, fading."""

    def __init__(self):
        super().__init__(["current_total", "output"], ["next_total"])
        self.fade = nn.Parameter(torch.tensor(0.5))

    def initial_state(self, batch):
        return {"total": torch.ones(batch, 3)}

    def compute(self, current, output):
        return self.fade * current + output


class Reader(Component):
    """A component that reads its state."""

    def __init__(self):
        super().__init__(["input", "current_total"], ["output"])
        self.linear = nn.Linear(4, 3)

    def compute(self, x, total):
        return self.linear(x) + total


KINDS = {
    "manager": lambda: StatefulModule(chain(4, 3), Sum()),
    "reader": lambda: StatefulModule(ReaderOf(), Sum()),
    "gru": lambda: StatefulModule(chain(4, 3), GRU(3, 5)),
    "lstm": lambda: StatefulModule(chain(4, 3), LSTM(3, 5, num_layers=2)),
    "wrapped": lambda: SafeModule(StatefulModule(RegularizedModule(chain(4, 3)), GRU(3, 5))),
    "two": lambda: StatefulModule(StatefulModule(chain(4, 3), GRU(3, 3)), Sum()),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


class ReaderOf(Reader):
    """The reader as a wrapper sees it: the state is no input of the graph's."""

    def __init__(self):
        super().__init__()
        self.in_keys = ["input"]

    def forward(self, mapping):
        mapping["output"] = self.compute(mapping["input"], mapping["current_total"])
        return mapping


def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(B, T, 4, generator=generator), torch.rand(B, T, generator=generator) < 0.3


def random_state(component):
    generator = torch.Generator().manual_seed(1)
    state = component.initial_state(B)
    return {f"output/{n}": torch.randn(t.shape, generator=generator, dtype=torch.float64) for n, t in state.items()}


def stepped(component, x, first, state):
    outputs = []
    for t in range(T):
        result = component({"input": x[:, t], "is_init": first[:, t], **state})
        outputs.append(result["output"])
        state = {key: result[key] for key in state}
    return torch.stack(outputs, 1), state


@every_kind
def test_a_sequence_is_its_steps_in_values_and_gradients(kind):
    torch.manual_seed(0)
    component = KINDS[kind]().double()
    (x, first), state = inputs(), random_state(component)
    y, after = stepped(component, x.double(), first, state)
    found = component({"input": x.double(), "is_init": first, **state})
    torch.testing.assert_close(found["output"], y)
    for key, tensor in after.items():
        torch.testing.assert_close(found[key], tensor)
    gradients = []
    for output in (y, found["output"]):
        component.zero_grad()
        output.square().sum().backward()
        gradients.append({n: p.grad.clone() for n, p in component.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) >= 2
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


@every_kind
def test_what_lies_before_an_episode_is_not_seen_not_even_a_nan(kind):
    torch.manual_seed(0)
    component = KINDS[kind]()
    x, first = inputs()
    first[:, 0] = True
    clean = component({"input": x, "is_init": first})
    garbage = {key: torch.full_like(t, torch.nan).float() for key, t in random_state(component).items()}
    found = component({"input": x, "is_init": first, **garbage})
    assert torch.equal(found["output"], clean["output"])
    one = component({"input": x[:, 0], "is_init": first[:, 0], **garbage})
    torch.testing.assert_close(one["output"], clean["output"][:, 0])


def test_an_absent_state_is_the_initial_one_and_nothing_is_kept():
    component = KINDS["manager"]()
    x = inputs()[0][:, 0]
    first, again = component({"input": x}), component({"input": x})
    torch.testing.assert_close(first["output/total"], 0.5 + first["output"])
    assert torch.equal(first["output/total"], again["output/total"])


def test_a_tensordict_steps_and_holds_the_state_of_every_step():
    torch.manual_seed(0)
    component = KINDS["manager"]()
    x, first = inputs()
    one = component(TensorDict({"input": x[:, 0], "is_init": first[:, :1]}, [B]))
    assert one["output/total"].shape == (B, 3)
    data = TensorDict({"input": x, "is_init": first.unsqueeze(-1), "output/total": torch.ones(B, T, 3)}, [B, T])
    found = component(data)
    expected = component({"input": x, "is_init": first, "output/total": torch.ones(B, 3)})
    torch.testing.assert_close(found["output"], expected["output"])
    torch.testing.assert_close(found["next_total"][:, -1], expected["output/total"])


@pytest.mark.parametrize("kind", ["manager", "gru"])
@pytest.mark.parametrize("sink", [False, True], ids=["mapping", "sink"])
def test_what_is_reported_inside_counts_once_a_sequence(kind, sink):
    manager = {"manager": Sum, "gru": lambda: GRU(3, 5)}[kind]()
    module = chain(4, 3)
    component = StatefulModule(RegularizedModule(module, 0.1), manager)
    x, first = inputs()
    mapping = {"input": x, "is_init": first, **({"aux": {}} if sink else {})}
    result = component(mapping)
    found = (mapping["aux"] if sink else result)["regularization_loss"]
    torch.testing.assert_close(found, 0.1 * sum(p.square().sum() for p in module.parameters()))


@pytest.mark.parametrize("outer", [lambda m: m, SafeModule, lambda m: WeightMonitoringModule(SafeModule(m))])
def test_the_managers_weights_are_named_trained_moved_stored_and_loaded(outer):
    component = outer(StatefulModule(chain(4, 3), Sum()))
    names = ["0.weight", "0.bias", "state_manager.fade"]
    assert sorted(component.state_dict()) == sorted(names)
    assert sorted(n for n, _ in component.named_parameters()) == sorted(names)
    assert component.double().eval().state_dict()["state_manager.fade"].dtype == torch.float64
    other = outer(StatefulModule(chain(4, 3), Sum())).double()
    with torch.no_grad():
        for p in component.parameters():
            p.add_(1)
    other.load_state_dict(component.state_dict())
    assert all(torch.equal(t, component.state_dict()[n]) for n, t in other.state_dict().items())
    assert not any(m.training for n, m in component.named_modules() if n.startswith("state_manager"))
    with pytest.raises(RuntimeError, match=r"Missing key.*state_manager"):
        other.load_state_dict(chain(4, 3).state_dict())
    with pytest.raises(RuntimeError, match=r"Unexpected key.*state_manager"):
        other.load_state_dict({**component.state_dict(), "state_manager.more": torch.ones(1)})
    model = nn.ModuleDict({"part": component})
    assert [n for n, _ in model.named_parameters()] == [f"part.{n}" for n, _ in component.named_parameters()]
    nn.ModuleDict({"part": other}).load_state_dict(model.state_dict())


@pytest.mark.parametrize("copier", COPIERS)
def test_a_copy_has_a_manager_of_its_own(copier):
    component = KINDS["manager"]()
    twin = COPIERS[copier](component)
    with torch.no_grad():
        twin.state_manager.fade.zero_()
    assert component.state_manager.fade == 0.5
    assert torch.equal(twin({"input": torch.ones(1, 4)})["output"], component({"input": torch.ones(1, 4)})["output"])


def test_what_manages_nothing_is_refused():
    with pytest.raises(WiringError, match="Tanh has no in_keys and no out_keys and no initial_state"):
        StatefulModule(chain(4, 3), nn.Tanh())
    with pytest.raises(WiringError, match="'mlp' keeps nothing between steps"):
        StatefulModule(chain(4, 3), "mlp", out_shape=(3,))
    with pytest.raises(WiringError, match="out_shape must tell"):
        StatefulModule(chain(4, 3), "gru")
    with pytest.raises(WiringError, match="state h of 'output' is kept already"):
        StatefulModule(StatefulModule(chain(4, 3), GRU(3, 5)), GRU(5, 5))


REMEMBERING = [{"type": "stateful", "state_manager": {"type": "gru", "hidden_size": 6}}]


def lively(policy):
    torch.manual_seed(0)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return policy


@pytest.mark.parametrize(
    "wrappers",
    [
        REMEMBERING,
        ["safe", *REMEMBERING, {"type": "regularized"}, "monitoring"],
        [{"type": "regularized"}, *REMEMBERING],
    ],
)
def test_in_a_policy_it_is_a_memory_acting_is_learning(wrappers):
    policy = lively(policy_of(wrappers)).train()
    assert list(policy.init_state(2)) == ["trunk/h"]
    assert policy.plan.edges["trunk"].shape == (6,)
    x, first = inputs()
    state = {"trunk/h": torch.randn(B, 1, 6)}
    actions, log_probs, values, now = [], [], [], dict(state)
    for t in range(T):
        action, log_prob, value, now = policy.act(x[:, t], now, first[:, t])
        for kept, new in ((actions, action), (log_probs, log_prob), (values, value)):
            kept.append(new)
    found = policy.evaluate(x, torch.stack(actions, 1), state, first)
    torch.testing.assert_close(found[0], torch.stack(log_probs, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[2], torch.stack(values, 1), rtol=1e-4, atol=1e-5)
    assert policy.plan.parameter_count == sum(p.numel() for p in policy.parameters())


def test_in_a_policy_losses_inside_are_reported_once():
    policy = policy_of([{"type": "regularized", "l2_scale": 0.1}, *REMEMBERING]).train()
    x, first = inputs()
    *_, aux = policy.evaluate(x, torch.zeros(B, T, dtype=torch.int64), None, first, return_aux=True)
    trunk = [p for n, p in policy.components["trunk"].named_parameters() if "state_manager" not in n]
    torch.testing.assert_close(aux["regularization_loss"], 0.1 * sum(p.square().sum() for p in trunk))


def test_a_stored_policy_with_one_loads(tmp_path):
    policy = lively(policy_of(REMEMBERING)).eval()
    policysmith.save(policy, tmp_path / "policy")
    twin = policysmith.load(tmp_path / "policy")
    state = policy.init_state(5)
    torch.testing.assert_close(
        twin.act(observations(), state, deterministic=True), policy.act(observations(), state, deterministic=True)
    )


def test_a_head_must_stay_what_it_is():
    model = graph(head_wrappers=REMEMBERING)
    with pytest.raises(ConfigError, match=r"policy\.wrappers: they change what a head gives from \(2,\) to \(6,\)"):
        policysmith.build(model, spaces.Box(-1, 1, (4,)), spaces.Discrete(2))


@pytest.mark.slow
def test_a_memory_can_be_named_where_nothing_else_was_imported():
    code = (
        "from torch import nn; from policysmith.graph import TensorComponent; from policysmith.wrappers import *; "
        "StatefulModule(TensorComponent(nn.Linear(8, 3), ['input'], ['output']), 'gru', out_shape=(3,))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
