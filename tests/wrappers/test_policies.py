"""Wrappers inside policies: stated in a configuration, planned, compiled around, trained, swapped and stored."""

import pytest
import torch
from gymnasium import spaces
from torch import nn

import policysmith
from policysmith.errors import ConfigError, WiringError
from policysmith.graph import TensorComponent, build_model
from policysmith.registry import default_registry
from policysmith.wrappers import (
    Frozen,
    LoRA,
    RegularizedModule,
    SafeModule,
    WeightMonitoringModule,
    attach_all,
    metrics_of,
)

from .parts import COPIERS, graph, observations, policy_of

ALL = [
    {"type": "safe", "action_bounds": [-1, 1]},
    {"type": "regularized", "l2_scale": 0.001},
    {"type": "monitoring", "clip_value": 1.0},
    "frozen",
    {"type": "lora", "rank": 4},
]
THREE = ALL[:3]
SPACES = spaces.Box(-1, 1, (4,)), spaces.Discrete(2)
ACTIONS = torch.tensor([0, 1, 0, 1, 1])


def problems(wrappers, **options):
    with pytest.raises(ConfigError) as caught:
        policysmith.build(graph(wrappers, **options), *SPACES)
    return {p.path: p.message for p in caught.value.problems}


def test_they_are_registered_and_stand_in_the_order_of_the_text():
    assert default_registry.names("wrapper") == ["frozen", "lora", "monitoring", "regularized", "safe", "stateful"]
    component, found = policy_of(ALL).components["trunk"], []
    while not isinstance(component, TensorComponent):
        found.append(type(component))
        component = component.module
    assert found == [LoRA, Frozen, WeightMonitoringModule, RegularizedModule, SafeModule]


