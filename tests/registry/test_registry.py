"""Named types in slots: registering, finding, decoding, specs, plugins."""

from __future__ import annotations

import importlib.metadata
import inspect
import pickle
import sys
from typing import Annotated, Any

import pytest
import torch
from annotated_types import Gt
from pydantic import ValidationError
from torch import nn

from policysmith.config.options import UNSET, failures
from policysmith.errors import ConfigError, RegistryError
from policysmith.graph import build_model
from policysmith.registry import (
    SLOTS,
    Infer,
    PartSpec,
    Registry,
    Slot,
    default_registry,
    load_plugin_file,
    part,
    register,
)

Size = Annotated[int, Gt(0)]


class Block(nn.Module):
    """A block. It has a second sentence."""

    def __init__(
        self,
        width: Annotated[int, Infer("features")],
        hidden: list[Size] = [8, 8],  # noqa: B006 - read only
        activation: Annotated[PartSpec | str, Slot("activation")] = "tanh",
        inner: Annotated[PartSpec | str, Slot("norm")] | None = None,
        shape: Annotated[tuple[int, ...], Infer("event_shape")] = (),
    ) -> None:
        super().__init__()
        self.width, self.hidden, self.activation, self.inner, self.shape = width, hidden, activation, inner, shape


def plain(scale: float = 1.0) -> nn.Module:
    """A function is a type too."""
    return nn.Identity()


@pytest.fixture
def registry() -> Registry:
    fresh = default_registry.copy()
    fresh.register("block")(Block)
    return fresh


def problems(registry: Registry, slot: str, value: Any) -> dict[tuple[str | int, ...], str]:
    with pytest.raises(ValidationError) as caught:
        registry.decode(slot, value)
    return dict(failures(caught.value))


# --- registering -------------------------------------------------------------------------------------------------


def test_a_decorator_registers_and_gives_its_target_back():
    registry = Registry()
    assert registry.register("block")(Block) is Block
    entry = registry.entry("component", "block")
    assert (entry.slot, entry.name, entry.target) == ("component", "block", Block)
    assert entry.summary == "A block."


def test_the_same_object_may_be_registered_twice():
    registry = Registry()
    registry.register("block")(Block)
    first = registry.entry("component", "block")
    registry.register("block")(Block)
    assert registry.entry("component", "block") is first
    registry.register("other_name")(Block)
    assert registry.names("component") == ["block", "other_name"]


def test_another_object_under_a_taken_name_is_refused_naming_both():
    registry = Registry()
    registry.register("block")(Block)
    with pytest.raises(RegistryError) as caught:
        registry.register("block")(plain)
    assert "component 'block' is already registered by" in str(caught.value)
    assert f"{Block.__module__}.Block" in str(caught.value)
    assert f"{plain.__module__}.plain needs another name" in str(caught.value)
    assert registry.entry("component", "block").target is Block


def test_one_name_may_stand_in_several_slots():
    registry = Registry()
    registry.register("x", slot="norm")(plain)
    registry.register("x", slot="activation")(nn.Tanh)
    assert registry.decode("norm", "x").entry.target is plain
    assert registry.decode("activation", "x").entry.target is nn.Tanh


def test_traits_are_kept():
    registry = Registry()
    registry.register("block", batch_coupled=True, role="policy")(Block)
    assert dict(registry.entry("component", "block").traits) == {"batch_coupled": True, "role": "policy"}


@pytest.mark.parametrize(
    "act",
    [
        lambda r: r.register("x", slot="activaton")(plain),
        lambda r: r.entry("activaton", "tanh"),
        lambda r: r.names("activaton"),
        lambda r: r.decode("activaton", "tanh"),
    ],
    ids=["register", "entry", "names", "decode"],
)
def test_an_unknown_slot_is_refused_with_a_suggestion(act):
    with pytest.raises(RegistryError, match=r"unknown slot 'activaton'.*did you mean 'activation'"):
        act(default_registry.copy())


