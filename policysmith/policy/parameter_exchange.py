"""What a swap means for whoever trains: which parameters leave, which come, and whose group each newcomer joins.

In: the components that a swap exchanges, and the optimisers of the run. Out: the optimisers with other parameters in
the same groups, so that schedules, which count groups, go on; and the undoing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import nn

from policysmith.errors import WiringError

__all__ = ["SHARDED", "Follower", "Group", "Newcomer", "ParameterExchange", "followers_of", "hand_over"]

log = logging.getLogger(__name__)
SHARDED = (
    "the weights are sharded over processes (strategy 'fsdp'), and a component can't be exchanged then: train with "
    "'ddp', or swap the stored policy between two runs (policysmith swap)"
)
Group = dict[str, Any]
"""One of `param_groups` of torch's optimisers."""


class Newcomer(NamedTuple):
    """A parameter that comes with a swap: the component it is of, and its name within."""

    component: str
    name: str
    parameter: nn.Parameter


@runtime_checkable
class Follower(Protocol):
    """Whoever holds on to a policy's parameters besides optimisers, and goes along with a swap."""

    def exchange_parameters(self, exchange: ParameterExchange, undo: ExitStack) -> None:
        """Hold the policy's parameters of now; what undoes a change goes to `undo` before the change is made."""
        ...


class ParameterExchange:
    """The parameters that leave a policy and those that come, once the policy's components are the new ones.

    `before` and `after` are the exchanged components by name; `guarded` says whether the swap may undo itself. What a
    component that stays shares with an exchanged one (tied weights) neither leaves nor comes.
    """

    def __init__(
        self,
        policy: nn.Module,
        before: Mapping[str, nn.Module],
        after: Mapping[str, nn.Module],
        guarded: bool = False,
    ) -> None:
        self.before, self.after, self.guarded = before, after, guarded
        self.names = {id(p): name for name, p in policy.named_parameters()}
        self.ranks = {i: rank for rank, i in enumerate(self.names)}
        left = {id(p) for component in before.values() for p in component.parameters()}
        self.gone = left - self.names.keys()
        components: Any = policy.components
        known = left | {id(p) for name, c in components.items() if name not in after for p in c.parameters()}
        self.come: list[Newcomer] = []
        for component, module in after.items():
            for name, parameter in module.named_parameters():
                if id(parameter) not in known:
                    known.add(id(parameter))
                    self.come.append(Newcomer(component, name, parameter))

    @property
    def learning(self) -> list[Newcomer]:
        """The newcomers that learn."""
        return [newcomer for newcomer in self.come if newcomer.parameter.requires_grad]


def followers_of(optimizers: Iterable[object], others: Iterable[object]) -> list[Follower]:
    """Who goes along with a swap, each once: those that follow the optimisers, and others named besides."""
    following = [follower for optimizer in optimizers for follower in getattr(optimizer, "followers", ())]
    found = list({id(follower): follower for follower in [*following, *others]}.values())
    for follower in found:
        if not isinstance(follower, Follower):
            raise WiringError(
                f"{type(follower).__name__} can't follow a swap, for it has no exchange_parameters: make it anew after "
                "the swap; torch's schedulers need no word, for a swap leaves the groups as they are"
            )
    return found


def hand_over(exchange: ParameterExchange, optimizers: Sequence[object], undo: ExitStack) -> None:
    """Take the parameters that left out of optimisers and put each newcomer in one group; `undo` takes what undoes it.

    A newcomer joins the group of the parameter of the same name in the component that it stands in for; else the group
    that holds most of the component's weights (two axes or more) or biases and norms (fewer), whichever it is; else the
    group that holds most of the component, and the log says so. A component that learned outside these optimisers stays
    outside, and the log says so. All others keep their moments. Raises `WiringError` where no group follows from that.
    """
    table = _Table(exchange, optimizers)
    homes: dict[int, list[Newcomer]] = {}
    for newcomer in exchange.learning:
        group = table.home(newcomer)
        if group is not None:
            homes.setdefault(id(group), []).append(newcomer)
    table.check_any(homes)
    table.tell()
    for inner in table.inner:
        _exchange_in(inner, exchange, homes, undo)


