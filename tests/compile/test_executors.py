"""Executors: the same bits in every manner, whatever the graph, and nothing side by side that must not be."""

import copy
import itertools
import multiprocessing
import pickle
import threading

import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import nn

import policysmith
from policysmith.compile.executors import ParallelExecutor, SequentialExecutor
from policysmith.compile.executors.branches import Branches, Streams, find_branches
from policysmith.compile.measured_choice import KEPT, LIVE_ROUNDS, Trials
from policysmith.compile.plan_steps import step_of
from policysmith.errors import ConfigError, WiringError
from policysmith.graph import Component, ComponentContainer, TensorComponent
from policysmith.modules import DropoutModule, LinearModule, LSTMModule, MergeModule
from policysmith.policy.execution import Branched
from policysmith.wrappers import RegularizedModule

WIDTH = 8


class Where(Component):
    """Passes a tensor on and notes the thread."""

    def __init__(self, in_key, out_key, threads):
        super().__init__([in_key], [out_key])
        self.threads = threads

    def compute(self, x):
        self.threads[self.out_keys[0]] = threading.current_thread().name
        return x + 1


class Fails(Component):
    """Raises."""

    def compute(self, x):
        raise ArithmeticError(self.out_keys[0])


class Nested(Component):
    """Runs a container of its own by an executor."""

    def __init__(self, in_key, out_key, executor, depth):
        super().__init__([in_key], [out_key])
        self.executor = executor
        self.inner = branching(["x"], depth=depth, executor=executor)

    def compute(self, x):
        return self.executor.execute(self.inner, {"x": x})["merged"]


def linear(in_key, out_key):
    return LinearModule(WIDTH, WIDTH, in_keys=[in_key], out_keys=[out_key])


def branching(inputs=("x",), branches=3, depth=0, executor=None, wrap=lambda module: module):
    """Branches of two layers on each input, merged at the end; nested ones below while there is depth."""
    parts = {}
    for i in range(branches):
        parts[f"a{i}"] = wrap(linear(inputs[i % len(inputs)], f"a{i}"))
        parts[f"b{i}"] = Nested(f"a{i}", f"b{i}", executor, depth - 1) if depth else wrap(linear(f"a{i}", f"b{i}"))
    parts["merged"] = MergeModule([f"b{i}" for i in range(branches)], "add")
    return ComponentContainer(parts)


def diamond():
    """x → a → (b, c → d) → e, and f beside all of it."""
    return ComponentContainer(
        {
            "a": linear("x", "ya"), "b": linear("ya", "yb"), "c": linear("ya", "yc"), "d": linear("yc", "yd"),
            "e": MergeModule(["yb", "yd"], "subtract", out_key="ye"), "f": linear("x", "yf"),
        }
    )  # fmt: skip


def in_place():
    """A component that writes what it reads, and those that read it after."""
    return ComponentContainer({"b": linear("x", "y"), "c": linear("x", "z"), "a": linear("x", "x")})


def nested_keys():
    return ComponentContainer({"a": linear("x", "h.a"), "b": linear("x", "h.b"), "c": linear("h.a", "y")})


def recurrent():
    parts = {n: LSTMModule(WIDTH, WIDTH, in_keys=["x"], out_keys=[n], name=n) for n in ("one", "two")}
    return ComponentContainer({**parts, "both": MergeModule(["one", "two"])})


GRAPHS = {
    "branching": branching, "diamond": diamond, "in place": in_place, "nested keys": nested_keys,
    "recurrent": recurrent, "chain": lambda: ComponentContainer({"a": linear("x", "y"), "b": linear("y", "z")}),
    "wrapped": lambda: branching(wrap=RegularizedModule),
}  # fmt: skip

every_graph = pytest.mark.parametrize("graph", GRAPHS)


@pytest.fixture
def parallel():
    executor = ParallelExecutor(workers=3, force=True)
    yield executor
    executor.close()


def flat(mapping):
    data = mapping.to_dict() if isinstance(mapping, TensorDict) else mapping
    found = {}
    for key, value in data.items():
        found |= {f"{key}.{k}": v for k, v in flat(value).items()} if isinstance(value, dict) else {key: value}
    return found


