"""Execution settings: the same policy in every mode, in other precision, compiled or laid out otherwise."""

import copy
import itertools
import logging
import pickle
import shutil

import gymnasium as gym
import pytest
import torch
from gymnasium import spaces
from torch import nn

import policysmith
from policysmith.compile.measured_choice import ROUNDS, Choice
from policysmith.compile.program import Program
from policysmith.errors import ConfigError, ShapeError
from policysmith.policy.execution import Executed, Runtime
from policysmith.policy.policy_call import PolicyCall
from policysmith.policy.sections import Execution
from tests.thinning import thinned

PLANES = spaces.Box(-1, 1, (5, 6, 4))
TOWER = {"type": "resnet", "tower_depth": 1, "tower_width": 8, "se_ratio": 0.25}
STEM = {"type": "resnet", "tower_depth": 0, "tower_width": 4}
DENSE = {"type": "mlp", "hidden": [8]}  # quick to compile
MODES = {
    "plain": {},
    "amp": {"amp": True},
    "channels_last": {"channels_last": True},
    "compiled": {"compile": True, "compile_backend": "eager"},
    "traced ahead": {"compile": True, "compile_backend": "aot_eager"},
    "all": {"amp": True, "compile": True, "compile_backend": "aot_eager", "channels_last": True},
    "auto": {"amp": "auto", "compile": "auto", "compile_backend": "eager"},
}
EXACT = ["compiled", "traced ahead"]
ACTIONS = {
    "discrete": spaces.Discrete(7),
    "many": spaces.Discrete(200),
    "multi": spaces.MultiDiscrete([3, 2]),
    "box": spaces.Box(-2, 2, (3,)),
    "dict": spaces.Dict(move=spaces.Discrete(4), force=spaces.Box(-1, 1, (2,))),
}

every_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()


class Board(gym.Env):
    """Random planes, episodes of three steps."""

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space, action_space = PLANES, spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), float(action == 1), self.steps == 3, False, {}


gym.register("policysmith/Board-v0", entry_point=Board)


def build(mode="plain", action="discrete", model=TOWER, observation=PLANES, **settings):
    """A policy with lively weights and statistics, the same for every mode."""
    config = {"model": model, "execution": {**MODES[mode], **settings}}
    policy = policysmith.build(config, observation, ACTIONS[action], seed=3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in policy.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.2 + ("running_var" in name))
    return policy.eval()


def planes(rows=6):
    return torch.randn(rows, 5, 6, 4, generator=torch.Generator().manual_seed(7))


def actions_of(policy, obs):
    with torch.no_grad():
        torch.manual_seed(5)
        chosen = policy.get_action_and_value(obs)[0]
    return policy.actions.structure([leaf.clone() for leaf in policy.actions.leaves_of(chosen)])


def calls(policy, obs, chosen):
    """Every call's results, flat."""
    torch.manual_seed(5)
    action, log_prob, value = policy.get_action_and_value(obs)
    best, *rest = policy.get_action_and_value(obs, deterministic=True)
    acted = policy.acting(True)(obs)
    results = [
        policy(obs), policy.actions.leaves_of(action), [log_prob, value], policy.actions.leaves_of(best), rest,
        policy.evaluate_actions(obs, chosen), [policy.get_value(obs)], policy.actions.leaves_of(acted[0]), acted[1:],
    ]  # fmt: skip
    return [t for group in results for t in group]


def gradients(policy, obs, chosen):
    policy.zero_grad()
    log_prob, entropy, value = policy.evaluate_actions(obs, chosen)
    (log_prob.sum() + entropy.sum() + value.square().sum()).backward()
    return {name: parameter.grad.clone() for name, parameter in policy.named_parameters()}


def recording_backend(graphs):
    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    return backend


def with_backend(policy, backend, **settings):
    policy.runtime = Runtime(Execution(compile=True, compile_backend=backend, **settings))
    return policy


def test_without_settings_a_call_is_the_program_alone():
    policy = build()
    policy(planes())
    assert all(type(program) is Program for program in policy.runner.programs[policy.training].values())
    assert policy.runtime.settings == Execution()