class _Place(NamedTuple):
    """Where a parameter of a component was: in a group, or (None) trained outside."""

    name: str
    kind: bool
    group: Group | None


class _Table:
    """The groups of optimisers, and where in them the exchanged components were."""

    def __init__(self, exchange: ParameterExchange, optimizers: Sequence[object]) -> None:
        self._exchange = exchange
        self._optimizers = [(optimizer, _torch_optimizers(optimizer)) for optimizer in optimizers]
        self.inner = [inner for _, found in self._optimizers for inner in found]
        self._groups = [(inner, group) for inner in self.inner for group in inner.param_groups]
        held = {id(p): group for _, group in reversed(self._groups) for p in group["params"]}
        self._held = held
        self._places = {
            name: [
                _Place(n, _is_weight(p), held.get(id(p)))
                for n, p in component.named_parameters()
                if p.requires_grad or id(p) in held
            ]
            for name, component in exchange.before.items()
        }
        self._told: dict[str, str] = {}

    def home(self, newcomer: Newcomer) -> Group | None:
        """The group that a newcomer joins; None for outside."""
        if id(newcomer.parameter) in self._held:
            return None  # the caller has put it there already
        places = self._places[newcomer.component]
        group = self._like(newcomer, places) if places else self._of_component(newcomer)
        if group is None:
            self._told[newcomer.component] = "learned outside the optimizer, and its new parameters do too"
            return None
        group = self._settled(newcomer, group)
        self._check_taken(newcomer, group)
        return group

    def check_any(self, homes: Mapping[int, object]) -> None:
        """Raise `WiringError` for optimisers that have nothing to do with what is exchanged."""
        held = any(place.group is not None for places in self._places.values() for place in places)
        if self._exchange.learning and not homes and not held and not self._all_there():
            names = ", ".join(map(repr, self._exchange.before))
            raise WiringError(f"the optimizer holds no parameter of {names}: leave it out, or give the one that does")

    def tell(self) -> None:
        """Say what a reader of the configuration would not expect."""
        for component, what in self._told.items():
            log.warning("%r %s", component, what)

    def _all_there(self) -> bool:
        return all(id(newcomer.parameter) in self._held for newcomer in self._exchange.learning)

    def _like(self, newcomer: Newcomer, places: Sequence[_Place]) -> Group | None:
        kind, last = _is_weight(newcomer.parameter), newcomer.name.rpartition(".")[2]
        alike = [place for place in places if place.kind is kind]
        for places_tried in (
            [place for place in alike if place.name == newcomer.name],
            [place for place in alike if place.name.rpartition(".")[2] == last],
            alike,
        ):
            if places_tried:
                return _most(places_tried)
        group = _most(places)
        if group is not None and len(self._groups) > 1:
            what = "weights" if kind else "biases or norms"
            self._told[newcomer.component] = f"had no {what} before: new ones join the group of most of its parameters"
        return group

    def _of_component(self, newcomer: Newcomer) -> Group:
        """The group for a component of which nothing learned before: by its rule, or the only one there is."""
        for optimizer, _ in self._optimizers:
            rule = getattr(optimizer, "group_of_component", None)
            group: Group | None = None if rule is None else rule(newcomer.component)
            if group is not None:
                return group
        if len(self._groups) == 1:
            return self._groups[0][1]
        raise WiringError(
            f"nothing of {newcomer.component!r} was in the optimizer, so which of its {len(self._groups)} groups is for"
            f" {newcomer.name!r} is not known: put a module's parameters into groups first (add_param_group), then swap"
            " the module in"
        )

    def _settled(self, newcomer: Newcomer, group: Group) -> Group:
        """The group that a rule of ours has for such a parameter beside one of its groups; else that group."""
        for optimizer, found in self._optimizers:
            settle = getattr(optimizer, "group_beside", None)
            if settle is not None and any(group is g for inner in found for g in inner.param_groups):
                beside: Group = settle(group, newcomer.parameter)
                return beside
        return group

    def _check_taken(self, newcomer: Newcomer, group: Group) -> None:
        inner = next(inner for inner, g in self._groups if g is group)
        if isinstance(inner, torch.optim.Muon) and newcomer.parameter.dim() != 2:
            raise WiringError(
                f"{newcomer.component}.{newcomer.name} has {newcomer.parameter.dim()} axes, and Muon takes matrices: "
                "put the module's parameters into groups first (add_param_group), then swap the module in"
            )
        if isinstance(inner, torch.optim.LBFGS):
            raise WiringError("LBFGS keeps one history for all parameters: swap without it, then make a new one")