@every_graph
@pytest.mark.parametrize("to_mapping", [dict, lambda data: TensorDict(data, [5])], ids=["dict", "TensorDict"])
def test_every_manner_gives_the_same_bits_in_the_same_order_of_keys(graph, to_mapping, parallel):
    container, x = GRAPHS[graph](), torch.randn(5, WIDTH)
    plain = container.execute(to_mapping({"x": x.clone()}))
    for executor in (SequentialExecutor(), parallel):
        given = to_mapping({"x": x.clone()})
        result = executor.execute(container, given)
        assert result is given
        assert list(flat(result)) == list(flat(plain))
        assert all(torch.equal(value, flat(plain)[key]) for key, value in flat(result).items())


@pytest.mark.parametrize("edges", [["ye", "yf"], ["ya", "ye", "yf"]], ids=["two readers", "three readers"])
def test_gradients_are_the_same_bits_but_for_the_order_of_three_terms(edges, parallel):
    container, x = diamond(), torch.randn(5, WIDTH)
    found = []
    for executor in (SequentialExecutor(), parallel):
        container.zero_grad()
        result = executor.execute(container, {"x": x})
        sum(result[edge].square().sum() for edge in edges).backward()
        found.append([p.grad.clone() for p in container.parameters()])
    if len(edges) == 2:
        assert all(map(torch.equal, *found))
    else:
        torch.testing.assert_close(*found)


def test_branches_run_on_other_threads_at_the_same_time(parallel):
    barrier = threading.Barrier(3, timeout=20)

    class Meets(Component):
        def compute(self, x):
            barrier.wait()
            return x

    container = ComponentContainer({n: Meets(["x"], [n]) for n in "abc"})
    parallel.execute(container, {"x": torch.ones(1)})
    assert not barrier.broken


def test_modes_of_the_calling_thread_hold_in_the_others(parallel):
    seen = {}

    class Looks(Component):
        def compute(self, x):
            seen[self.out_keys[0]] = (
                torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
                torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None,
            )  # fmt: skip
            return x

    container = ComponentContainer({n: Looks(["x"], [n]) for n in "abc"})
    for modes, expected in (
        ([], (True, False, None)),
        ([torch.no_grad], (False, False, None)),
        ([torch.inference_mode], (False, True, None)),
        ([lambda: torch.autocast("cpu", torch.bfloat16)], (True, False, torch.bfloat16)),
    ):
        seen.clear()
        for mode in modes:
            with mode():
                parallel.execute(container, {"x": torch.ones(1)})
        if not modes:
            parallel.execute(container, {"x": torch.ones(1)})
        assert set(seen.values()) == {expected}
        assert len(seen) == 3


@pytest.mark.parametrize("executor", [SequentialExecutor(), ParallelExecutor(2, force=True)], ids=["seq", "par"])
def test_an_exception_comes_out_as_it_is_with_the_components_name(executor):
    container = branching()
    container.replace_component("b1", Fails(["a1"], ["b1"]))
    given = {"x": torch.ones(2, WIDTH)}
    with pytest.raises(ArithmeticError) as caught:
        executor.execute(container, given)
    assert caught.value.__notes__ == ["in component 'b1'"]
    container.replace_component("b1", linear("a1", "b1"))
    assert "merged" in executor.execute(container, given), "nothing is left behind"


def test_of_several_failures_the_first_in_order_is_raised(parallel):
    container = ComponentContainer({n: Fails(["x"], [n]) for n in "abcd"})
    for _ in range(5):
        with pytest.raises(ArithmeticError, match="a"):
            parallel.execute(container, {"x": torch.ones(1)})


def test_a_missing_input_is_named(parallel):
    for executor in (SequentialExecutor(), parallel):
        with pytest.raises(KeyError, match="missing input key 'x'"):
            executor.execute(branching(), {"y": torch.ones(1)})


def test_a_swap_between_calls_takes_effect_at_once():
    for executor in (SequentialExecutor(), ParallelExecutor(workers=2, force=True), ParallelExecutor(workers=2)):
        container, x = branching(), torch.randn(2, WIDTH)
        for _ in range(2 * LIVE_ROUNDS + 4):
            executor.execute(container, {"x": x})
        container.replace_component("b1", TensorComponent(nn.Identity(), ["a1"], ["b1"]))
        expected = container.execute({"x": x})
        assert torch.equal(executor.execute(container, {"x": x})["merged"], expected["merged"])
        assert torch.equal(expected["a1"], expected["b1"])


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", [1, 2])
def test_nesting_does_not_deadlock(workers):
    executor = ParallelExecutor(workers=workers, force=True)
    container = branching(branches=4, depth=2, executor=executor)
    x = torch.randn(2, WIDTH)
    assert torch.equal(executor.execute(container, {"x": x})["merged"], container.execute({"x": x})["merged"])


