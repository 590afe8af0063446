"""Law: whatever threads do with a host at once, each result is the one that a twin gives to a single thread.

Eight threads call, switch modes, swap, hook and load, beside four that run modules and compiled modules of their own.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

import policysmith
from policysmith.compile import exclusive, program
from policysmith.compile.executors import ParallelExecutor
from policysmith.graph import ComponentContainer, TensorComponent, build_model

QUICK, SLOW = 1, 200
CALLS = 3  # by each thread in a round, beside what it does besides
X = torch.linspace(-1, 1, 12).view(3, 4)
HEADS = {
    "policy": {"type": "action_head", "in_keys": "main"},
    "state_value": {"type": "value_head", "in_keys": "main"},
}
Results = tuple[Tensor, ...]


@dataclass
class Host:
    """A host to call. `make` gives a new one without code, always with the same weights.

    `put(host, version)` puts version 0 or 1 of a part in its place; `part` is the name of its parameters.
    """

    make: Callable[[], Any]
    calls: dict[str, Callable[[Any], Results]]
    put: Callable[[Any, int], object]
    part: str
    expected: dict[str, list[Results]] = field(default_factory=dict)

    def fresh(self, version: int = 0) -> Any:
        """A new host with this version."""
        made = self.make()
        self.put(made, version)
        return made

    def prepare(self) -> None:
        """What every call gives with either version, by twins that no other thread knows."""
        for version in (0, 1):
            twin = self.fresh(version)
            for name, call in self.calls.items():
                self.expected.setdefault(name, []).append(call(twin))

    def check(self, name: str, host: Any) -> None:
        """Call, and compare with both versions."""
        found = self.calls[name](host)
        assert any(all(map(torch.equal, found, wanted)) for wanted in self.expected[name]), f"{name} gave {found}"


def policy(components: dict[str, Any], **sections: Any) -> Any:
    model = {"type": "graph", "components": {**components, **HEADS}}
    built = policysmith.build({"environment": {"id": "CartPole-v1"}, "model": model, **sections}, seed=0)
    return built.eval()


def linear(seed: int, width: int = 8, given: int = 4) -> nn.Module:
    layer = nn.Linear(given, width)
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.parameters():
        parameter.data = torch.rand(parameter.shape, generator=generator) - 0.5
    return layer


def swaps(host: Any, version: int) -> object:
    return host.replace_component("first", linear(version))


def stateless() -> Host:
    layers = {
        "first": {"type": "nn.Linear", "in_keys": "observation", "out_features": 8},
        "main": {"type": "mlp", "in_keys": "first", "hidden": [8]},
    }
    return Host(
        lambda: policy(layers),
        {
            "forward": lambda p: p(X),
            "act": lambda p: p.get_action_and_value(X, deterministic=True),
            "masked": lambda p: p.get_action_and_value(X, torch.tensor([True, False]), deterministic=True),
            "evaluate": lambda p: p.evaluate_actions(X, torch.tensor([0, 1, 0])),
            "value": lambda p: (p.get_value(X),),
            "aux": lambda p: p(X, return_aux=True)[:2],
            "code": lambda p: (p(X)[0], torch.tensor(len(p.code) > 0)),
        },
        swaps,
        "components.first.",
    )


def branching() -> Host:
    layers = {
        "first": {"type": "nn.Linear", "in_keys": "observation", "out_features": 8},
        "left": {"type": "mlp", "in_keys": "first", "hidden": [8]},
        "right": {"type": "mlp", "in_keys": "first", "hidden": [8]},
        "main": {"type": "concat", "in_keys": ["left", "right"]},
    }
    host = stateless()
    calls = {name: host.calls[name] for name in ("forward", "act", "evaluate", "value")}
    return Host(lambda: policy(layers, execution={"executor": "parallel"}), calls, swaps, "components.first.")


def compiled() -> Host:
    host = stateless()
    make, calls = host.make, {name: host.calls[name] for name in ("forward", "value")}

    def built() -> Any:
        made = make()
        made.configure_execution(compile=True, compile_backend="eager")
        return made

    return Host(built, calls, swaps, "components.first.")


def remembering() -> Host:
    layers = {
        "first": {"type": "nn.Linear", "in_keys": "observation", "out_features": 8},
        "main": {"type": "gru", "in_keys": "first", "hidden_size": 8},
    }
    sequence, chosen = X.expand(2, 3, 4), torch.tensor([[0, 1, 0], [1, 1, 0]])
    return Host(
        lambda: policy(layers),
        {
            "act": lambda p: p.act(X, p.init_state(3), deterministic=True)[:3],
            "value": lambda p: (p.get_value(X, p.init_state(3)),),
            "evaluate": lambda p: p.evaluate(sequence, chosen),
            "unroll": lambda p: p.unroll(sequence)[:2],
        },
        swaps,
        "components.first.",
    )


def graph() -> Host:
    layers = {
        "first": {"type": "nn.Linear", "in_keys": "x", "out_features": 8},
        "second": {"type": "mlp", "in_keys": "first", "hidden": [8, 8]},
    }
    return Host(
        lambda: build_model({"inputs": {"x": [4]}, "components": layers}, seed=0).eval(),
        {
            "call": lambda m: (m(X),),
            "bound": lambda m: (m.bound()(X),),
            "named": lambda m: (m(x=X),),
            "slow": lambda m: (m.slow(X),),
        },
        lambda m, version: m.graph_modules.update({"first": linear(version)}),
        "graph_modules.first.",
    )


def container() -> Host:
    def make() -> ComponentContainer:
        parts = {"second": linear(2, 8, 8), "first": linear(0), "third": nn.Sequential(linear(3, 8, 8), nn.Tanh())}
        keys = {"first": ("x", "h"), "second": ("h", "y"), "third": ("y", "z")}
        made = {name: TensorComponent(part, [keys[name][0]], [keys[name][1]]) for name, part in parts.items()}
        return ComponentContainer(made).eval()

    def warm(c: ComponentContainer) -> Results:
        for _ in range(20):  # until it runs as code
            found = c({"x": X})
        return found["y"], found["z"]

    return Host(
        make,
        {
            "mapping": lambda c: (c.execute({"x": X})["z"],),
            "warm": warm,
            "tensordict": lambda c: (c(TensorDict({"x": X}, [3]))["z"],),
        },
        lambda c, version: c.replace_component("first", TensorComponent(linear(version), ["x"], ["h"])),
        "first.",
    )


def executor() -> Host:
    manner = ParallelExecutor(workers=2, force=True)

    def make() -> ComponentContainer:
        parts = {"first": linear(0), "left": linear(2, 8, 8), "right": linear(3, 8, 8)}
        keys = {"first": ("x", "h"), "left": ("h", "y"), "right": ("h", "z")}
        made = {name: TensorComponent(part, [keys[name][0]], [keys[name][1]]) for name, part in parts.items()}
        return ComponentContainer(made).eval()

    def call(c: ComponentContainer) -> Results:
        found = manner.execute(c, {"x": X})
        return found["y"], found["z"]

    return Host(make, {"execute": call}, container().put, "first.")


HOSTS = {f.__name__: f for f in (stateless, branching, remembering, graph, container, executor)}


def first(host: Host, target: Any, rng: random.Random) -> None:
    host.check(next(iter(host.calls)), target)


def other(host: Host, target: Any, rng: random.Random) -> None:
    host.check(rng.choice(list(host.calls)), target)


def flip(host: Host, target: Any, rng: random.Random) -> None:
    target.train()
    host.check(rng.choice(list(host.calls)), target)
    target.eval()


def swap(host: Host, target: Any, rng: random.Random) -> None:
    host.put(target, rng.randrange(2))


def hook(host: Host, target: Any, rng: random.Random) -> None:
    module = rng.choice([m for m in target.modules() if m is not target])
    handle = module.register_forward_hook(lambda *_: None)
    host.check(rng.choice(list(host.calls)), target)
    handle.remove()


def load(host: Host, target: Any, rng: random.Random) -> None:
    """Weights as they are: torch loads tensor by tensor, so others would be a mixture for a moment."""
    kept = {name: t for name, t in target.state_dict().items() if not name.startswith(host.part)}
    target.load_state_dict(kept, strict=False, assign=rng.random() < 0.5)


ACTS = (first, other, flip, swap, hook, load, first, other)


@cache  # to compile takes longer than a round
def foreign() -> list[Callable[[], None]]:
    """Four calls of modules that have nothing to do with us, each of which looks at its own result."""
    layer, net = linear(7), nn.Sequential(linear(8), nn.Tanh(), nn.Dropout(0.5), linear(9, 2, 8)).eval()
    traced = torch.compile(net, backend="eager")
    function = torch.compile(lambda x: layer(x).relu() * 2, backend="eager")
    calls: list[Callable[[], Tensor]] = [lambda: layer(X), lambda: net(X), lambda: traced(X), lambda: function(X)]

    def checked(call: Callable[[], Tensor]) -> Callable[[], None]:
        wanted = call()

        def check() -> None:
            found = call()
            assert type(found) is Tensor and torch.equal(found, wanted)

        return check

    return [checked(call) for call in calls]


def together(tasks: list[Callable[[], None]], beside: list[Callable[[], None]]) -> None:
    """Run the tasks at once, and the others again and again until these are done; the first failure is raised."""
    start, done, failed = threading.Barrier(len(tasks) + len(beside)), threading.Event(), []

    def run(task: Callable[[], None], again: bool) -> None:
        try:
            start.wait()
            task()
            while again and not done.wait(0.0001):
                task()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(task, False)) for task in tasks]
    others = [threading.Thread(target=run, args=(task, True)) for task in beside]
    for thread in (*threads, *others):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    for thread in others:
        thread.join()
    if failed:
        raise failed[0]


@pytest.fixture(autouse=True)
def torch_stays_as_it_is() -> Iterator[None]:
    """Threads take turns often, and torch's classes are afterwards what they were."""
    names = ("__call__", "__getattr__", "__setattr__", "_call_impl")
    before, interval = [getattr(nn.Module, name) for name in names], sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)
    assert [getattr(nn.Module, name) for name in names] == before
    assert "forward" in vars(nn.Linear) and type(nn.Linear(2, 2)(torch.ones(1, 2))) is Tensor


