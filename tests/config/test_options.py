"""A typed signature becomes a strict schema whose every message says what was found and what is allowed."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import ValidationError

from policysmith.config.options import UNSET, Infer, OptionSchema, Section, Slot, Unset, error_at, failures, located
from policysmith.registry import Registry


def schema(target: Any, title: str = "thing", **options: Any) -> OptionSchema:
    return OptionSchema(target, title, **options)


def decode(target: Any, registry: Registry | None = None, /, **options: Any) -> dict[str, Any]:
    return schema(target).decode(options, {"registry": registry or Registry()})


def problems(target: Any, registry: Registry | None = None, /, **options: Any) -> dict[Any, str]:
    """Problems by path, written with dots."""
    with pytest.raises(ValidationError) as caught:
        decode(target, registry, **options)
    found = failures(caught.value)
    assert len({path for path, _ in found}) == len(found), "one message a place"
    return {".".join(map(str, path)): message for path, message in found}


def only(target: Any, **options: Any) -> str:
    (message,) = problems(target, **options).values()
    return message


# --- what a signature says ---------------------------------------------------------------------------------------


def test_defaults_are_filled_in_in_the_order_of_the_signature():
    def target(a: int, b: float = 0.5, *, c: str | None = None, d: list[int] = [1]) -> None: ...  # noqa: B006

    assert decode(target, a=3) == {"a": 3, "b": 0.5, "c": None, "d": [1]}
    assert list(decode(target, d=[2], a=3)) == ["a", "b", "c", "d"]


def test_self_and_variable_arguments_are_no_options():
    class Target:
        def __init__(self, a: int = 1, *args: Any, **kwargs: Any) -> None: ...

    assert decode(Target) == {"a": 1}
    assert "kwargs" in problems(Target, kwargs=1)


def test_excluded_parameters_are_no_options():
    def target(a: int = 1, device: str = "cpu") -> None: ...

    assert list(schema(target, exclude=["device"]).parameters) == ["a"]


def test_annotations_can_be_replaced():
    def target(a=3) -> None: ...

    replaced = schema(target, annotations={"a": Annotated[int, Gt(0)]})
    assert replaced.decode({"a": 4}, {}) == {"a": 4}
    with pytest.raises(ValidationError):
        replaced.decode({"a": 0}, {})


def test_a_default_of_none_makes_null_legal():
    def target(stride: int = None) -> None: ...  # type: ignore[assignment] # noqa: RUF013 - as torch writes it

    assert decode(target) == decode(target, stride=None) == {"stride": None}
    assert decode(target, stride=2) == {"stride": 2}


def test_dataclass_factories_are_defaults():
    @dataclass
    class Options:
        names: list[str] = field(default_factory=lambda: ["a"])
        table: dict[str, int] = field(default_factory=dict)

    first = decode(Options)
    assert first == {"names": ["a"], "table": {}}
    first["names"].append("b")
    assert decode(Options)["names"] == ["a"]


def test_a_mutable_default_is_not_shared():
    def target(sizes: list[int] = [1]) -> None: ...  # noqa: B006

    decode(target)["sizes"].append(2)
    assert decode(target) == {"sizes": [1]}


# --- strictness --------------------------------------------------------------------------------------------------


def typed(
    whole: int = 0,
    number: float = 0.0,
    text: str = "",
    switch: bool = False,
    many: list[int] = [],  # noqa: B006
    table: dict[str, float] = {},  # noqa: B006
    one_of: Literal["fan_in", "fan_out"] = "fan_in",
) -> None:
    """All plain types."""


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("whole", True, "expected an integer, found true"),
        ("whole", False, "expected an integer, found false"),
        ("whole", 1.0, "expected an integer, found 1.0"),
        ("whole", 1.5, "expected an integer, found 1.5"),
        ("whole", "1", "expected an integer, found '1'"),
        ("whole", None, "expected an integer, found null"),
        ("whole", [1], "expected an integer, found [1]"),
        ("number", True, "expected a number, found true"),
        ("number", "0.5", "expected a number, found '0.5'"),
        ("number", None, "expected a number, found null"),
        ("text", 1, "expected a text, found 1"),
        ("text", True, "expected a text, found true"),
        ("switch", 1, "expected true or false, found 1"),
        ("switch", "yes", "expected true or false, found 'yes'"),
        ("switch", None, "expected true or false, found null"),
        ("many", 1, "expected a list, found 1"),
        ("many", "12", "expected a list, found '12'"),
        ("many", {"a": 1}, "expected a list, found {'a': 1}"),
        ("table", [1], "expected a mapping, found [1]"),
        ("one_of", "fan_ni", "unknown value 'fan_ni' (did you mean 'fan_in'?); allowed: fan_in, fan_out"),
        ("one_of", 3, "unknown value 3; allowed: fan_in, fan_out"),
        ("one_of", None, "unknown value null; allowed: fan_in, fan_out"),
    ],
)
def test_a_value_of_the_wrong_type_is_said_as_yaml_shows_it(option, value, message):
    assert problems(typed, **{option: value}) == {option: message}


def test_values_inside_lists_and_mappings_have_their_own_path():
    found = problems(typed, many=[1, True, "x"], table={"a": 1, "b": "x"})
    assert found == {
        "many.1": "expected an integer, found true",
        "many.2": "expected an integer, found 'x'",
        "table.b": "expected a number, found 'x'",
    }


def test_an_integer_is_a_number():
    assert decode(typed, number=3)["number"] == 3.0
    assert isinstance(decode(typed, number=3)["number"], float)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_bound_holds_for_odd_numbers_too(value):
    def target(rate: Annotated[float, Gt(0), Lt(1)] = 0.5) -> None: ...

    assert "rate" in problems(target, rate=value)


@pytest.mark.parametrize(
    ("bound", "value", "message"),
    [
        (Gt(0), 0, "must be > 0, found 0"),
        (Ge(1), 0, "must be ≥ 1, found 0"),
        (Lt(1), 1, "must be < 1, found 1"),
        (Le(0.5), 0.75, "must be ≤ 0.5, found 0.75"),
        (Gt(0), -1.5, "must be > 0, found -1.5"),
    ],
)
def test_a_bound_is_said_with_its_sign(bound, value, message):
    def target(x=None) -> None: ...

    kind = float if isinstance(value, float) else int
    with pytest.raises(ValidationError) as caught:
        schema(target, annotations={"x": Annotated[kind, bound]}).decode({"x": value}, {})
    assert failures(caught.value) == [(("x",), message)]


def test_a_list_that_is_too_short_is_said():
    def target(names: Annotated[list[str], MinLen(1)] = ["a"], name: Annotated[str, MinLen(1)] = "a") -> None: ...  # noqa: B006

    assert problems(target, names=[])["names"] == "needs at least 1 entry, found 0"
    assert "found ''" in problems(target, name="")["name"]


def test_a_long_value_is_cut():
    message = only(typed, whole="x" * 500)
    assert len(message) < 120
    assert message.endswith("…")


# --- unions ------------------------------------------------------------------------------------------------------

Size = Annotated[int, Gt(0)]


def union(
    size: Size | list[Size] = 1,
    flag: bool | list[str] = False,
    maybe: Size | None = None,
    rate: float | Literal["auto"] = "auto",
) -> None:
    """Options of several types."""


@pytest.mark.parametrize(
    ("option", "value", "path", "message"),
    [
        ("size", "big", "size", "expected an integer or a list of integers, found 'big'"),
        ("size", True, "size", "expected an integer or a list of integers, found true"),
        ("size", 1.5, "size", "expected an integer or a list of integers, found 1.5"),
        ("size", None, "size", "expected an integer or a list of integers, found null"),
        ("size", 0, "size", "must be > 0, found 0"),
        ("size", [3, 0], "size.1", "must be > 0, found 0"),
        ("size", [3, "x"], "size.1", "expected an integer, found 'x'"),
        ("size", [3, True], "size.1", "expected an integer, found true"),
        ("flag", 3, "flag", "expected true or false or a list of texts, found 3"),
        ("flag", [3], "flag.0", "expected a text, found 3"),
        ("maybe", "x", "maybe", "expected an integer, found 'x'"),
        ("maybe", 0, "maybe", "must be > 0, found 0"),
        ("rate", True, "rate", "expected a number or 'auto', found true"),
    ],
)
def test_a_union_names_its_branches_or_follows_the_one_that_was_meant(option, value, path, message):
    assert problems(union, **{option: value}) == {path: message}


def test_a_misspelt_word_in_a_union_names_the_other_branch_too():
    message = problems(union, rate="atuo")["rate"]
    assert "'auto'" in message and "a number" in message


def test_every_branch_of_a_union_is_taken():
    assert decode(union, size=[1, 2], flag=["a"], maybe=None, rate=0.5) == {
        "size": [1, 2],
        "flag": ["a"],
        "maybe": None,
        "rate": 0.5,
    }
    assert decode(union, size=3, flag=True, maybe=4, rate="auto")["maybe"] == 4


# --- all at once -------------------------------------------------------------------------------------------------


def test_unknown_missing_and_wrong_options_come_together():
    def target(hidden_size: int, layers: int = 1, rate: float = 0.1) -> None: ...

    assert problems(target, hiden_size=3, layers="two", rate=0.2, zzz=1) == {
        "hidden_size": "required option of 'thing' is missing",
        "layers": "expected an integer, found 'two'",
        "hiden_size": "unknown option of 'thing' (did you mean 'hidden_size'?)",
        "zzz": "unknown option of 'thing'; it has: hidden_size, layers, rate",
    }


def test_a_type_without_options_says_so():
    assert problems(lambda: None, x=1) == {"x": "unknown option of 'thing'; it has: none"}


# --- inferred ----------------------------------------------------------------------------------------------------


def inferring(
    width: Annotated[int, Infer("features")], depth: Annotated[int, Infer("depth")] = 2, size: int = 3
) -> None:
    """Two inferred arguments."""


def test_inferred_arguments_are_optional_and_marked_unset():
    found = schema(inferring)
    assert found.inferred == {"width": "features", "depth": "depth"}
    assert found.optional_inferred == {"depth"}
    assert decode(inferring) == {"width": UNSET, "depth": UNSET, "size": 3}
    assert decode(inferring, width=5)["width"] == 5


def test_inferred_arguments_are_not_offered():
    assert problems(inferring, zzz=1) == {"zzz": "unknown option of 'thing'; it has: size"}


def test_unset_is_one_object_everywhere():
    assert pickle.loads(pickle.dumps(UNSET)) is UNSET
    assert isinstance(UNSET, Unset)
    assert repr(UNSET) == "unset"


# --- nested ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inner:
    """A section."""

    count: Annotated[int, Gt(0)] = 1
    names: list[str] = field(default_factory=list)


def outer(
    inner: Annotated[Inner, Section(Inner, "inner")] | None = None,
    part: Annotated[Any, Slot("norm")] | None = None,
    parts: list[Annotated[Any, Slot("norm")]] = [],  # noqa: B006
    table: dict[str, Annotated[Any, Slot("norm")]] = {},  # noqa: B006
) -> None:
    """Nested parts and a section."""


@pytest.fixture
def registry() -> Registry:
    fresh = Registry()

    @fresh.register("layer", slot="norm")
    def layer(eps: Annotated[float, Gt(0)] = 1e-5, inner: Annotated[Any, Slot("norm")] | None = None) -> None:
        """A norm that may hold another."""

    return fresh


def test_a_section_becomes_its_dataclass(registry):
    assert decode(outer, registry, inner={"count": 3})["inner"] == Inner(3, [])
    assert decode(outer, registry, inner=Inner(4))["inner"] == Inner(4)
    assert decode(outer, registry)["inner"] is None


def test_problems_of_a_section_have_full_paths(registry):
    assert problems(outer, registry, inner={"count": 0, "nmaes": [], "names": [1]}) == {
        "inner.count": "must be > 0, found 0",
        "inner.names.0": "expected a text, found 1",
        "inner.nmaes": "unknown option of 'inner' (did you mean 'names'?)",
    }
    assert problems(outer, registry, inner=3) == {"inner": "expected a mapping, found 3"}
    assert problems(outer, registry, inner=True) == {"inner": "expected a mapping, found true"}


def test_problems_of_nested_parts_have_full_paths_however_deep(registry):
    found = problems(
        outer,
        registry,
        part={"type": "layer", "inner": {"type": "layer", "inner": {"type": "layer", "eps": 0}}},
        parts=["layer", "layr", {"type": "layer", "epss": 1}],
        table={"a": {"type": "layer", "eps": "x"}, "b": {}},
    )
    assert found == {
        "part.inner.inner.eps": "must be > 0, found 0",
        "parts.1": "unknown norm 'layr' (did you mean 'layer'?); known: layer",
        "parts.2.epss": "unknown option of 'layer' (did you mean 'eps'?)",
        "table.a.eps": "expected a number, found 'x'",
        "table.b": "'type' is missing: which norm?",
    }


def test_nested_parts_are_decoded_everywhere(registry):
    found = decode(outer, registry, part="layer", parts=["layer"], table={"a": {"type": "layer", "eps": 0.1}})
    assert found["part"] == registry.decode("norm", "layer")
    assert found["parts"][0].type == "layer"
    assert found["table"]["a"].options["eps"] == 0.1


# --- the helpers that other decoders use -------------------------------------------------------------------------


def test_a_message_may_hold_braces_and_percent_signs():
    error = located("x", [error_at(("a", 0), "write {type: mlp} or 50 %s {0}", {"any": 1})])
    assert failures(error) == [(("a", 0), "write {type: mlp} or 50 %s {0}")]


def test_a_schema_survives_pickling_after_use():
    before = schema(inferring)
    before.decode({}, {})
    after = pickle.loads(pickle.dumps(before))
    assert after.decode({"width": 2}, {}) == before.decode({"width": 2}, {})
    assert after.title == "thing"


def test_what_is_inferred_stays_so_when_its_default_is_none():
    def build(width: Annotated[int, Infer("features")] = None): ...  # noqa: RUF013 - as torch writes it

    schema = OptionSchema(build, "it")
    assert schema.inferred == {"width": "features"} and schema.optional_inferred == {"width"}
    assert isinstance(schema.decode({}, {})["width"], Unset)