@pytest.mark.parametrize("name", ["", 3, None])
def test_a_type_needs_a_name(name):
    with pytest.raises((RegistryError, TypeError)):
        Registry().register(name)(plain)


def test_every_slot_of_the_design_is_there():
    assert len(SLOTS) == len(set(SLOTS)) == 29
    for slot in SLOTS:
        Registry().register("x", slot=slot)(plain)


# --- finding -----------------------------------------------------------------------------------------------------


def test_an_unknown_type_is_refused_with_the_nearest_name():
    with pytest.raises(RegistryError, match=r"unknown component 'nn\.Linaer' \(did you mean 'nn\.Linear'\?\)"):
        default_registry.entry("component", "nn.Linaer")
    with pytest.raises(RegistryError, match="unknown norm 'zzz'; known: batch, group, instance, layer, rms"):
        default_registry.entry("norm", "zzz")
    with pytest.raises(RegistryError, match="known: none"):
        Registry().entry("norm", "layer")


def test_a_long_list_of_types_is_shown_by_family():
    text = problems(default_registry, "component", "qqqq")[()]
    assert "nn.*" in text
    assert "nn.Linear" not in text


def test_names_are_sorted_and_match_a_pattern():
    registry = Registry()
    for name in ("nn.B", "nn.A", "c"):
        registry.register(name)(plain)
    assert registry.names("component") == ["c", "nn.A", "nn.B"]
    assert registry.names("component", "nn.*") == ["nn.A", "nn.B"]
    assert registry.names("norm") == []
    assert [entry.name for entry in registry] == ["nn.B", "nn.A", "c"]


def test_copies_are_isolated_both_ways():
    first = Registry()
    first.register("a")(Block)
    second = first.copy()
    second.register("b")(plain)
    first.register("c")(plain)
    assert first.names("component") == ["a", "c"]
    assert second.names("component") == ["a", "b"]


def test_nested_parts_come_from_the_registry_that_decodes():
    empty = Registry()
    empty.register("block")(Block)
    assert "unknown activation 'tanh'" in problems(empty, "component", "block")["activation",]
    empty.register("tanh", slot="activation")(plain)
    spec = empty.decode("component", "block")
    assert spec.options["activation"].entry.target is plain
    assert default_registry.decode("activation", "tanh").entry.target is nn.Tanh


# --- decoding ----------------------------------------------------------------------------------------------------


def test_a_name_a_mapping_and_a_spec_are_alike(registry):
    spec = registry.decode("component", "block")
    assert registry.decode("component", {"type": "block"}) == spec
    assert registry.decode("component", {"type": "block", "hidden": [8, 8], "activation": {"type": "tanh"}}) == spec
    assert registry.decode("component", spec) is spec
    assert part("norm", "layer", registry) == part("norm", {"type": "layer"})


def test_defaults_are_filled_in_and_nested_parts_decoded(registry):
    spec = registry.decode("component", {"type": "block", "inner": "layer"})
    assert spec.options["hidden"] == [8, 8]
    assert isinstance(spec.options["activation"], PartSpec)
    assert spec.options["inner"] == registry.decode("norm", "layer")
    assert spec.options["width"] is UNSET
    assert (spec.slot, spec.type) == ("component", "block")


def test_a_default_list_is_not_shared(registry):
    registry.decode("component", "block").options["hidden"].append(99)
    assert registry.decode("component", "block").options["hidden"] == [8, 8]


def test_the_given_mapping_is_left_alone(registry):
    given = {"type": "block", "hidden": [3]}
    registry.decode("component", given)
    assert given == {"type": "block", "hidden": [3]}


