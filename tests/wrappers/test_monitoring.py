"""WeightMonitoringModule: it tells how weights are, and clips them between optimiser steps, never in a forward."""

import copy
import math

import pytest
import torch
from torch import nn

from policysmith.graph import TensorComponent
from policysmith.training.optim.optimizers import Optimizers
from policysmith.wrappers import SafeModule, WeightMonitoringModule
from policysmith.wrappers.health import effective_rank, weight_matrices

from .parts import chain

X = torch.ones(2, 4)
CONVOLUTIONS = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), lambda w, o: w[o]),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3), lambda w, o: w[o]),
    "conv2d grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), lambda w, o: w[o]),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3), lambda w, o: w[:, o]),
    "transposed grouped": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), lambda w, o: w[2 * (o // 3) :][:2, o % 3]),
    "linear": (lambda: nn.Linear(4, 6), lambda w, o: w[o]),
}


def monitor(module, **options):
    return WeightMonitoringModule(TensorComponent(module, ["input"], ["output"]), **options)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_unit_is_dead_when_all_of_its_weights_are_zero(kind):
    """Of a convolution: every entry of an output channel, not one column of its kernel."""
    make, channel = CONVOLUTIONS[kind]
    module = make()
    with torch.no_grad():
        module.weight.abs_().add_(0.1)
        module.weight[..., 0] = 0.0  # zeros, but no dead unit
        if kind != "linear":
            module.weight[:, :, 0] = 0.0
        assert monitor(module).metrics()["weight/dead_units"] == 0
        for unit in (1, 4):
            channel(module.weight, unit).zero_()
    assert monitor(module).metrics()["weight/dead_units"] == 2


def test_norms_and_spectra_are_those_of_the_matrix():
    module = nn.Linear(4, 3)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[3.0, 0, 0, 0], [0, -4, 0, 0], [0, 0, 0, 0]]))
    found = monitor(module).metrics(spectra=True)
    entropy = -sum(p * math.log(p) for p in (3 / 7, 4 / 7))
    expected = {"dead_units": 1, "norm": 5, "largest": 4, "singular_value": 4, "effective_rank": math.exp(entropy)}
    assert {name: pytest.approx(value, rel=1e-5) for name, value in expected.items()} == {
        name.removeprefix("weight/"): value for name, value in found.items()
    }
    assert set(monitor(module).metrics()) == {"weight/dead_units", "weight/norm", "weight/largest"}


def test_effective_rank_counts_equal_directions_and_none_of_zeros():
    assert float(effective_rank(torch.ones(5))) == pytest.approx(5)
    assert float(effective_rank(torch.tensor([2.0, 0, 0]))) == pytest.approx(1)
    assert float(effective_rank(torch.zeros(3))) == 0


def test_every_matrix_is_named_as_in_the_state_and_shared_ones_are_seen_once():
    linear = nn.Linear(4, 4)
    module = nn.Sequential(linear, nn.Tanh(), linear, nn.LayerNorm(4), nn.Embedding(3, 2))
    assert [name for name, _ in weight_matrices(monitor(module))] == ["0.weight", "4.weight"]


def test_what_is_wrong_goes_to_the_log_once_until_it_changes(caplog, capsys):
    module = nn.Linear(4, 3)
    watched = monitor(module, every=1)
    watched({"input": X})
    assert not caplog.records
    with torch.no_grad():
        module.weight[1] = 0
    for _ in range(3):
        watched({"input": X})
    assert [r.message for r in caplog.records] == ["weight: 1 dead units"]
    assert caplog.records[0].name == "policysmith.wrappers.monitoring"
    with torch.no_grad():
        module.weight[0] = 99.0
    watched({"input": X})
    assert caplog.records[-1].message == "weight: large norm 198, 1 dead units"
    with torch.no_grad():
        module.weight[0, 0] = torch.nan
    watched({"input": X})
    assert caplog.records[-1].message.startswith("weight: NaN or Inf among its weights")
    assert capsys.readouterr().out == ""


def looks(watched, monkeypatch):
    """Counts how often a monitor looks at its weights."""
    seen = []
    monkeypatch.setattr(type(watched), "check_health", lambda self: seen.append(1))
    return seen


