"""Named types in slots: registering a type is the whole extension story.

In: callables with typed signatures. Out: `PartSpec`s, checked descriptions that can be built, encoded and compared.
A registry is a plain object; the default one is filled by the rooms that define types, and by plugins.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from policysmith.config.options import Infer, OptionSchema, Slot, Unset, error_at, failures, located
from policysmith.errors import ConfigError, Problem, RegistryError, did_you_mean

__all__ = [
    "SLOTS",
    "Entry",
    "Infer",
    "PartSpec",
    "Registry",
    "Slot",
    "default_registry",
    "part",
    "register",
    "load_plugin_file",
    "load_plugins",
]

T = TypeVar("T", bound=Callable[..., Any])

SLOTS = (
    "model", "component", "attention", "feedforward", "norm", "position", "residual", "router", "memory", "encoder",
    "head", "activation", "wrapper", "initializer", "callback", "logger", "algorithm", "objective", "optimizer",
    "schedule", "dataset", "launcher", "space", "op", "offline_objective", "model_factory",
    "grammar", "skill_environment", "section",
)  # fmt: skip
# What is called on what a type of the slot gives, and how: asked for when it is built, before anything runs.
OFFERS: Mapping[str, Mapping[str, str]] = {
    "callback": {"__call__": "a function of a report that returns whether to stop"},
    "schedule": {"__call__": "a function of progress, from 0 to 1, that returns a number"},
    "logger": {"report": "report(report, steps_per_second)", "close": "close()"},
    "optimizer": {"make": "make(groups), which returns a torch.optim.Optimizer"},
}
PLUGIN_GROUP = "policysmith.plugins"
DIALECTS = "policysmith.dialects"  # a room above, whose types are known by name and imported when first used
ROOMS = ("policysmith.parts", "policysmith.policy", "policysmith.training.types", "policysmith.skills.registered_types")
"""Modules whose import registers all types of ours; done when a name is not known yet, or all names are asked for."""
_LOADING = (
    threading.RLock()
)  # a second thread that needs the types waits for them; one lock, since registries are copied


@dataclass(frozen=True, eq=False)
class Entry:
    """One registered type: its slot, name, callable, schema and declared traits.

    Traits in use: `role` (`policy`, `value`), `indices` (takes raw category indices), `batch_coupled`, `causal`,
    `stateful`, and for a model `board`-like marks of its own.
    """

    slot: str
    name: str
    target: Callable[..., Any]
    schema: OptionSchema
    traits: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first sentence of the type's docstring."""
        paragraph = " ".join((inspect.getdoc(self.target) or "").split("\n\n", 1)[0].split())
        sentence = paragraph.split(". ", 1)[0].rstrip(".")
        return f"{sentence}." if sentence else ""


@dataclass(frozen=True, eq=False)
class PartSpec:
    """A checked description of one part: a type and its options, nothing allocated yet.

    Two specs are equal when their types and options are; a spec can be a dictionary key.
    """

    entry: Entry
    options: Mapping[str, Any]

    @property
    def slot(self) -> str:
        """The slot of its type."""
        return self.entry.slot

    @property
    def type(self) -> str:
        """The name of its type."""
        return self.entry.name

    def build(self, **context: Any) -> Any:
        """Call the type with its options and, for arguments marked `Infer(kind)`, `context[kind]`.

        A stated argument that differs from the context raises ValueError; a type that gives something else than its
        slot is for raises RegistryError.
        """
        built = self.entry.target(**{**self._plain_options(), **self._inferred(context)})
        for call, form in OFFERS.get(self.slot, {}).items():
            if not callable(getattr(built, call, None)):
                raise _lacks(self.slot, self.type, type(built), call, form)
        return built

    def encode(self) -> dict[str, Any]:
        """The mapping that decodes to this spec: `{type: …, option: …}` with defaults written out."""
        return {"type": self.type, **{k: _encode(v) for k, v in self.options.items() if not isinstance(v, Unset)}}

    @cached_property
    def key(self) -> str:
        """A canonical text of the spec: options in the order of the signature, mappings in theirs, which can matter."""
        return json.dumps(self.encode(), default=repr)

    def stated(self) -> dict[str, Any]:
        """Inferable options that the configuration states anyway: to be compared with what is inferred."""
        return {n: self.options[n] for n in self.entry.schema.inferred if not isinstance(self.options[n], Unset)}

    def _plain_options(self) -> dict[str, Any]:
        return {n: _fresh(v) for n, v in self.options.items() if n not in self.entry.schema.inferred}

    def _inferred(self, context: Mapping[str, Any]) -> dict[str, Any]:
        schema, stated, values = self.entry.schema, self.stated(), {}
        for name, kind in schema.inferred.items():
            if kind in context:
                values[name] = context[kind]
                if name in stated and _plain(stated[name]) != _plain(context[kind]):
                    raise ValueError(
                        f"{self.type!r}: {name} is stated as {stated[name]!r}, but must be {context[kind]!r}"
                    )
            elif name in stated:
                values[name] = stated[name]
            elif name not in schema.optional_inferred:
                raise TypeError(f"{self.slot} {self.type!r} needs {name!r} ({kind}), which nothing supplies here")
        return values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PartSpec) and self.entry.target is other.entry.target and self.key == other.key

    def __hash__(self) -> int:
        return hash((self.entry.target, self.key))

    def __repr__(self) -> str:
        return f"PartSpec({self.slot}: {self.key})"