@pytest.mark.parametrize(
    ("mode", "action"), thinned([*(("compiled", a) for a in ACTIONS), ("traced ahead", "dict")], 3)
)
def test_compiled_calls_give_what_eager_ones_give(mode, action):
    plain, compiled, obs = build(action=action, model=DENSE), build(mode, action, model=DENSE), planes()
    chosen = actions_of(plain, obs)
    for found, expected in zip(calls(compiled, obs, chosen), calls(plain, obs, chosen), strict=True):
        torch.testing.assert_close(found, expected)
    expected = gradients(plain, obs, chosen)
    for name, found in gradients(compiled, obs, chosen).items():
        torch.testing.assert_close(found, expected[name], msg=name)


def test_a_legal_mask_is_obeyed_in_every_mode():
    mask = torch.zeros(6, 7, dtype=torch.bool)
    mask[:, 2] = True
    mask[0] = False
    for mode in MODES:
        action, log_prob, _ = build(mode, model=DENSE).get_action_and_value(planes(), mask)
        assert action.tolist() == [0, 2, 2, 2, 2, 2]
        assert log_prob.tolist() == [0.0] * 6


@pytest.mark.parametrize("action", ACTIONS)
def test_amp_gives_float32_close_to_float32(action):
    plain, amp, obs = build(action=action), build("amp", action), planes()
    chosen = actions_of(plain, obs)
    for found, expected in zip(amp(obs), plain(obs), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    assert not torch.equal(amp(obs)[0], plain(obs)[0])
    results = [*amp.evaluate_actions(obs, chosen), *amp.get_action_and_value(obs)[1:], amp.get_value(obs)]
    assert {t.dtype for t in results} == {torch.float32}
    expected = gradients(plain, obs, chosen)
    norm = torch.stack([g.norm() for g in expected.values()]).norm()
    for name, found in gradients(amp, obs, chosen).items():
        assert found.dtype == torch.float32 and found.isfinite().all(), name
        assert (found - expected[name]).norm() < 0.1 * norm, name


@pytest.mark.parametrize(("mode", "action"), [*(("amp", a) for a in ACTIONS), ("all", "dict")])
def test_only_the_network_is_in_reduced_precision(mode, action):
    """Sampling, log-probabilities and entropies are those of the float32 parameters, to the last bit."""
    policy, obs = build(mode, action, STEM if mode == "all" else TOWER), planes()
    chosen, log_prob, value = policy.get_action_and_value(obs)
    again, entropy, value_again = policy.evaluate_actions(obs, chosen)
    expected = policy.actions.evaluate(policy(obs)[0], policy.actions.leaves_of(chosen))
    assert torch.equal(log_prob, again) and torch.equal(value, value_again)
    assert torch.equal(again, expected[0]) and torch.equal(entropy, expected[1])


def test_amp_computes_layers_in_bfloat16_and_keeps_weights_in_float32():
    policy, seen = build("amp"), []
    conv = next(m for m in policy.modules() if isinstance(m, nn.Conv2d))
    conv.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    policy(planes())
    assert seen == [torch.bfloat16]
    assert {p.dtype for p in policy.parameters()} == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")


def test_an_error_leaves_no_precision_behind():
    policy = build("amp")
    with pytest.raises(ShapeError, match="expected \\(B, 5, 6, 4\\)"):
        policy(torch.randn(6, 4, 6, 4))
    assert not torch.is_autocast_enabled("cpu")


def test_a_double_policy_stays_double():
    policy = build("amp").double()
    assert {t.dtype for t in policy(planes().double())} == {torch.float64}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_channels_last_is_equal_with_gradients(training):
    plain, last, obs = build().train(training), build("channels_last").train(training), planes()
    chosen = actions_of(build(), obs)
    for found, expected in zip(last.evaluate_actions(obs, chosen), plain.evaluate_actions(obs, chosen), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    expected = gradients(plain, obs, chosen)
    for name, found in gradients(last, obs, chosen).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_channels_last_is_how_convolutions_lie_and_what_they_read():
    policy, seen = build("channels_last"), []
    weights = [m.weight for m in policy.modules() if isinstance(m, nn.Conv2d)]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    assert not all(w.is_contiguous() for w in weights)
    first = next(m for m in policy.modules() if isinstance(m, nn.Conv2d))
    first.register_forward_hook(lambda module, inputs, output: seen.extend([inputs[0], output]))
    policy(planes())
    assert len(seen) == 2
    assert all(t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous() for t in seen)


def test_bytes_and_vectors_pass_a_channels_last_policy_unharmed():
    space = spaces.Dict(
        chw=spaces.Box(0, 255, (3, 8, 8), "uint8"),
        hwc=spaces.Box(0, 255, (8, 8, 3), "uint8"),
        y=spaces.Box(-1, 1, (2,)),
    )
    model = {
        "type": "graph",
        "components": {
            "one": {"type": "conv", "in_keys": "observation.chw", "channels": [4]},
            "two": {"type": "conv", "in_keys": "observation.hwc", "channels": [4]},
            "trunk": {"type": "mlp", "in_keys": ["one", "two", "observation.y"], "hidden": [8]},
            "policy": {"type": "action_head", "in_keys": "trunk"},
            "state_value": {"type": "value_head", "in_keys": "trunk"},
        },
    }
    space.seed(0)
    plain, last = (build(mode, model=model, observation=space) for mode in ("plain", "channels_last"))
    obs = plain.prepare(space.sample())
    for found, expected in zip(last(obs), plain(obs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@every_mode
def test_names_and_contents_of_the_state_are_the_same_in_every_mode(mode, tmp_path):
    plain, policy, obs = build(model=STEM), build(mode, model=STEM), planes()
    gradients(policy, obs, actions_of(policy, obs))
    assert list(policy.state_dict()) == list(plain.state_dict())
    assert [n for n, _ in policy.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert "_orig_mod" not in " ".join(n for n, _ in policy.named_modules())
    plain.load_state_dict(policy.state_dict())
    policysmith.save(plain, tmp_path / "plain")
    policysmith.save(policy, tmp_path / mode)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", mode)]
    assert files[0] == files[1]


@every_mode
def test_a_stored_policy_runs_as_it_did(mode, tmp_path):
    policy, obs = build(mode, model=STEM), planes()
    expected = [t.detach() for t in policy(obs)]
    policysmith.save(policy, tmp_path / "p")
    loaded = policysmith.load(tmp_path / "p")
    assert loaded.runtime.settings == policy.runtime.settings == Execution(**MODES[mode])
    loaded.runtime.chosen.update(policy.runtime.chosen)  # a measurement may come out otherwise
    for found, tensor in zip(loaded(obs), expected, strict=True):
        assert torch.equal(found, tensor)
    layouts = [[p.stride() for p in each.parameters()] for each in (policy, loaded)]
    assert layouts[0] == layouts[1]


@every_mode
@pytest.mark.parametrize("called", thinned([True, False], 2), ids=["called", "fresh"])
def test_copies_run_as_the_original_and_are_independent(mode, called):
    policy, obs = build(mode, model=STEM), planes()
    if called:
        policy(obs)
    expected = [t.detach().clone() for t in policy(obs)]
    for twin in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert twin.runtime.settings == policy.runtime.settings
        for found, tensor in zip(twin(obs), expected, strict=True):
            torch.testing.assert_close(found, tensor)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.fill_(float("nan"))
        assert all(t.isnan().all() for t in twin(obs))
        assert all(map(torch.equal, policy(obs), expected))


@every_mode
def test_calls_stay_live(mode):
    policy, obs = build(mode, model=STEM), planes()
    before = [t.detach().clone() for t in policy(obs)]
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(0.5)
    expected = build(model=STEM)
    expected.load_state_dict(policy.state_dict())
    for found, tensor, old in zip(policy(obs), expected(obs), before, strict=True):
        torch.testing.assert_close(found, tensor, rtol=0.05, atol=0.05)
        assert not torch.allclose(found, old, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("mode", [*EXACT, "channels_last"])
def test_batch_normalisation_follows_the_training_mode(mode):
    plain, policy, obs = build(model=STEM), build(mode, model=STEM), planes()
    for training in (False, True, False, True):
        for found, expected in zip(policy.train(training)(obs), plain.train(training)(obs), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for name, tensor in policy.state_dict().items():
        torch.testing.assert_close(tensor, plain.state_dict()[name], rtol=1e-5, atol=1e-5, msg=name)
    counts = [t for name, t in policy.state_dict().items() if name.endswith("num_batches_tracked")]
    assert counts and all(count == 2 for count in counts)


def test_training_and_evaluation_are_compiled_by_themselves():
    graphs = []
    policy = with_backend(build(model=STEM), recording_backend(graphs))
    for training in (True, False, True, False):
        policy.train(training)(planes())
    assert len(graphs) == 2


def test_a_call_compiles_whole():
    graphs = []
    policy, obs = with_backend(build(model=STEM), recording_backend(graphs)), planes()
    chosen = actions_of(build(model=STEM), obs)
    for count, call in enumerate([lambda: policy(obs), lambda: policy.evaluate_actions(obs, chosen)], 1):
        call()
        assert len(graphs) == count


def test_however_many_calls_and_policies_there_are_all_are_compiled():
    """torch.compile gives up after eight versions of one piece of code; the rest would run uncompiled in silence."""
    graphs, obs = [], planes()
    for count in range(1, 13):
        with_backend(build(model=DENSE), recording_backend(graphs)).get_value(obs)
        assert len(graphs) == count


def test_the_precision_may_change_after_compilation_which_starts_anew():
    policy, obs = build("traced ahead", model=DENSE), planes()
    assert policy(obs)[0].dtype == torch.float32
    policy.configure_execution(amp=True)
    assert policy.runtime.settings == Execution(amp=True, compile=True, compile_backend="aot_eager")
    assert torch.equal(policy(obs)[0], build("traced ahead", model=DENSE, amp=True)(obs)[0])
    policy.configure_execution(amp=False, compile=False)
    assert torch.equal(policy(obs)[0], build(model=DENSE)(obs)[0])


def test_changed_settings_are_stored(tmp_path):
    policy = build()
    policy.configure_execution(channels_last=True)
    assert any(not p.is_contiguous() for p in policy.parameters())
    policysmith.save(policy, tmp_path / "p")
    assert policysmith.load(tmp_path / "p").runtime.settings == Execution(channels_last=True)
    policy.configure_execution(channels_last=False)
    assert all(p.is_contiguous() for p in policy.parameters())


def test_wrong_settings_are_refused_and_leave_the_old_ones():
    policy = build("amp")
    with pytest.raises(ConfigError, match="amp: expected true or false or 'auto', found 'yes'"):
        policy.configure_execution(amp="yes")
    with pytest.raises(ConfigError, match=r"unknown option of 'execution' \(did you mean 'channels_last'\?\)"):
        policy.configure_execution(channel_last=True)
    assert policy.runtime.settings == policy.runtime.settings == Execution(amp=True)


def test_cuda_graphs_and_dynamic_shapes_defeat_each_other():
    with pytest.warns(UserWarning, match="compile_mode reduce-overhead records CUDA graphs, which dynamic shapes"):
        build(compile=True, compile_mode="reduce-overhead", compile_dynamic=True)


def test_results_survive_the_next_call_where_the_compiler_reuses_memory(monkeypatch):
    def recycling(body, **options):
        memory = []

        def run(*tensors):
            results = body(*tensors)
            memory[:] = memory or [r.clone() for r in results]
            return tuple(place.copy_(result) for place, result in zip(memory, results, strict=True))

        return run

    monkeypatch.setattr(torch, "compile", recycling)
    with torch.no_grad():
        policy = build(compile=True, compile_mode="reduce-overhead")
        first = policy(planes())
        before = [t.clone() for t in first]
        policy(planes() * 2)
    assert all(map(torch.equal, first, before))


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("policysmith")]


def winding(*durations):
    """A timer by which runs take these durations in turn."""
    ticks = itertools.cycle([tick for duration in durations for tick in (0.0, duration)])
    return itertools.accumulate(ticks).__next__


def test_auto_takes_amp_where_it_measures_faster_and_says_so_once(caplog):
    caplog.set_level(logging.INFO, "policysmith")
    policy, obs = build(amp="auto"), planes()
    policy.runtime = Runtime(Execution(amp="auto"), winding(2e-3, 1e-3))
    found = policy(obs)
    policy.get_action_and_value(obs)
    assert policy.runtime.chosen == {torch.device("cpu"): Choice(amp=True, compile=False)}
    assert messages(caplog) == ["cpu, 6 rows: plain 2 ms, amp 1 ms; takes amp"]
    assert torch.equal(found[0], build("amp")(obs)[0])


def test_auto_stays_off_where_it_measures_no_faster():
    policy, obs = build(amp="auto"), planes()
    policy.runtime = Runtime(Execution(amp="auto"), winding(1e-3, 1e-3))
    assert torch.equal(policy(obs)[0], build()(obs)[0])
    assert policy.runtime.chosen == {torch.device("cpu"): Choice(amp=False, compile=False)}


def test_auto_weighs_every_combination():
    policy = build(amp="auto", model=DENSE)
    policy.runtime = Runtime(Execution(amp="auto", compile="auto", compile_backend="eager"), winding(4, 3, 2, 1))
    policy(planes())
    assert policy.runtime.chosen == {torch.device("cpu"): Choice(amp=True, compile=True)}
    policy.runtime = Runtime(Execution(amp=True, compile="auto", compile_backend="eager"), winding(2, 1))
    policy.get_value(planes())
    assert policy.runtime.chosen == {torch.device("cpu"): Choice(amp=True, compile=True)}


@pytest.mark.parametrize("first", ["forward", "act", "evaluate", "value", "acting", "evaluating", "aux"])
def test_measuring_changes_nothing(first):
    """Not the random numbers, the statistics, the training mode or the gradients, whichever call is the first."""
    obs, torch_state = planes(), torch.random.get_rng_state()
    policy, plain = build(amp="auto").train(), build().train()
    policy.runtime = Runtime(Execution(amp="auto"), winding(1e-3, 1e-3))
    chosen = actions_of(build(), obs)

    def run(policy):
        torch.random.set_rng_state(torch_state)
        policy.components["trunk"].eval()  # a flag of its own, as batch statistics that are held
        ways = {
            "forward": lambda: policy(obs),
            "act": lambda: policy.get_action_and_value(obs),
            "evaluate": lambda: policy.evaluate_actions(obs, chosen),
            "value": lambda: [policy.get_value(obs)],
            "acting": lambda: policy.acting()(obs),
            "evaluating": lambda: policy.evaluating()(obs, chosen),
            "aux": lambda: policy(obs, return_aux=True)[:2],
        }
        return ways[first]()

    assert all(map(torch.equal, run(policy), run(plain)))
    assert torch.device("cpu") in policy.runtime.chosen
    assert [m.training for m in policy.modules()] == [m.training for m in plain.modules()]
    for name, tensor in policy.state_dict().items():
        assert torch.equal(tensor, plain.state_dict()[name]), name
    assert all(p.grad is None for p in policy.parameters())


def test_a_compiler_that_fails_is_not_taken(caplog):
    caplog.set_level(logging.INFO, "policysmith")

    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    policy, obs = build(), planes()
    policy.runtime = Runtime(Execution(compile="auto", compile_backend=broken))
    assert torch.equal(policy(obs)[0], build()(obs)[0])
    told = messages(caplog)
    assert "compile does not work here" in told[0] and "no compiler here" in told[0]


def test_a_wrong_shape_is_told_before_anything_is_measured():
    policy = build(amp="auto")
    with pytest.raises(ShapeError, match="expected \\(B, 5, 6, 4\\)"):
        policy(torch.randn(6, 4, 6, 4))
    assert policy.runtime.chosen == {}


def test_code_says_how_it_runs():
    policy = build("auto", model=DENSE)
    policy.runtime = Runtime(policy.runtime.settings, winding(1.0))
    policy(planes())
    assert policy.code.startswith("# amp: auto, compile: auto; chosen: {'cpu': 'plain'}\ndef run(x0):")
    assert isinstance(policy.runner.programs[False][PolicyCall("forward")], Executed)


@pytest.mark.parametrize("mode", ["amp", "channels_last", "all"])
def test_other_peoples_compilers_and_exporters_see_the_settings(mode):
    policy, obs = build(mode, model=STEM), planes()
    expected = policy.get_action_and_value(obs, deterministic=True)
    act = torch.compile(lambda o: policy.get_action_and_value(o, deterministic=True), fullgraph=True, backend="eager")
    with torch.no_grad():
        for found, tensor in zip(act(obs), expected, strict=True):
            torch.testing.assert_close(found, tensor)
        exported = torch.export.export(policy, (obs,)).module()
        for found, tensor in zip(exported(obs), policy(obs), strict=True):
            torch.testing.assert_close(found, tensor, rtol=1e-4, atol=1e-4)


def test_precision_of_the_caller_is_left_alone():
    policy, obs = build(), planes()
    with torch.autocast("cpu", torch.bfloat16):
        assert policy(obs)[0].dtype == torch.bfloat16
        assert build("amp")(obs)[0].dtype == torch.float32


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_inductor_gives_what_eager_gives():
    policy, plain, obs = build(compile=True, model=STEM), build(model=STEM), planes()
    for found, expected in zip(policy(obs), plain(obs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory", thinned(["gtrxl", "lstm"], 2))
@pytest.mark.parametrize("mode", ["amp", "compiled", "auto"])
def test_a_policy_with_memory_acts_and_learns_by_the_same_settings(memory, mode):
    components = {
        "memory": {"type": memory, "in_keys": "observation"},
        "policy": {"type": "action_head", "in_keys": "memory"},
        "state_value": {"type": "value_head", "in_keys": "memory"},
    }
    settings = {"model": {"type": "graph", "components": components}, "observation": spaces.Box(-1, 1, (64,))}
    plain, policy = build(**settings), build(mode, **settings)
    near = {"rtol": 0.05, "atol": 0.05} if mode == "amp" else {"rtol": 1e-5, "atol": 1e-5}
    if mode == "auto":
        policy.runtime = Runtime(policy.runtime.settings, winding(1.0))
    obs, stepped = torch.randn(2, 4, 64), []
    state, plain_state = policy.init_state(2), plain.init_state(2)
    for t in range(4):
        with torch.no_grad():
            action, log_prob, value, state = policy.act(obs[:, t], state, deterministic=True)
            _, expected, _, plain_state = plain.act(obs[:, t], plain_state, deterministic=True)
        torch.testing.assert_close(log_prob, expected, **near)
        stepped.append((action, log_prob, value))
    for name, tensor in state.items():
        assert tensor.dtype == plain_state[name].dtype, name
    actions, log_probs, values = (torch.stack(each, 1) for each in zip(*stepped, strict=True))
    log_prob, _, value = policy.evaluate(obs, actions)
    assert log_prob.dtype == value.dtype == torch.float32
    torch.testing.assert_close(log_prob, log_probs, **near)
    torch.testing.assert_close(value, values, **near)


@pytest.mark.parametrize("mode", thinned(["compiled", "amp", "channels_last"], 3))
def test_training_runs_and_goes_on_by_the_settings(mode, tmp_path):
    config = {
        "environment": {"id": "policysmith/Board-v0", "num_envs": 2},
        "model": STEM,
        "execution": MODES[mode],
        "training": {"type": "ppo", "total_steps": 32, "rollout_steps": 8, "minibatches": 2, "epochs": 1},
    }
    result = policysmith.train(config, output=tmp_path / "run", progress=False, evaluate=False)
    assert result.steps == 32
    assert all(p.isfinite().all() for p in result.policy.parameters())
    again = policysmith.train(
        overrides=["training.total_steps=48"], resume=tmp_path / "run", progress=False, evaluate=False
    )
    assert again.policy.runtime.settings == Execution(**MODES[mode])
    changed = policysmith.train(
        overrides=["training.total_steps=64", "execution.amp=false", "execution.compile=false"],
        resume=tmp_path / "run",
        progress=False,
        evaluate=False,
    )
    expected = Execution(**{**MODES[mode], "amp": False, "compile": False})
    assert changed.policy.runtime.settings == policysmith.load(tmp_path / "run").runtime.settings == expected


def test_rounds_are_few():
    assert ROUNDS <= 10, "the first call waits for them"