@pytest.mark.parametrize(
    ("value", "path", "text"),
    [
        (3, (), "expected the name of a component or a mapping with 'type'"),
        (None, (), "expected the name of a component"),
        (["block"], (), "expected the name of a component"),
        ({}, (), "'type' is missing: which component?"),
        ({"hidden": [3]}, (), "'type' is missing"),
        ("blok", (), "unknown component 'blok' (did you mean 'block'?)"),
        ({"type": "blok"}, ("type",), "unknown component 'blok' (did you mean 'block'?)"),
        ({"type": 3}, ("type",), "unknown component 3"),
        ({"type": None}, ("type",), "unknown component None"),
        ({"type": ["block"]}, ("type",), "unknown component ['block']"),
    ],
)
def test_what_is_no_part_is_a_problem(registry, value, path, text):
    found = problems(registry, "component", value)
    assert list(found) == [path]
    assert text in found[path]


def test_the_article_fits_the_noun():
    assert "an activation" in problems(default_registry, "activation", 3)[()]


def test_all_problems_come_at_once_with_their_paths(registry):
    found = problems(
        registry,
        "component",
        {
            "type": "block",
            "hidden": [8, 0, "x"],
            "activation": {"type": "elu", "alpha": -1, "beta": 2},
            "iner": "layer",
        },
    )
    assert set(found) == {("hidden", 1), ("hidden", 2), ("activation", "alpha"), ("activation", "beta"), ("iner",)}
    assert found["hidden", 1] == "must be > 0, found 0"
    assert found["hidden", 2] == "expected an integer, found 'x'"
    assert found["activation", "alpha"] == "must be > 0, found -1"
    assert "did you mean 'inner'?" in found["iner",]


def test_a_nested_type_that_is_unknown_is_a_problem_at_its_place(registry):
    assert list(problems(registry, "component", {"type": "block", "activation": "reluu"})) == [("activation",)]
    found = problems(registry, "component", {"type": "block", "inner": {"type": "layr"}})
    assert list(found) == [("inner", "type")]
    assert "did you mean 'layer'?" in found["inner", "type"]


def test_a_spec_of_another_slot_is_refused(registry):
    relu = registry.decode("activation", "relu")
    with pytest.raises((ValidationError, RegistryError)):
        registry.decode("norm", relu)
    with pytest.raises((ValidationError, RegistryError)):
        registry.decode("component", {"type": "block", "inner": relu})


# --- specs -------------------------------------------------------------------------------------------------------


def test_equal_specs_are_one_key(registry):
    first = registry.decode("component", {"type": "block", "hidden": [3], "inner": {"type": "layer", "eps": 1e-3}})
    second = registry.decode("component", {"inner": {"eps": 1e-3, "type": "layer"}, "hidden": [3], "type": "block"})
    assert first == second
    assert hash(first) == hash(second)
    assert {first: 1}[second] == 1


@pytest.mark.parametrize("change", [{"hidden": [4]}, {"activation": "relu"}, {"inner": "rms"}, {"width": 3}])
def test_specs_with_other_options_differ(registry, change):
    assert registry.decode("component", {"type": "block", **change}) != registry.decode("component", "block")


def test_specs_of_other_types_differ():
    first, second = Registry(), Registry()
    first.register("x")(plain)
    second.register("x")(lambda scale=1.0: nn.Identity())
    assert first.decode("component", "x") != second.decode("component", "x")
    assert first.decode("component", "x") != "x"
    assert default_registry.decode("activation", "relu") != default_registry.decode("activation", "tanh")


def test_numbers_of_either_kind_are_one_option():
    one = default_registry.decode("activation", {"type": "elu", "alpha": 1})
    assert one == default_registry.decode("activation", {"type": "elu", "alpha": 1.0})


def test_a_spec_encodes_to_what_decodes_to_it(registry):
    spec = registry.decode("component", {"type": "block", "inner": {"type": "group", "groups": 2}, "width": 7})
    assert spec.encode() == {
        "type": "block",
        "width": 7,
        "hidden": [8, 8],
        "activation": {"type": "tanh"},
        "inner": {"type": "group", "groups": 2, "eps": 1e-5},
    }
    assert registry.decode("component", spec.encode()) == spec