def _fresh(value: Any) -> Any:
    """Containers anew, so that what a part does to its options does not reach the next one built."""
    if isinstance(value, list):
        return [_fresh(v) for v in value]
    return {k: _fresh(v) for k, v in value.items()} if isinstance(value, dict) else value


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _encode(value: Any) -> Any:
    if hasattr(value, "encode") and not isinstance(value, str | bytes):
        return value.encode()
    if isinstance(value, Mapping):
        return {k: _encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(v) for v in value]
    if is_dataclass(value):  # a section among the options
        return {f.name: _encode(getattr(value, f.name)) for f in fields(value)}
    return value


class Registry:
    """Types by slot and name. `Registry()` is empty; `registry.copy()` starts from another's types.

    `elsewhere` is a module whose `TYPES` maps (slot, name) to the module that registers that type: both are imported
    when they are first needed, so that rooms above add types which nothing here imports. `rooms` are modules that
    register types too, imported together when a name is not known, or all names are asked for.
    """

    def __init__(self, entries: Sequence[Entry] = (), elsewhere: str | None = None, rooms: Sequence[str] = ()) -> None:
        self._entries: dict[str, dict[str, Entry]] = {slot: {} for slot in SLOTS}
        for entry in entries:
            self._entries[entry.slot][entry.name] = entry
        self._elsewhere, self._rooms = elsewhere, tuple(rooms)

    def __iter__(self) -> Iterator[Entry]:
        self.load_rooms()
        return (self.entry(slot, name) for slot in SLOTS for name in self._known(slot))

    def copy(self) -> Registry:
        """An independent registry that starts with the same types."""
        self.load_rooms()
        return Registry([entry for slot in self._entries.values() for entry in slot.values()], self._elsewhere)

    def register(
        self,
        name: str,
        slot: str = "component",
        *,
        annotations: Mapping[str, Any] | None = None,
        exclude: Sequence[str] = (),
        **traits: Any,
    ) -> Callable[[T], T]:
        """Decorator that registers a class or function under `name` in `slot`.

        `annotations` replaces a signature's types (for callables that are not ours), `exclude` hides parameters.
        The same object under the same name is fine; another object under a taken name raises `RegistryError`.
        """
        self._slot(slot)
        if not isinstance(name, str) or not name:
            raise RegistryError(f"a type needs a name, found {name!r}")

        def decorate(target: T) -> T:
            at_home = self._homes.get((slot, name)) == target.__module__
            taken = self._entries[slot].get(name) if at_home else self._find_at_home(slot, name)
            if taken is not None and taken.target is not target:
                raise RegistryError(
                    f"{slot} {name!r} is already registered by {_origin(taken.target)}; "
                    f"{_origin(target)} needs another name"
                )
            if taken is None:
                _check_calls(slot, name, target)
                schema = OptionSchema(target, name, annotations, exclude)
                self._entries[slot][name] = Entry(slot, name, target, schema, traits)
            return target

        return decorate

    def entry(self, slot: str, name: str) -> Entry:
        """The type of that name; raises `RegistryError` with a suggestion."""
        self._slot(slot)
        found = self._find(slot, name)
        if found is None:
            raise RegistryError(self._unknown(slot, name))
        return found

    def names(self, slot: str, pattern: str = "*") -> list[str]:
        """Sorted names in a slot that match a shell pattern (`nn.*`)."""
        self._slot(slot)
        self.load_rooms()
        return sorted(n for n in self._known(slot) if fnmatch.fnmatchcase(n, pattern))

    def is_offered(self, slot: str, name: str) -> bool:
        """Whether a type is one to propose: the trait `offered` is False for names that stand for another one's."""
        entry = self._entries[slot].get(name)
        return entry is None or bool(entry.traits.get("offered", True))

    def decode(self, slot: str, value: Any) -> PartSpec:
        """A name, a `{type: …}` mapping or a `PartSpec` as a checked spec; a `ValidationError` lists all problems.

        In the slot `schedule` a bare number is a constant.
        """
        self._slot(slot)
        if isinstance(value, PartSpec):
            if value.slot != slot:
                raise located(
                    slot, [error_at((), f"expected {_a(slot)}, found the {value.slot} {value.type!r}", value)]
                )
            return value
        if slot == "schedule" and isinstance(value, int | float) and not isinstance(value, bool):
            value = {"type": "constant", "value": value}
        short = isinstance(value, str)
        if short:
            value = {"type": value}
        if not isinstance(value, Mapping):
            raise located(slot, [error_at((), f"expected the name of {_a(slot)} or a mapping with 'type'", value)])
        options = {k: v for k, v in value.items() if k != "type"}
        if "type" not in value:
            raise located(slot, [error_at((), f"'type' is missing: which {slot}?", value)])
        name = value["type"]
        entry = self._find(slot, name) if isinstance(name, str) else None
        if entry is None:
            raise located(slot, [error_at(() if short else ("type",), self._unknown(slot, name), name)])
        return PartSpec(entry, entry.schema.decode(options, {"registry": self}))

    def sections(self) -> tuple[Entry, ...]:
        """The sections of an experiment file, those of the default registry too, in the order they are written in.

        The traits `after` and `before` name the section beside which one stands; others come last.
        """
        for types in (default_registry, self):
            types.load_rooms()
        entries = {**default_registry._entries["section"], **self._entries["section"]}
        order: list[str] = []
        waiting = list(entries)
        while waiting:
            name = next((n for n in waiting if _anchor(entries[n]) in (None, *order)), waiting[0])
            waiting.remove(name)
            anchor, after = _anchor(entries[name]), "after" in entries[name].traits
            order.insert(order.index(anchor) + after if anchor in order else len(order), name)
        return tuple(entries[name] for name in order)

    def graph_grammars(self, keys: Collection[str]) -> list[Any]:
        """The grammars, of this registry or the default one, that may be those of a graph with such keys at its top."""
        marks = {**self._marks, **default_registry._marks}
        found = [name for name, own in marks.items() if not own.isdisjoint(keys)]
        return [(self._find("grammar", name) or default_registry.entry("grammar", name)).target for name in found]

    @property
    def _marks(self) -> dict[str, frozenset[str]]:
        """The keys at the top of a graph that tell each grammar of graphs: the trait `graphs`."""
        known = importlib.import_module(self._elsewhere).GRAPHS if self._elsewhere else {}
        entries = self._entries["grammar"].items()
        return {**known, **{name: entry.traits["graphs"] for name, entry in entries if "graphs" in entry.traits}}

    def named_elsewhere(self, option: str) -> dict[str, list[str]]:
        """What other libraries mean by an option's name: the path of ours → the libraries that call it so.

        Their tables are those of the dialects, and the trait `options` of a registered grammar.
        """
        tables = dict(self._names_elsewhere("OPTIONS"))
        tables |= {name: e.traits["options"] for name, e in self._entries["grammar"].items() if "options" in e.traits}
        found: dict[str, list[str]] = {}
        for library, names in tables.items():
            if option in names:
                found.setdefault(names[option], []).append(library)
        return found

    def _names_elsewhere(self, table: str) -> Mapping[Any, Any]:
        """A table of the module that the dialects name; empty for a registry without them."""
        if not self._elsewhere:
            return {}
        module = importlib.import_module(importlib.import_module(self._elsewhere).OPTION_NAMES)
        return cast(Mapping[Any, Any], getattr(module, table))

    def load_rooms(self) -> None:
        """Import the rooms whose types are not here yet."""
        with _LOADING:
            rooms, self._rooms = self._rooms, ()  # what is imported may ask for names itself
            try:
                for room in rooms:
                    importlib.import_module(room)
            except BaseException:
                self._rooms = rooms
                raise

    def load_plugins(self) -> None:
        """Import every entry point of the group `policysmith.plugins`; a callable is called with this registry."""
        for point in importlib.metadata.entry_points(group=PLUGIN_GROUP):
            loaded = point.load()
            if callable(loaded) and not inspect.isclass(loaded):
                loaded(self)

    def _slot(self, slot: str) -> dict[str, Entry]:
        if slot not in self._entries:
            raise RegistryError(f"unknown slot {slot!r}{did_you_mean(slot, SLOTS)}; slots: {', '.join(SLOTS)}")
        return self._entries[slot]

    @property
    def _homes(self) -> Mapping[tuple[str, str], str]:
        """The modules that register the types which are known by name only, until they are used."""
        return importlib.import_module(self._elsewhere).TYPES if self._elsewhere else {}

    def _known(self, slot: str) -> list[str]:
        return list(dict.fromkeys([*self._entries[slot], *(n for s, n in self._homes if s == slot)]))

    def _find(self, slot: str, name: str) -> Entry | None:
        """The type of that name, imported if need be: that registers it with the default registry."""
        found = self._find_at_home(slot, name)
        if found is None and self._rooms:
            self.load_rooms()
            found = self._entries[slot].get(name)
        return found

    def _find_at_home(self, slot: str, name: str) -> Entry | None:
        """The type of that name that is here, or whose own module is known."""
        found = self._entries[slot].get(name)
        if found is None and (home := self._homes.get((slot, name))):
            importlib.import_module(home)
            found = self._entries[slot][name] = default_registry._entries[slot][name]
        return found

    def _unknown(self, slot: str, name: object) -> str:
        advice = self._names_elsewhere("TYPES").get((slot, name)) if isinstance(name, str) else None
        if advice:
            return f"unknown {slot} {name!r}; {advice}"
        known = [n for n in self.names(slot) if self.is_offered(slot, n)]
        hint = did_you_mean(name, known)
        if hint and len(known) > 12:
            return f"unknown {slot} {name!r}{hint}"
        families = sorted({n if "." not in n else f"{n.split('.')[0]}.*" for n in known})
        return f"unknown {slot} {name!r}{hint}; known: {', '.join(families) or 'none'}"