def _torch_optimizers(optimizer: object) -> list[torch.optim.Optimizer]:
    if isinstance(optimizer, torch.optim.Optimizer):
        return [optimizer]
    several = getattr(optimizer, "torch_optimizers", None)
    if isinstance(several, Mapping):
        return list(several.values())
    inner = getattr(optimizer, "torch_optimizer", None)
    if isinstance(inner, torch.optim.Optimizer):
        return [inner]
    raise WiringError(
        f"optimizer: expected one of torch's, or one that holds it as torch_optimizer, found {type(optimizer).__name__}"
    )


def _is_weight(parameter: nn.Parameter) -> bool:
    """Weights of two axes or more, which decay, against biases and norms, which commonly do not."""
    return parameter.dim() >= 2


def _most(places: Sequence[_Place]) -> Group | None:
    """The group of most places; of equally many, the first met."""
    groups = {id(place.group): place.group for place in places}
    counted = Counter(id(place.group) for place in places)
    return groups[counted.most_common(1)[0][0]]


def _exchange_in(
    inner: torch.optim.Optimizer, exchange: ParameterExchange, homes: Mapping[int, list[Newcomer]], undo: ExitStack
) -> None:
    """Exchange in one of torch's optimisers, group by group; what undoes it goes to `undo` before each step."""
    before = [dict(group) for group in inner.param_groups]
    states = {p: state for p, state in inner.state.items() if id(p) in exchange.gone}

    def restore() -> None:
        for newcomer in exchange.come:
            inner.state.pop(newcomer.parameter, None)
        for group, was in zip(inner.param_groups, before, strict=False):  # a group added since stays
            for key in ("params", "param_names"):
                if key in was:
                    group[key] = was[key]
        inner.state.update(states)

    undo.callback(restore)
    for group in inner.param_groups:
        members = list(_members(group, exchange, homes.get(id(group), [])))
        group["params"] = [parameter for parameter, _ in members]
        if "param_names" in group:
            group["param_names"] = [name for _, name in members]
    for parameter in states:
        inner.state.pop(parameter)


def _members(
    group: Group, exchange: ParameterExchange, newcomers: Iterable[Newcomer]
) -> Iterator[tuple[nn.Parameter, str]]:
    """A group's parameters and names: those that stay as they stood, each newcomer at its place in the policy's order.

    So a group in the policy's order stays in it, as a policy that is stored and loaded again would make it.
    """
    names = group.get("param_names", [""] * len(group["params"]))
    staying = [(p, n) for p, n in zip(group["params"], names, strict=True) if id(p) not in exchange.gone]
    waiting = sorted(newcomers, key=lambda newcomer: exchange.ranks[id(newcomer.parameter)])
    last = max((i for i, (p, _) in enumerate(staying) if id(p) in exchange.ranks), default=-1)
    for i, (parameter, name) in enumerate(staying):
        rank = exchange.ranks.get(id(parameter))
        while waiting and rank is not None and exchange.ranks[id(waiting[0].parameter)] < rank:
            yield _named(waiting.pop(0), exchange)
        yield parameter, name
        if i == last:
            yield from (_named(newcomer, exchange) for newcomer in waiting)
            waiting = []
    yield from (_named(newcomer, exchange) for newcomer in waiting)


def _named(newcomer: Newcomer, exchange: ParameterExchange) -> tuple[nn.Parameter, str]:
    return newcomer.parameter, exchange.names[id(newcomer.parameter)]