def test_a_section_among_the_options_is_encoded_as_plain_data():
    spec = default_registry.decode("algorithm", {"type": "ppo", "nonfinite": {"max": 3}})
    assert spec.encode()["nonfinite"] == {"max": 3}
    assert default_registry.decode("algorithm", spec.encode()) == spec


def test_a_spec_shows_its_type_and_options(registry):
    assert repr(registry.decode("activation", {"type": "elu", "alpha": 0.5})) == (
        'PartSpec(activation: {"type": "elu", "alpha": 0.5})'
    )


def test_a_spec_survives_pickling():
    spec = default_registry.decode("component", {"type": "mlp", "hidden": [3], "norm": "layer"})
    twin = pickle.loads(pickle.dumps(spec))
    assert twin == spec
    assert hash(twin) == hash(spec)
    assert twin.options["in_features"] is UNSET
    assert isinstance(twin.build(flat_features=4), nn.Module)
    assert twin.entry.schema.decode({}, {"registry": default_registry})["hidden"] == [64, 64]


# --- inferred arguments ------------------------------------------------------------------------------------------


def test_build_supplies_what_is_inferred(registry):
    block = registry.decode("component", "block").build(features=5, event_shape=(5,), unused=1)
    assert (block.width, block.shape, block.hidden) == (5, (5,), [8, 8])


def test_an_optional_inference_may_stay_unknown(registry):
    assert registry.decode("component", "block").build(features=5).shape == ()


def test_a_needed_inference_that_nobody_supplies_is_said(registry):
    with pytest.raises(TypeError, match=r"component 'block' needs 'width' \(features\), which nothing supplies here"):
        registry.decode("component", "block").build()


def test_a_stated_argument_stands_in_for_an_inference_that_nobody_supplies(registry):
    spec = registry.decode("component", {"type": "block", "width": 7})
    assert spec.stated() == {"width": 7}
    assert spec.build().width == 7
    assert registry.decode("component", "block").stated() == {}


def test_a_stated_argument_that_differs_is_refused_wherever_the_part_is_nested():
    right = {"type": "mlp", "in_keys": "x", "hidden": [8], "norm": {"type": "layer", "features": 8}}
    config = {"inputs": {"x": [4]}, "components": {"a": right}}
    assert build_model(config)(torch.zeros(1, 4)).shape == (1, 8)
    right["norm"] = {"type": "layer", "features": 7}
    with pytest.raises(ValueError, match=r"features.*7.*8"):
        build_model(config)


def test_a_stated_argument_is_checked_like_any_other(registry):
    assert list(problems(registry, "component", {"type": "block", "width": "x"})) == [("width",)]
    assert list(problems(registry, "component", {"type": "block", "width": True})) == [("width",)]


def test_two_builds_of_one_spec_share_nothing():
    spec = default_registry.decode("component", {"type": "mlp", "norm": "layer"})
    first, second = spec.build(flat_features=3), spec.build(flat_features=3)
    assert not {id(m) for m in first.modules()} & {id(m) for m in second.modules()}


def test_what_a_part_does_to_its_options_does_not_reach_the_next():
    registry = Registry()

    @registry.register("greedy")
    def greedy(sizes: list[int] = [1, 2]) -> nn.Module:  # noqa: B006 - that it is written to is the point
        """Empties its list."""
        sizes.clear()
        return nn.Identity()

    spec = registry.decode("component", "greedy")
    spec.build()
    assert spec.options["sizes"] == [1, 2]


# --- plugins -----------------------------------------------------------------------------------------------------

PLUGIN = """
from torch import nn
from policysmith.registry import register

@register({name!r})
class Mine(nn.Module):
    \"\"\"From a plugin.\"\"\"

    def __init__(self, scale: float = 2.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return x * self.scale
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A plugin file; what it registers is forgotten afterwards."""
    entries = {slot: dict(types) for slot, types in default_registry._entries.items()}
    monkeypatch.setattr(default_registry, "_entries", entries)
    file = tmp_path / "my_parts.py"
    file.write_text(PLUGIN.format(name="mine"), encoding="utf-8")
    yield file
    for name in [n for n in sys.modules if n.startswith("policysmith_plugin_")]:
        del sys.modules[name]