default_registry = Registry(elsewhere=DIALECTS, rooms=ROOMS)
register = default_registry.register


def part(slot: str, value: Any, registry: Registry | None = None) -> PartSpec:
    """What a part does with a slot argument: a name, mapping or spec becomes a spec that can be built.

    Raises `ConfigError` with every problem.
    """
    try:
        return (registry or default_registry).decode(slot, value)
    except ValidationError as error:
        problems = [Problem(".".join(map(str, path)), message) for path, message in failures(error)]
        raise ConfigError(problems) from None


@cache
def load_plugins() -> None:
    """Types of installed packages, once a process."""
    default_registry.load_plugins()


def load_plugin_file(path: str | Path) -> None:
    """Run a local Python file that registers types: an explicit act of the user, never of a configuration.

    A file runs once; one that raises leaves no module behind.
    """
    path = Path(path).resolve()
    digest = hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()
    name = f"policysmith_plugin_{path.stem}_{digest}"
    if name in sys.modules:
        return
    if not path.is_file():
        raise RegistryError(f"no plugin file at {path}")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RegistryError(f"the plugin {path} is no Python file: it must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _check_calls(slot: str, name: str, target: object) -> None:
    """Refuse a class whose instances can't be called where their slot is for functions.

    Other methods may be given to an instance when it is made, and are asked for when it is built.
    """
    form = OFFERS.get(slot, {}).get("__call__")
    if form and isinstance(target, type) and not any("__call__" in vars(base) for base in target.__mro__):
        raise _lacks(slot, name, target, "__call__", form)


def _lacks(slot: str, name: str, found: type, call: str, form: str) -> RegistryError:
    what = f"gives a `{found.__qualname__}`, which has no {call}"
    return RegistryError(
        f"{slot} {name!r} {what}: {_a(slot)} is {form}"
        if call == "__call__"
        else f"{slot} {name!r} {what}: define {form}"
    )


def _anchor(section: Entry) -> str | None:
    """The section beside which one is written."""
    return section.traits.get("after", section.traits.get("before"))


def _origin(target: Callable[..., Any]) -> str:
    return f"{target.__module__}.{target.__qualname__}"


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