def storm(host: Host, rounds: int) -> None:
    host.prepare()
    beside = foreign()
    for number in range(rounds):
        target, rng = host.fresh(), random.Random(number)

        def task(act: Any, seed: int, target: Any = target) -> Callable[[], None]:
            def run() -> None:
                own = random.Random(seed)
                for _ in range(CALLS):
                    act(host, target, own)
                    other(host, target, own)

            return run

        together([task(act, rng.random()) for act in ACTS], beside)
        version = rng.randrange(2)
        host.put(target, version)
        for name, call in host.calls.items():  # and nothing stale is left behind
            assert all(map(torch.equal, call(target), host.expected[name][version])), name


@pytest.mark.parametrize("name", HOSTS)
def test_every_result_is_that_of_a_single_thread(name):
    storm(HOSTS[name](), QUICK)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", HOSTS)
def test_every_result_is_that_of_a_single_thread_in_many_rounds(name):
    storm(HOSTS[name](), SLOW)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_policy_that_torch_compiles_is_no_exception():
    storm(compiled(), 10)


@pytest.mark.parametrize("make", [stateless, branching, remembering])
def test_a_swap_that_resizes_several_components_is_met_whole_or_not_at_all(make):
    def resize(target: Any) -> Any:
        return target.replace_component("first", {"type": "nn.Linear", "out_features": 12}, resize=True, seed=1)

    host = make()
    host.put = lambda target, version: resize(target) if version else None  # the same weights each time
    host.prepare()
    target, rng, pause = host.fresh(), random.Random(0), threading.Event()

    def swap_and_roll_back() -> None:
        for _ in range(4):
            assert len(resize(target).names) > 1
            pause.wait(0.002)  # never set: meanwhile the new network is called
            target.rollback()

    together([swap_and_roll_back], [lambda: other(host, target, rng)] * 4)
    for name, call in host.calls.items():  # and nothing of the new network is left behind
        assert all(map(torch.equal, call(target), host.expected[name][0])), name