@pytest.mark.timeout(60)
def test_one_executor_serves_several_threads(parallel):
    container, x = branching(), torch.randn(4, WIDTH)
    expected, found = container.execute({"x": x})["merged"], []
    callers = [
        threading.Thread(target=lambda: found.extend(parallel.execute(container, {"x": x})["merged"] for _ in range(5)))
        for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 20
    assert all(torch.equal(y, expected) for y in found)


def test_threads_are_made_when_needed_and_end_when_closed():
    executor = ParallelExecutor(workers=2, force=True)
    names = lambda: {t.name for t in threading.enumerate() if t.name.startswith("policysmith-branch")}  # noqa: E731
    before = names()
    executor.execute(ComponentContainer({"a": linear("x", "y")}), {"x": torch.ones(1, WIDTH)})
    assert names() == before, "a chain needs none"
    container, x = branching(), torch.ones(1, WIDTH)
    expected = executor.execute(container, {"x": x})["merged"]
    assert executor._threads._pool is not None
    executor.close()
    executor.close()
    assert executor._threads._pool is None
    assert torch.equal(executor.execute(container, {"x": x})["merged"], expected), "closed is not broken"
    executor.close()


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_a_copy_has_threads_of_its_own(copier, parallel):
    container, x = branching(), torch.ones(1, WIDTH)
    expected = parallel.execute(container, {"x": x})["merged"]
    twin = copier(parallel)
    assert twin.force and twin._threads.workers == 3
    assert torch.equal(twin.execute(container, {"x": x})["merged"], expected)
    assert twin._threads._pool is not parallel._threads._pool
    twin.close()


@pytest.mark.timeout(60)
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_makes_threads_anew(parallel):
    container, x = branching(), torch.ones(1, WIDTH)
    parallel.execute(container, {"x": x})
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def child():
        with torch.no_grad():
            queue.put(parallel.execute(container, {"x": x})["merged"].sum().item())

    process = context.Process(target=child)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert queue.get() == pytest.approx(container.execute({"x": x})["merged"].sum().item())


def test_what_may_touch_more_than_its_keys_runs_here_and_in_its_place(parallel):
    threads, order = {}, []

    class Opaque(Where):
        def forward(self, mapping):
            order.append(self.out_keys[0])
            mapping.setdefault("trace", []).append(self.out_keys[0])
            return super().forward(mapping)

    parts = {n: (Opaque if n in "ce" else Where)("x", n, threads) for n in "abcdefg"}
    container = ComponentContainer(parts)
    container["f"].register_forward_hook(lambda *_: order.append("f"))
    result = parallel.execute(container, {"x": torch.ones(1)})
    assert order == ["c", "e", "f"] and result["trace"] == ["c", "e"]
    here = threading.current_thread().name
    assert {threads[n] for n in "cef"} == {here}
    assert {threads["a"], threads["b"]} != {here}


@pytest.mark.parametrize("where", ["vmap", "make_fx", "saved tensors", "device"])
def test_where_other_threads_would_not_see_it_calls_run_in_order(where, parallel):
    container = ComponentContainer({n: Where("x", n, {}) for n in "abc"})
    threads = [part.threads for part in container.values()]
    call = lambda x: parallel.execute(container, {"x": x})["c"]  # noqa: E731
    if where == "vmap":
        torch.func.vmap(call)(torch.ones(2, 3))
    elif where == "make_fx":
        torch.fx.experimental.proxy_tensor.make_fx(call)(torch.ones(2))
    elif where == "saved tensors":
        with torch.autograd.graph.save_on_cpu():
            call(torch.ones(2))
    else:
        with torch.device("meta"):
            call(torch.ones(2))
    assert {name for seen in threads for name in seen.values()} == {threading.current_thread().name}


def test_a_compiler_takes_the_sequential_path():
    ours, obs = forced(), torch.randn(6, 4)
    expected = ours(obs)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: ours(x), backend="eager", fullgraph=True)
    ours.runtime.executor.close()
    assert all(map(torch.equal, compiled(obs), expected))
    assert ours.runtime.executor._threads._pool is None