def test_forwards_in_training_look_now_and_then(monkeypatch):
    watched = monitor(nn.Linear(4, 3), every=3)
    seen = looks(watched, monkeypatch)
    for _ in range(7):
        watched({"input": X})
    assert len(seen) == 3, "the 1st, 4th and 7th"
    watched.eval()
    for _ in range(7):
        watched({"input": X})
    assert len(seen) == 3


def test_attached_it_looks_after_steps_and_forwards_do_not(monkeypatch):
    watched = monitor(nn.Linear(4, 3), every=2)
    seen = looks(watched, monkeypatch)
    optimizer = torch.optim.SGD(watched.parameters(), 0.1)
    with watched.attach(optimizer):
        for _ in range(4):
            watched({"input": X})
        assert not seen
        for _ in range(4):
            optimizer.step()
        assert len(seen) == 2
        assert copy.deepcopy(watched)._watch.attached == 0
    optimizer.step()
    assert len(seen) == 2
    watched({"input": X})
    assert len(seen) == 3, "the 5th of its calls"


def test_without_monitor_health_it_never_looks(monkeypatch):
    watched = monitor(nn.Linear(4, 3), monitor_health=False, every=1)
    seen = looks(watched, monkeypatch)
    optimizer = torch.optim.SGD(watched.parameters(), 0.1)
    with watched.attach(optimizer):
        watched({"input": X})
        optimizer.step()
    assert not seen


def gradient_of(wrap):
    """The gradient of a loss that reads the weight twice, in a forward with weights far beyond the clip."""
    module = chain(1, 1)
    with torch.no_grad():
        module.module[0].weight.fill_(5.0)
        module.module[0].bias.fill_(0.0)
    component = wrap(module).train()
    y = component({"input": torch.ones(1, 1, requires_grad=True)})["output"]
    loss = (y * y * y).sum()
    loss.backward()
    return module.module[0].weight.grad.item(), module.module[0].weight.item()


def test_gradients_with_clipping_are_those_without():
    assert gradient_of(lambda m: WeightMonitoringModule(m, clip_value=1.0, every=1)) == gradient_of(lambda m: m)


def test_a_forward_changes_no_weight():
    module = chain(4, 8, 3)
    before = {n: t.clone() for n, t in module.state_dict().items()}
    versions = [p._version for p in module.parameters()]
    WeightMonitoringModule(module, clip_value=1e-3, every=1).train()({"input": X})
    assert all(torch.equal(before[n], t) for n, t in module.state_dict().items())
    assert [p._version for p in module.parameters()] == versions


OPTIMIZERS = {
    "torch's": lambda parameters: torch.optim.Adam(parameters, 1.0),
    "fused": lambda parameters: torch.optim.Adam(parameters, 1.0, fused=True),
    "ours": lambda parameters: Optimizers.of(parameters, 1.0),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_attached_it_clips_after_every_step_until_removed(kind):
    module = chain(4, 3)
    watched = SafeModule(WeightMonitoringModule(module, clip_value=0.3))
    optimizer = OPTIMIZERS[kind](list(watched.parameters()))

    def step():
        loss = watched({"input": X})["output"].sum()
        if kind == "ours":
            optimizer.step(loss)
        else:
            loss.backward()
            optimizer.step()

    attachment = watched.attach(optimizer)  # of the outermost, which hands it on
    step()
    assert module.module[0].weight.abs().max().item() == pytest.approx(0.3)
    assert module.module[0].bias.abs().max() > 0.3, "vectors are left alone"
    attachment.remove()
    attachment.remove()
    step()
    assert module.module[0].weight.abs().max() > 0.3


def test_clipping_by_hand_spares_what_is_frozen():
    module = chain(4, 8, 3)
    with torch.no_grad():
        for p in module.parameters():
            p.fill_(2.0)
    module.module[0].requires_grad_(False)
    WeightMonitoringModule(module, clip_value=0.5).clip_weights()
    assert [p.max().item() for p in module.parameters()] == [2.0, 2.0, 0.5, 2.0]
    WeightMonitoringModule(module).clip_weights()


@pytest.mark.parametrize("options", [{"clip_value": 0.0}, {"clip_value": -1.0}, {"every": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        WeightMonitoringModule(chain(4, 3), **options)


def test_a_component_without_weights_is_fine():
    watched = monitor(nn.Tanh(), clip_value=1.0, every=1)
    watched({"input": X})
    watched.clip_weights()
    assert watched.metrics(spectra=True) == {}