def test_a_yaml_file_states_them(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text(
        "model:\n"
        "  type: graph\n"
        "  components:\n"
        "    trunk:\n"
        "      type: mlp\n"
        "      in_keys: observation\n"
        "      wrappers: [{type: safe, action_bounds: [-1, 1], output_specs: {trunk: [null, 64]}},\n"
        "                 {type: regularized, l2_scale: 0.001}, {type: monitoring, clip_value: 1.0},\n"
        "                 frozen, {type: lora, rank: 4}]\n"
        "    policy: {type: action_head, in_keys: trunk}\n"
        "    state_value: {type: value_head, in_keys: trunk, wrappers: [safe]}\n"
    )
    policy = policysmith.build(file, *SPACES)
    assert policy.components["trunk"].module.module.module.module.action_bounds == (-1, 1)
    file.write_text(file.read_text().replace("rank: 4", "rank: 0").replace("l2_scale", "l2scale"))
    found = [str(p) for p in policysmith.check(file, observation_space=SPACES[0], action_space=SPACES[1])]
    assert any("policy.yaml:8" in p and "did you mean 'l2_scale'" in p for p in found)
    assert any("policy.yaml:9" in p and "must be > 0" in p for p in found)


def test_what_does_not_fit_is_a_problem_at_its_place_before_anything_is_built():
    head = "model.components.trunk.wrappers"
    assert (
        "no linear layer matches 'head.*'; there are: '0'"
        in problems(["safe", {"type": "lora", "target": "head.*"}])[f"{head}.1"]
    )
    spec = {"type": "safe", "input_specs": {"observation": [None, 5]}}
    assert "around 'mlp' they fail: Shape mismatch for input 'observation'" in problems([spec])[head]
    spec = {"type": "safe", "output_specs": {"trank": [None, 8]}}
    assert "did you mean 'trunk'" in problems([spec])[f"{head}.0"]
    assert "low 1.0 lies above" in problems([{"type": "safe", "action_bounds": [1.0, -1.0]}])[f"{head}.0"]
    assert "expected nn.Module" not in str(problems([{"type": "safe", "module": 3}]))


def test_wrappers_about_weights_belong_to_who_owns_them():
    second = {"use": "trunk", "in_keys": "observation"}
    for wrapper in ("frozen", "lora", {"type": "stateful", "state_manager": {"type": "gru", "hidden_size": 8}}):
        other = {
            "second": {**second, "wrappers": [wrapper]},
            "state_value": {"type": "value_head", "in_keys": "second"},
        }
        assert (
            "these are those of 'trunk': wrap that one" in problems([], **other)["model.components.second.wrappers.0"]
        )
    other = {"second": {**second, "wrappers": ["safe"]}, "state_value": {"type": "value_head", "in_keys": "second"}}
    policy = policy_of([{"type": "lora", "rank": 2}], **other)
    assert policy.plan.parameter_count == sum(p.numel() for p in policy.parameters())


@pytest.mark.parametrize("wrappers", [[w] for w in ALL] + [ALL, THREE[::-1]], ids=str)
def test_a_new_policy_computes_what_the_bare_one_does(wrappers):
    bare, policy = policy_of().eval(), policy_of(wrappers).eval()
    for found, expected in zip(policy(observations()), bare(observations()), strict=True):
        assert torch.equal(found, expected)
    assert policy.plan.parameter_count == sum(p.numel() for p in policy.parameters())
    trainable = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    assert policysmith.describe(policy)["totals"]["trainable"] == trainable


def test_checkpoints_of_bare_and_wrapped_policies_interchange():
    bare, policy = policy_of(seed=0), policy_of(THREE, seed=1)
    assert list(policy.state_dict()) == list(bare.state_dict())
    policy.load_state_dict(bare.state_dict())
    assert torch.equal(policy.eval()(observations())[0], bare.eval()(observations())[0])
    bare.load_state_dict(policy_of(THREE, seed=2).state_dict())
    adapted = policy_of(ALL, seed=1)
    adapted.load_state_dict(bare.state_dict())
    assert torch.equal(adapted.eval()(observations())[0], bare(observations())[0])


@pytest.mark.parametrize(
    "wrappers", [ALL, THREE, ["frozen"], [{"type": "lora"}]], ids=["all", "three", "frozen", "lora"]
)
def test_compiled_code_stays_flat_around_them(wrappers):
    policy = policy_of(wrappers)
    assert "linear" in policy.code
    policy.evaluate_actions(observations(), ACTIONS, return_aux=True)
    assert all(program.graph is not None for program in policy.runner.programs[policy.training].values())


def test_a_check_in_compiled_code_is_the_live_one():
    policy = policy_of(["safe"]).eval()
    bad = torch.full((1, 4), torch.nan)
    for call in (policy, policy.get_value, policy.acting(), policy.get_action_and_value):
        with pytest.raises(ValueError, match=r"NaN \(4 of 4 values\).*input 'observation'"):
            call(bad)
    policy.components["trunk"].nan_check = False
    assert policy(bad)[0].isnan().all()


class Doubling(SafeModule):
    """A wrapper of a user's, which does more than the one it derives from."""

    def forward(self, mapping):
        result = super().forward(mapping)
        result["trunk"] = 2 * result["trunk"]
        return result


def test_a_subclass_with_a_forward_of_its_own_is_called_whole():
    policy = policy_of().eval()
    policy.components["trunk"].requires_grad_(False)
    before = policy.plan.edges["trunk"].shape, policy.components["trunk"]({"observation": observations()})["trunk"]
    seen = []
    policy.components["policy"].register_forward_pre_hook(lambda _, given: seen.append(given[0]["trunk"]))
    policy.replace_component("trunk", Doubling(policy.components["trunk"]))
    policy(observations())
    assert torch.equal(seen[0], 2 * before[1])


@pytest.mark.parametrize("key", ["move_action", "state_value"])
def test_bounds_and_limits_hold_in_compiled_code(key, caplog):
    bounded = [{"type": "safe", "action_bounds": [-0.1, 0.1], "value_limit": 0.1}]
    components = {
        key: {"type": "mlp", "in_keys": "observation", "hidden": [8], "wrappers": bounded},
        "policy": {"type": "action_head", "in_keys": key},
        "critic": {"type": "value_head", "in_keys": key},
    }
    policy = policysmith.build({"model": {"type": "graph", "components": components}}, *SPACES, seed=0).eval()
    policy.require_edges([key])
    *_, found = policy.evaluating(extra=[key])(observations(), ACTIONS)
    assert bool(found.abs().max() <= 0.1) is (key == "move_action")
    assert ("extreme values in 'state_value'" in caplog.text) is (key == "state_value")


def test_hooks_on_any_wrapper_run_and_code_is_flat_again_without_them():
    policy, calls = policy_of([{"type": "regularized"}, "monitoring"]).eval(), []
    outer = policy.components["trunk"]
    policy(observations())
    for depth, layer in enumerate((outer, outer.module, outer.module.module)):
        handle = layer.register_forward_hook(lambda *_, depth=depth: calls.append(depth))
        policy(observations())
        assert calls.pop() == depth and not calls
        handle.remove()
        policy(observations())
        assert not calls and "linear" in policy.code


def test_the_loss_is_reported_beside_outputs_in_training_mode_each_parameter_once():
    policy = policy_of(THREE, head_wrappers=[{"type": "regularized", "l2_scale": 0.1}, {"type": "regularized"}])
    assert policy.reports
    trunk, head = (policy.components[name] for name in ("trunk", "policy"))
    expected = 0.001 * sum(p.square().sum() for p in trunk.parameters())
    expected = expected + 0.01 * sum(p.square().sum() for p in head.parameters())
    *_, aux = policy.train().evaluate_actions(observations(), ACTIONS, return_aux=True)
    assert list(aux) == ["regularization_loss"]
    torch.testing.assert_close(aux["regularization_loss"], expected)
    assert policy.eval().evaluate_actions(observations(), ACTIONS, return_aux=True)[-1] == {}
    assert not policy_of(["safe", "monitoring", "frozen"]).reports


def test_losses_of_a_mixture_inside_are_reported_too():
    mixture = {"type": "transformer_stack", "dim": 8, "layers": 1, "attention": {"type": "mha", "heads": 2}}
    mixture["feedforward"] = {"type": "moe", "experts": 2}
    components = {
        "trunk": {**mixture, "in_keys": "observation", "wrappers": THREE},
        "flat": {"type": "flatten", "in_keys": "trunk"},
        "policy": {"type": "action_head", "in_keys": "flat"},
        "state_value": {"type": "value_head", "in_keys": "flat"},
    }
    policy = policysmith.build(
        {"model": {"type": "graph", "components": components}}, spaces.Box(-1, 1, (3, 4)), SPACES[1]
    )
    *_, aux = policy.train().get_action_and_value(torch.randn(5, 3, 4), return_aux=True)
    assert {"regularization_loss", "moe/load"} <= set(aux)


MEMORY = {"type": "lstm", "hidden_size": 6}


@pytest.mark.parametrize("wrappers", [THREE, THREE[::-1], ["frozen"]], ids=["three", "reversed", "frozen"])
def test_a_wrapped_memory_steps_and_unrolls_as_the_bare_one(wrappers):
    bare, policy = policy_of(trunk=MEMORY), policy_of(wrappers, trunk=MEMORY)
    obs, first = torch.randn(3, 6, 4), torch.rand(3, 6) < 0.3
    state = {key: torch.randn_like(t) for key, t in bare.init_state(3).items()}
    assert list(policy.init_state(3)) == list(bare.init_state(3)) == ["trunk/h", "trunk/c"]
    for mode in (True, False):
        one, other = (p.train(mode).act(obs[:, 0], state, first[:, 0], deterministic=True) for p in (policy, bare))
        torch.testing.assert_close(one, other)
        actions = torch.zeros(3, 6, dtype=torch.int64)
        one, other = (p.evaluate(obs, actions, state, first) for p in (policy, bare))
        torch.testing.assert_close(one, other)
    if wrappers != ["frozen"]:
        *_, aux = policy.train().evaluate(obs, actions, state, first, return_aux=True)
        expected = 0.001 * sum(p.square().sum() for p in policy.components["trunk"].parameters())
        torch.testing.assert_close(aux["regularization_loss"], expected)


def test_a_described_replacement_keeps_the_wrappers_and_a_bare_module_gets_them():
    policy = policy_of([*THREE, {"type": "lora", "rank": 2}])
    for new in ({"type": "mlp", "hidden": [8], "activation": "relu"}, default_registry.decode("component", "mlp")):
        if new != default_registry.decode("component", "mlp"):
            policy.replace_component("trunk", new, seed=1)
        else:
            policy.replace_component("trunk", new, resize=True, seed=1)
        kinds = [type(layer) for layer in nest_of(policy)]
        assert kinds == [LoRA, WeightMonitoringModule, RegularizedModule, SafeModule]
        assert [w["type"] for w in policy.config["model"]["components"]["trunk"]["wrappers"]] == [
            "safe", "regularized", "monitoring", "lora",
        ]  # fmt: skip
        policy(observations())
    policy.replace_component("trunk", {"type": "mlp", "hidden": [64], "wrappers": ["safe"]})
    assert [type(layer) for layer in nest_of(policy)] == [SafeModule]
    policy.replace_component("trunk", nn.Sequential(nn.Linear(4, 64), nn.ReLU()))
    assert [type(layer) for layer in nest_of(policy)] == [SafeModule]
    with pytest.raises(WiringError, match="no linear layer"):
        policy_of([{"type": "lora"}], trunk={"type": "nn.Linear", "out_features": 4}).replace_component(
            "trunk", nn.ReLU()
        )


def nest_of(policy):
    component, nest = policy.components["trunk"], []
    while not isinstance(component, TensorComponent):
        nest.append(component)
        component = component.module
    return nest


def test_weights_kept_across_a_swap_are_those_of_the_deltas_too():
    policy = policy_of([{"type": "lora", "rank": 2}]).eval()
    with torch.no_grad():
        policy.components["trunk"].module.module[0].lora_B.normal_()
    before = policy(observations())[0]
    policy.replace_component("trunk", {"type": "mlp", "hidden": [8]}, keep_weights=True)
    torch.testing.assert_close(policy(observations())[0], before)


def test_a_live_component_can_be_wrapped_and_unwrapped():
    policy = policy_of().train()
    before = policy(observations())
    bare = policy.components["trunk"]
    policy.replace_component("trunk", RegularizedModule(SafeModule(bare), 0.5))
    assert policy.reports
    torch.testing.assert_close(policy(observations()), before)
    *_, aux = policy.evaluate_actions(observations(), ACTIONS, return_aux=True)
    torch.testing.assert_close(aux["regularization_loss"], 0.5 * sum(p.square().sum() for p in bare.parameters()))
    policy.rollback()
    assert policy.components["trunk"] is bare and not policy.reports


@pytest.mark.parametrize("copier", COPIERS)
def test_a_copied_policy_has_wrappers_of_its_own(copier):
    policy = policy_of(ALL).eval()
    twin = COPIERS[copier](policy)
    assert torch.equal(twin(observations())[0], policy(observations())[0])
    assert twin.components["trunk"] is not policy.components["trunk"]
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert policy(observations())[1].any()


def test_a_stored_policy_has_its_wrappers_and_deltas_again(tmp_path):
    policy = policy_of(ALL).eval()
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if "lora" in name:
                p.normal_()
    policysmith.save(policy, tmp_path / "policy")
    twin = policysmith.load(tmp_path / "policy")
    assert torch.equal(twin(observations())[0], policy(observations())[0])
    assert list(twin.state_dict()) == list(policy.state_dict())
    assert [type(layer) for layer in nest_of(twin)] == [type(layer) for layer in nest_of(policy)]
    assert twin.config == policy.config


def test_attach_all_clips_what_an_optimiser_steps_and_metrics_name_the_component():
    policy = policy_of([{"type": "monitoring", "clip_value": 0.05}, "safe"])
    optimizer = torch.optim.SGD(policy.parameters(), 1.0)
    with attach_all(policy.components.values(), optimizer):
        policy.evaluate_actions(observations(), ACTIONS)[0].sum().backward()
        optimizer.step()
    assert metrics_of(policy.components)["wrappers/trunk/0.weight/largest"] == pytest.approx(0.05)


def training_config(wrappers, trunk):
    return {
        "seed": 0,
        "environment": {"id": "CartPole-v1", "num_envs": 2},
        **graph(wrappers, trunk=trunk),
        "training": {"type": "ppo", "total_steps": 64, "rollout_steps": 16, "epochs": 1, "minibatches": 1},
    }


@pytest.mark.parametrize("trunk", [{"type": "mlp", "hidden": [8]}, MEMORY], ids=["memoryless", "memory"])
def test_ppo_adds_the_loss_and_clips_between_steps(trunk, tmp_path):
    wrappers = [{"type": "regularized", "l2_scale": 100.0}, {"type": "monitoring", "clip_value": 0.05}]
    policy = policysmith.train(training_config(wrappers, trunk), progress=False, evaluate=False).policy
    weights = [p for p in policy.components["trunk"].parameters() if p.dim() > 1]
    assert all(p.abs().max() <= 0.05 for p in weights)
    other = [p for p in policy.components["policy"].parameters() if p.dim() > 1]
    assert not all(p.abs().max() <= 1e-3 for p in other)
    strong = policysmith.train(training_config(wrappers[:1], trunk), progress=False, evaluate=False).policy
    plain = policysmith.train(training_config([], trunk), progress=False, evaluate=False).policy
    sizes = [sum(p.square().sum() for p in one.components["trunk"].parameters()) for one in (strong, plain)]
    assert sizes[0] < sizes[1], "the loss pulled the weights in"


def test_a_graph_model_has_them_too():
    config = {
        "inputs": {"x": [4]},
        "components": {"a": {"type": "mlp", "in_keys": "x", "hidden": [5], "wrappers": [*THREE, {"type": "lora"}]}},
    }
    one, other = build_model(config, seed=0), build_model(config, seed=0)
    assert type(one.components["a"]) is LoRA and one.components["a"] is one.components["a"]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert torch.equal(one(observations()), one.slow(observations()))
    with pytest.raises(ValueError, match="NaN"):
        one(observations() * torch.nan)
    one.eval()
    assert not one.components["a"].training
    replacement = nn.Sequential(nn.Linear(4, 5))
    one.graph_modules["a"] = replacement
    assert one.components["a"].module.module.module.module.module is replacement


def test_the_policy_compiles_whole_with_three_wrappers():
    torch._dynamo.reset()
    policy = policy_of(THREE).eval()
    compiled = torch.compile(lambda x: policy(x), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(observations()), policy(observations()))


def test_a_module_with_three_wrappers_exports():
    config = {"inputs": {"x": [4]}, "components": {"a": {"type": "mlp", "in_keys": "x", "wrappers": THREE}}}
    model = build_model(config, seed=0).eval()
    exported = torch.export.export(model, (observations(),)).module()
    torch.testing.assert_close(exported(observations()), model(observations()))