def test_a_plugin_file_registers_types(plugin):
    load_plugin_file(plugin)
    spec = default_registry.decode("component", {"type": "mine", "scale": 3.0})
    assert spec.entry.summary == "From a plugin."
    model = build_model({"inputs": {"x": [2]}, "components": {"a": {"type": "mine", "in_keys": "x"}}})
    assert model(torch.ones(1, 2)).tolist() == [[2, 2]]
    assert isinstance(pickle.loads(pickle.dumps(spec.build())), nn.Module)


def test_a_plugin_file_may_be_named_by_text_and_loaded_twice(plugin):
    load_plugin_file(str(plugin))
    load_plugin_file(plugin)
    assert "mine" in default_registry.names("component")


def test_two_plugin_files_of_one_name_stay_apart(plugin, tmp_path):
    other = tmp_path / "elsewhere" / plugin.name
    other.parent.mkdir()
    other.write_text(PLUGIN.format(name="theirs"), encoding="utf-8")
    load_plugin_file(plugin)
    load_plugin_file(other)
    for name in ("mine", "theirs"):
        built = default_registry.decode("component", name).build()
        assert type(pickle.loads(pickle.dumps(built))) is type(built)


def test_a_plugin_that_takes_a_name_of_ours_is_refused(plugin):
    plugin.write_text(PLUGIN.format(name="mlp"), encoding="utf-8")
    with pytest.raises(RegistryError, match=r"component 'mlp' is already registered by policysmith\.parts\.mlp\.MLP"):
        load_plugin_file(plugin)


def test_a_missing_plugin_file_is_said_with_its_path(tmp_path):
    with pytest.raises(RegistryError, match=r"no plugin file at .*nothing\.py"):
        load_plugin_file(tmp_path / "nothing.py")
    with pytest.raises(RegistryError, match="no plugin file at"):
        load_plugin_file(tmp_path)


def test_a_plugin_that_fails_leaves_nothing_behind(plugin):
    plugin.write_text("raise RuntimeError('broken plugin')", encoding="utf-8")
    with pytest.raises(RuntimeError, match="broken plugin"):
        load_plugin_file(plugin)
    assert not [name for name in sys.modules if name.startswith("policysmith_plugin_")]


def test_entry_points_are_loaded_into_the_registry_that_asks(monkeypatch):
    def plugin_of(registry: Registry) -> None:
        registry.register("from_entry_point")(plain)

    class Point:
        def load(self) -> Any:
            return plugin_of

    asked: list[str] = []
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: asked.append(group) or [Point()])
    registry = Registry()
    registry.load_plugins()
    assert asked == ["policysmith.plugins"]
    assert registry.names("component") == ["from_entry_point"]
    assert "from_entry_point" not in default_registry.names("component")


def test_the_module_level_decorator_is_that_of_the_default_registry():
    assert register.__self__ is default_registry


def test_what_a_part_is_given_in_python_is_checked_like_a_file():
    with pytest.raises(ConfigError, match=r"unknown norm 'lyer' \(did you mean 'layer'\?\)"):
        part("norm", "lyer")
    with pytest.raises(ConfigError, match="kv_rnk: unknown option of 'mla'"):
        part("attention", {"type": "mla", "kv_rnk": 3})


class Stopper:
    """A callback as another library has them."""

    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize("slot", ["callback", "schedule"])
def test_a_class_whose_instances_are_no_functions_is_refused_where_they_are_called(slot):
    said = rf"{slot} 'own' gives a `Stopper`, which has no __call__: a {slot} is a function of"
    with pytest.raises(RegistryError, match=said):
        Registry().register("own", slot=slot)(Stopper)