def test_random_numbers_are_drawn_in_order():
    parts = {n: DropoutModule(0.5, in_keys=["x"], out_keys=[n]) for n in "abc"}
    container, executor, x = ComponentContainer(parts), ParallelExecutor(workers=2), torch.ones(64)
    for _ in range(3 * LIVE_ROUNDS):
        torch.manual_seed(1)
        expected = container.execute({"x": x})
        torch.manual_seed(1)
        found = executor.execute(container, {"x": x})
        assert all(torch.equal(found[n], expected[n]) for n in "abc")
    (trial,) = executor._trials(container, list(container.arranged().values())).found.values()
    assert trial.chosen is False


class Clock:
    """Time that passes as the calls say."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(("costs", "expected"), [((1.0, 0.5), True), ((1.0, 0.95), False), ((1.0, 3.0), False)])
def test_the_faster_manner_is_kept_for_each_kind_of_call_and_every_call_is_made_once(costs, expected):
    clock, made = Clock(), []
    trials = Trials(timer=clock)

    def way(which, cost):
        def call():
            made.append(which)
            clock.now += cost
            return which

        return call

    first, second = way(0, costs[0]), way(1, costs[1])
    for key in ("small", "large"):
        made.clear()
        results = [
            trials.run(key, lambda: (first(), False), first, second, torch.device("cpu"))
            for _ in range(2 * LIVE_ROUNDS + 9)
        ]
        assert results == made, "nothing is computed twice"
        assert made.count(1) > LIVE_ROUNDS
        assert set(made[-6:]) == {int(expected)}


def test_only_so_many_kinds_of_calls_are_remembered():
    trials = Trials()
    for key in range(KEPT + 10):
        trials.run(key, lambda: (0, False), lambda: 0, lambda: 0, torch.device("cpu"))
    assert len(trials.found) == KEPT


@pytest.mark.parametrize(
    ("needs", "chains", "width"),
    [
        ({"a": [], "b": ["a"], "c": ["b"]}, [("a", "b", "c")], 1),
        ({"a": [], "b": [], "c": ["a", "b"]}, [("a",), ("b",), ("c",)], 2),
        ({"a": [], "b": ["a"], "c": ["a"], "d": ["b"], "e": ["c", "d"]}, [("a",), ("b", "d"), ("c",), ("e",)], 2),
        ({}, [], 0),
    ],
)
def test_chains(needs, chains, width):
    branches = find_branches(list(needs), needs)
    assert list(branches.chains) == chains
    assert branches.width == width


class FakeCuda:
    """Streams and events that write down what is asked of them."""

    def __init__(self):
        self.log, self.count = [], itertools.count()
        self.main = self.Stream()

    def current_stream(self):
        return self.main

    def Stream(self):
        cuda, name = self, f"s{next(self.count)}"

        class Stream:
            def wait_event(self, event):
                cuda.log.append((name, "waits", event))

            def record_event(self):
                return name

            def __enter__(self):
                cuda.log.append((name, "runs", None))

            def __exit__(self, *_):
                pass

        return Stream()

    def stream(self, stream):
        return stream


def test_streams_wait_for_what_they_read_and_the_caller_for_all():
    cuda, calls = FakeCuda(), []
    branches = Branches((("a",), ("b",), ("c",)), (frozenset(), frozenset(), frozenset({0, 1})))
    Streams(cuda).run(branches, calls.append, lambda i: [])
    assert calls == [0, 1, 2]
    assert cuda.log.index(("s3", "waits", "s1")) < cuda.log.index(("s3", "runs", None))
    assert ("s3", "waits", "s2") in cuda.log
    assert all((f"s{i}", "waits", "s0") in cuda.log for i in (1, 2, 3)), "inputs are ready"
    assert [entry for entry in cuda.log if entry[0] == "s0"] == [("s0", "waits", f"s{i}") for i in (1, 2, 3)]


def policy(execution, memory=False):
    trunk = {"type": "lstm", "hidden_size": 8} if memory else {"type": "mlp", "hidden": [8]}
    components = {
        "actor": {**trunk, "in_keys": "observation"},
        "critic": {**trunk, "in_keys": "observation", "wrappers": ["regularized"]},
        "policy": {"type": "action_head", "in_keys": "actor"},
        "state_value": {"type": "value_head", "in_keys": "critic"},
    }
    config = {"execution": execution, "model": {"type": "graph", "components": components}}
    return policysmith.build(config, spaces.Box(-1, 1, (4,)), spaces.Discrete(3), seed=0)


def forced(memory=False):
    made = policy("parallel", memory)
    made.runtime.executor.force = True
    made._replan()
    return made


def test_a_policy_gives_the_same_bits_by_every_executor():
    ours, plain, obs = forced(), policy("sequential"), torch.randn(6, 4)
    actions = torch.randint(3, (6,))
    for call in (
        lambda p: p(obs),
        lambda p: p.get_action_and_value(obs, torch.ones(6, 3, dtype=torch.bool)),
        lambda p: p.evaluate_actions(obs, actions),
        lambda p: p.evaluate_actions(obs, actions, return_aux=True)[:3],
        lambda p: p.acting()(obs),
        lambda p: (p.get_value(obs),),
    ):
        results = []
        for each in (ours, plain):
            torch.manual_seed(3)
            results.append([t.clone() for t in call(each)])
        assert all(map(torch.equal, *results))
    assert any(isinstance(program, Branched) for program in ours.runner.programs[ours.training].values())
    assert not any(isinstance(program, Branched) for program in plain.runner.programs[plain.training].values())
    assert "parallel" in ours.code


def test_steps_side_by_side_never_walk_over_the_values_that_others_write():
    class Shared(dict):
        def values(self):
            raise RuntimeError("dictionary changed size during iteration")

    made, obs = policy({}), torch.randn(6, 4)
    steps = [step_of(node, made.components) for node in made.plan.nodes]
    values = ParallelExecutor(2, force=True).run_steps(steps, Shared(observation=obs))
    assert all(map(torch.equal, (values["policy"], values["state_value"]), made(obs)))


def test_a_policy_with_memory_does_too():
    ours, plain, obs = forced(memory=True), policy("sequential", memory=True), torch.randn(5, 7, 4)
    first, actions = torch.rand(5, 7) < 0.3, torch.randint(3, (5, 7))
    state = {key: torch.randn_like(tensor) for key, tensor in ours.init_state(5).items()}
    results = []
    for each in (ours, plain):
        torch.manual_seed(3)
        action, log_prob, value, after = each.act(obs[:, 0], state, first[:, 0])
        results.append([action, log_prob, value, *after.values(), *each.evaluate(obs, actions, state, first)])
    assert all(map(torch.equal, *results))


def test_a_policy_tries_both_and_draws_the_same_actions_meanwhile():
    ours, plain, obs = policy("parallel"), policy({}), torch.randn(6, 4)
    for seed in range(2 * LIVE_ROUNDS + 4):
        torch.manual_seed(seed)
        found = ours.get_action_and_value(obs)
        torch.manual_seed(seed)
        assert all(map(torch.equal, found, plain.get_action_and_value(obs)))
    (program,) = ours.runner.programs[ours.training].values()
    (trial,) = program._trials.found.values()
    assert trial.chosen is not None, "sampling after the network is not in the way"


def test_training_swapping_copies_and_other_settings_work_under_the_parallel_executor():
    ours, obs = forced(), torch.randn(6, 4)
    optimizer = torch.optim.SGD(ours.parameters(), 0.1)
    before = ours(obs)[0]
    ours.evaluate_actions(obs, torch.zeros(6, dtype=torch.long))[0].mean().neg().backward()
    optimizer.step()
    assert not torch.equal(ours(obs)[0], before)
    ours.replace_component("actor", {"type": "mlp", "hidden": [8], "activation": "relu"}, seed=1)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert isinstance(twin.runtime.executor, ParallelExecutor)
        assert all(map(torch.equal, twin(obs), ours(obs)))
    slow = ours.slow("forward", obs)
    assert all(map(torch.equal, ours(obs), slow))
    ours.configure_execution(executor="sequential")
    assert isinstance(ours.runtime.executor, SequentialExecutor)
    assert all(map(torch.equal, ours(obs), slow))


def test_the_executor_is_stored_with_the_policy(tmp_path):
    ours = policy("parallel")
    policysmith.save(ours, tmp_path / "p")
    loaded = policysmith.load(tmp_path / "p")
    assert isinstance(loaded.runtime.executor, ParallelExecutor)
    assert all(map(torch.equal, loaded(torch.ones(2, 4)), ours(torch.ones(2, 4))))


def test_an_unknown_executor_is_refused():
    with pytest.raises(ConfigError, match="unknown value 'paralel'"):
        policy("paralel")
    with pytest.raises(WiringError):
        ParallelExecutor(force=True).execute(
            ComponentContainer({"a": linear("y", "x"), "b": linear("x", "y")}), {"x": torch.ones(1)}
        )
