"""ActorCriticMoE: experts by task id, each with weights of its own."""

import math
import pickle
from copy import deepcopy

import pytest
import torch
from torch import nn

from policysmith.errors import ShapeError
from policysmith.parts.task_experts import ExpertNetwork
from policysmith.policy import ActorCriticProtocol
from policysmith.skills import ActorCriticMoE


def small(num_tasks=4, **options):
    torch.manual_seed(0)
    return ActorCriticMoE(5, 16, num_tasks=num_tasks, in_features=6, **options)


def lively(model):
    """Weights that tell experts and rows apart."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return model


def dense_twin(model, x, task):
    """As the original computes: every expert on every row, weighted by a one-hot of the task."""
    hot = torch.nn.functional.one_hot(task, model.num_tasks).to(x.dtype)
    results = []
    for role in ("actor", "critic"):
        outputs = [model.get_submodule(f"{role}_networks_{i}")(x) for i in range(model.num_tasks)]
        results.append(torch.einsum("be,ebo->bo", hot, torch.stack(outputs)))
    return results[0], results[1].squeeze(-1)


def gradients(model, outputs):
    model.zero_grad()
    weights = [torch.linspace(-1, 1, o.numel()).reshape(o.shape) for o in outputs]
    sum((o * w).sum() for o, w in zip(outputs, weights, strict=True)).backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("tasks", [[2], [3, 0, 3, 1, 0, 2, 3], [1, 1, 1], [0, 3] * 20], ids=str)
def test_it_equals_the_dense_twin_in_values_and_gradients(tasks):
    model, task = lively(small()), torch.tensor(tasks)
    x = torch.randn(len(tasks), 6)
    found, wanted = model(x, task), dense_twin(model, x, task)
    torch.testing.assert_close(found, wanted)
    ours, theirs = gradients(model, found), gradients(model, wanted)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], msg=name)


def test_compiled_to_fixed_shapes_it_gives_the_same():
    model = lively(small())
    x, task = torch.randn(7, 6), torch.tensor([3, 0, 3, 1, 0, 2, 3])
    program = torch.export.export(model, (x, task))
    torch.testing.assert_close(program.module()(x, task), model(x, task))


def test_shapes_and_names():
    model = small(num_tasks=12)
    logits, value = model(torch.randn(3, 6), torch.tensor([0, 11, 5]))
    assert logits.shape == (3, 5) and value.shape == (3,)
    names = set(dict(model.named_parameters()))
    assert names == {
        f"{role}_networks_{i}.layers_{layer}.{kind}"
        for role in ("actor", "critic")
        for i in range(12)
        for layer in (0, 2, 4, 6)
        for kind in ("weight", "bias")
    }
    assert set(model.state_dict()) == names


def test_the_size_of_an_expert_is_the_originals():
    for features, actions, wanted in ((8268, 43, 9_540_652), (1345, 17, 2_438_162)):
        with torch.device("meta"):
            networks = [ExpertNetwork(features, outputs, 512, 4, "tanh", "hidden") for outputs in (actions, 1)]
        assert sum(p.numel() for network in networks for p in network.parameters()) == wanted
    with pytest.raises(ValueError, match="num_layers=0"):
        ExpertNetwork(4, 2, 8, 0, "tanh", "hidden")


def test_layers_start_orthogonal_with_the_gains_of_their_roles():
    model = small()
    for role, last in (("actor", 0.01), ("critic", 1.0)):
        network = model.get_submodule(f"{role}_networks_2")
        for index, gain in ((0, math.sqrt(2)), (2, math.sqrt(2)), (4, math.sqrt(2)), (6, last)):
            layer = network.get_submodule(f"layers_{index}")
            torch.testing.assert_close(torch.linalg.svdvals(layer.weight) / gain, torch.ones(min(layer.weight.shape)))
            assert not layer.bias.any()
    first, second = (model.get_submodule(f"actor_networks_{i}.layers_0").weight for i in (0, 1))
    assert not torch.equal(first, second), "experts start apart"


def test_only_the_experts_asked_for_compute():
    model, called = small(), []
    for name, module in model.named_children():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    model(torch.randn(8, 6), torch.tensor([2, 0] * 4))
    assert called == ["actor_networks_0", "actor_networks_2", "critic_networks_0", "critic_networks_2"]
    called.clear()
    model.get_value({"observation": torch.randn(2, 6), "task": torch.tensor([1, 1])})
    assert called == ["critic_networks_1"]


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("dense", [False, True])
def test_a_nan_in_one_expert_stays_there(rows, dense, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: dense)
    model = lively(small())
    with torch.no_grad():
        for parameter in [*model.actor_networks_1.parameters(), *model.critic_networks_1.parameters()]:
            parameter.fill_(torch.nan)
    task = torch.arange(rows) % 3
    x = torch.randn(rows, 6)
    logits, value = model(x, task)
    assert torch.equal(logits.isnan().any(-1), task == 1) and torch.equal(value.isnan(), task == 1)
    grads = gradients(model, (logits[task != 1], value[task != 1]))
    assert all(g.isfinite().all() for name, g in grads.items() if "_networks_1." not in name)


@pytest.mark.parametrize("ids", [[4], [-1], [0, 4], [0, -1, 2]], ids=str)
def test_an_id_out_of_range_is_refused_and_not_clamped(ids):
    with pytest.raises(ValueError, match=rf"task id {min(ids) if min(ids) < 0 else 4} is out of range.*0 to 3"):
        small()(torch.randn(len(ids), 6), torch.tensor(ids))


def test_ids_of_another_kind_or_shape_are_refused():
    model, x = small(), torch.randn(2, 6)
    for ids in (torch.tensor([0.0, 1.0]), torch.tensor([True, False])):
        with pytest.raises(ValueError, match="whole numbers"):
            model(x, ids)
    with pytest.raises(ValueError, match=r"shape \(1,\) for rows of shape \(2, 6\)"):
        model(x, torch.tensor([0]))
    with pytest.raises(ShapeError, match="task of each row is missing"):
        model(x)
    with pytest.raises(ShapeError, match=r"shape \(2, 7\), expected \(B, 6\)"):
        model(torch.randn(2, 7), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="num_tasks=0: must be at least 1"):
        small(num_tasks=0)
    with pytest.raises(ValueError, match="num_layers=0"):
        small(num_layers=0)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_idle_experts_do_not_move_by_a_bit_and_have_no_moments(kind):
    model = ActorCriticMoE(4, 8, num_tasks=51, in_features=6)
    optimizer = kind(model.parameters(), lr=0.1)

    def step(*tasks):
        x, task = torch.randn(16, 6), torch.tensor(tasks).repeat(16)[:16]
        logits, value = model(x, task)
        optimizer.zero_grad()
        (logits.square().mean() + value.square().mean()).backward()
        optimizer.step()

    step(0, 7, 50)
    before = deepcopy(model.state_dict())
    step(7, 50)
    moved = {name.split(".")[0] for name, p in model.state_dict().items() if not torch.equal(p, before[name])}
    assert moved == {f"{role}_networks_{i}" for role in ("actor", "critic") for i in (7, 50)}
    assert len(optimizer.state) == 3 * 2 * 8, "moments of the experts used so far, and of no others"


def test_it_speaks_the_protocol():
    model = lively(small())
    assert isinstance(model, ActorCriticProtocol)
    obs = {"observation": torch.randn(64, 6), "task": torch.arange(64) % 4}
    logits, value = model(obs)
    torch.manual_seed(3)
    action, log_prob, v = model.get_action_and_value(obs)
    again, entropy, v2 = model.evaluate_actions(obs, action)
    torch.testing.assert_close((log_prob, v, v2), (again, value, value))
    categorical = torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close((log_prob, entropy), (categorical.log_prob(action), categorical.entropy()))
    torch.testing.assert_close(model.get_value(obs), value)
    assert torch.equal(model.get_action_and_value(obs, deterministic=True)[0], logits.argmax(-1))


def test_illegal_actions_are_never_chosen():
    model = lively(small())
    mask = torch.tensor([False, True, False, False, True])
    obs = {"observation": torch.randn(64, 6), "task": torch.arange(64) % 4}
    for actions in (
        model.get_action_and_value(obs, mask)[0],
        model.get_action_and_value({**obs, "action_mask": mask.expand(64, 5)})[0],
    ):
        assert set(actions.tolist()) == {1, 4}


def test_features_are_inferred_at_the_first_call():
    model = ActorCriticMoE(3, 8, num_tasks=3)
    assert any(isinstance(p, nn.UninitializedParameter) for p in model.parameters())
    model(torch.randn(2, 10), torch.tensor([0, 0]))
    assert not any(isinstance(p, nn.UninitializedParameter) for p in model.parameters())
    first = model.get_submodule("critic_networks_2.layers_0").weight
    assert first.shape == (8, 10), "experts that the call did not ask for have their size, too"
    torch.testing.assert_close(torch.linalg.svdvals(first), torch.full((8,), math.sqrt(2)))
    with pytest.raises(ShapeError, match=r"expected \(B, 10\)"):
        model(torch.randn(2, 9), torch.tensor([0, 0]))


def test_weights_loaded_before_the_first_call_stay():
    trained = lively(small())
    model = ActorCriticMoE(5, 16, num_tasks=4)
    model.load_state_dict(trained.state_dict())
    x, task = torch.randn(5, 6), torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(model(x, task), trained(x, task), rtol=0, atol=0)


def test_it_copies_pickles_and_takes_empty_batches():
    model, x, task = lively(small()), torch.randn(5, 6), torch.tensor([0, 1, 2, 3, 0])
    for twin in (deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(x, task), model(x, task), rtol=0, atol=0)
    logits, value = model(x[:0], task[:0])
    assert logits.shape == (0, 5) and value.shape == (0,)