@pytest.mark.parametrize(("slot", "said"), [
    ("callback", "has no __call__: a callback is a function of a report that returns whether to stop"),
    ("schedule", "has no __call__: a schedule is a function of progress"),
    ("logger", r"has no report: define report\(report, steps_per_second\)"),
    ("optimizer", r"has no make: define make\(groups\), which returns a torch.optim.Optimizer"),
])  # fmt: skip
def test_what_a_function_gives_is_what_its_slot_is_for(slot, said):
    registry = Registry()
    registry.register("own", slot=slot)(lambda: Stopper())
    with pytest.raises(RegistryError, match=rf"{slot} 'own' gives a `Stopper`, which {said}"):
        registry.decode(slot, "own").build()


def test_methods_that_an_instance_gets_when_it_is_made_are_its_own():
    class Logger:
        def __init__(self) -> None:
            self.report, self.close = (lambda report, speed: None), (lambda: None)

    registry = Registry()
    registry.register("own", slot="logger")(Logger)
    assert isinstance(registry.decode("logger", "own").build(), Logger)


def test_a_plugin_that_is_no_python_file_is_told_so(tmp_path):
    file = tmp_path / "camera.yaml"
    file.write_text("format: 1\n")
    with pytest.raises(RegistryError, match=r"the plugin .*camera\.yaml is no Python file: it must end in \.py"):
        load_plugin_file(file)


@pytest.mark.parametrize(
    ("option", "told"), [("in_features", True), ("input_dim", True), ("interval", False), ("observation", False)]
)
def test_a_required_size_of_the_input_could_be_marked(option, told):
    def own(size: int) -> None: ...

    own.__signature__ = inspect.Signature([inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, annotation=int)])
    registry = Registry()
    registry.register("own")(own)
    with pytest.raises(ValidationError) as caught:
        registry.decode("component", "own")
    ((_, message),) = failures(caught.value)
    assert message.startswith("required option of 'own' is missing")
    assert ("Annotated[int, Infer('flat_features')]" in message) == told


def part_or_none(registry: Registry, name: str) -> PartSpec | None:
    try:
        return part("activation", name, registry)
    except ConfigError:
        return None


class TestRooms:
    """Modules that register types are imported when a name is not known, or all names are asked for."""

    @pytest.fixture
    def room(self, tmp_path, monkeypatch):
        """`room()` makes a module that registers `made_up_here`, with a registry that knows of it; once each."""
        monkeypatch.syspath_prepend(tmp_path)
        made = []

        def make(body: str = "") -> tuple[Registry, str]:
            name = f"room_of_a_test_{len(made)}"
            made.append(name)
            (tmp_path / f"{name}.py").write_text(body)
            monkeypatch.delitem(sys.modules, name, raising=False)
            return Registry(default_registry.copy(), rooms=[name]), name

        yield make
        for name in made:
            sys.modules.pop(name, None)

    def test_a_name_that_is_known_imports_nothing(self, room):
        registry, name = room()
        assert registry.entry("activation", "relu").name == "relu"
        registry.register("another")(Block)
        assert name not in sys.modules

    @pytest.mark.parametrize(
        "ask",
        [
            lambda registry: registry.names("activation"),
            lambda registry: list(registry),
            lambda registry: registry.copy(),
            lambda registry: part_or_none(registry, "reluu"),
        ],
    )
    def test_whoever_needs_all_names_gets_them(self, room, ask):
        registry, name = room()
        ask(registry)
        assert name in sys.modules

    def test_a_room_that_fails_fails_again(self, room):
        registry, _ = room("1 / 0")
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                registry.names("activation")

    def test_a_room_may_ask_for_names_while_it_is_imported(self, room):
        registry, name = room("import policysmith.registry as r\nFOUND = r.default_registry.names('activation')")
        assert "relu" in registry.names("activation")
        assert "relu" in sys.modules[name].FOUND