class Makers:
    """Stands in for `trace`: the first thread that makes code goes on when another has to wait, or makes code too."""

    def __init__(self, trace: Callable[..., Any]) -> None:
        self._trace, self._guard, self._inside = trace, threading.Lock(), []
        self.met, self.begun, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.made, self.at_once, self.apart = 0, False, False

    def __call__(self, *args: Any, **options: Any) -> Any:
        with self._guard:
            self.made += 1
            first, self.at_once = self.made == 1, self.at_once or bool({*self._inside} - {threading.get_ident()})
            self._inside.append(threading.get_ident())
        self.begun.set()
        if not first:
            self.met.set()
        self.apart |= not self.met.wait(60)
        try:
            return self._trace(*args, **options)
        finally:
            self.ended.set()
            with self._guard:
                self._inside.remove(threading.get_ident())


class ToldLock:
    """A re-entrant lock that tells when a thread has to wait for it."""

    def __init__(self, met: threading.Event) -> None:
        self._lock, self._met = threading.RLock(), met

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._met.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@pytest.mark.parametrize("stale", [False, True], ids=["first", "anew"])
@pytest.mark.parametrize("name", ["stateless", "remembering", "graph"])  # a container goes on without code
def test_code_is_made_once_while_the_others_wait(name, stale, monkeypatch):
    host = HOSTS[name]()
    call = next(iter(host.calls.values()))
    alone, both = Makers(program.trace), Makers(program.trace)
    alone.met.set()
    locks = SimpleNamespace(Lock=threading.Lock, RLock=lambda: ToldLock(both.met))
    monkeypatch.setattr(exclusive, "threading", locks)
    twin, target = host.fresh(), host.fresh()
    for one in [twin, target] if stale else []:
        call(one)
        next(m for m in one.modules() if type(m) is nn.Linear).register_forward_hook(lambda *_: None)
    monkeypatch.setattr(program, "trace", alone)
    call(twin)
    monkeypatch.setattr(program, "trace", both)
    together([lambda: call(target)] * 2, [])  # type: ignore[list-item]
    assert not both.apart, "the other thread neither waited nor made code"
    assert not both.at_once, "two threads made code at the same time"
    assert both.made == alone.made > 0


@pytest.mark.parametrize("name", ["stateless", "remembering"])
def test_a_swap_waits_for_code_that_is_being_made(name, monkeypatch):
    host, waited = HOSTS[name](), []
    call, makers = next(iter(host.calls.values())), Makers(program.trace)
    locks = SimpleNamespace(Lock=threading.Lock, RLock=lambda: ToldLock(makers.met))
    monkeypatch.setattr(exclusive, "threading", locks)
    monkeypatch.setattr(program, "trace", makers)
    target = host.make()

    def swap() -> None:
        assert makers.begun.wait(60)
        host.put(target, 1)
        waited.append(makers.ended.is_set())
        makers.met.set()

    together([lambda: call(target), swap], [])  # type: ignore[list-item]
    assert waited == [True]
