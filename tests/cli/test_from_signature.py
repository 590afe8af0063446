"""Options follow from a signature: what a function takes is what its command offers, described once."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, get_args

import pytest
import typer
from annotated_types import Ge, Gt, Le

from policysmith.cli.from_signature import options_from, values_from, with_options_of
from policysmith.config.spelling import Named, Spelled, spelled_mapping, spelled_numbers, spelled_sizes

PAIRS = Spelled(
    "NAME=N", spelled_mapping(r"\w+", r"\d+", lambda n, v: (n, int(v)), "is no pair"), repeated=True, flag="--pair"
)


def function(
    path: str,
    *,
    count: int | None = None,
    seed: int = 0,
    loud: bool = False,
    where: str | Path | None = None,
    size: Annotated[tuple[int, int], Spelled("HxW", spelled_sizes(2, "is no size"))] | None = None,
    pairs: Annotated[Mapping[str, int], PAIRS] | None = None,
    registry: object | None = None,
) -> None:
    """A function that a command line may call."""


def marks() -> dict[str, tuple[object, typer.models.OptionInfo]]:
    found = options_from(function, {"count": "how many there are."})
    return {name: get_args(parameter.annotation) for name, parameter in found.items()}


def test_every_keyword_that_a_text_stands_for_is_an_option():
    found = marks()
    assert {name: mark.param_decls[0] if mark.param_decls else mark.default for name, (_, mark) in found.items()} == {
        "count": "--count",
        "seed": "--seed",
        "loud": "--loud",
        "where": "--where",
        "size": "--size",
        "pairs": "--pair",
    }
    assert {name: mark.metavar for name, (_, mark) in found.items() if mark.metavar} == {
        "count": "N", "seed": "N", "where": "FILE", "size": "HxW", "pairs": "NAME=N",
    }  # fmt: skip
    assert found["count"][1].help == "How many there are."
    assert (found["count"][1].min, found["seed"][1].min) == (1, None)


def test_what_was_given_reaches_the_function_as_values():
    given = {"count": 3, "size": "4x5", "pairs": ["a=1", "b=2"], "where": None, "output": "elsewhere"}
    assert values_from(function, given) == {"count": 3, "size": (4, 5), "pairs": {"a": 1, "b": 2}}


@pytest.mark.parametrize(("name", "text"), [("size", "4"), ("size", "4x0"), ("pairs", ["a=1", "b"])])
def test_a_text_that_is_no_value_is_wrong_usage(name, text):
    with pytest.raises(typer.BadParameter, match="is no"):
        marks()[name][1].callback(text)


def test_numbers_are_written_with_commas():
    assert spelled_numbers("1,2.5") == [1.0, 2.5]
    with pytest.raises(ValueError, match="write them with commas"):
        spelled_numbers("1;2")


def verb(
    what: str,
    *,
    rows: Annotated[int, Gt(0), Named(("--rows", "--lines"))] = 5,
    share: Annotated[float, Ge(0), Le(1)] = 0.5,
    greedy: Annotated[bool | None, Named(("--greedy/--drawn",))] = None,
    place: Annotated[str | Path, Named(metavar="DIR")] | None = None,
    hidden: bool = True,
    registry: NotImported | None = None,  # noqa: F821 - as what only type checkers import
) -> None:
    """What a command stands for.

    Args:
        rows: how many there are.
        place: where it goes.
    """


class TestCommandsOfVerbs:
    """A command has the options of the verb behind it, between its arguments and its own options."""

    @pytest.fixture
    def calls(self):
        return []

    @pytest.fixture
    def command(self, calls):
        @with_options_of(verb, without=("what", "hidden"), notes={"place": "elsewhere."})
        def command(name: str, *, quiet: bool = False, **options: object) -> None:
            calls.append((name, quiet, options))

        return command

    def test_its_signature_has_them_in_this_order(self, command):
        assert list(inspect.signature(command).parameters) == ["name", "rows", "share", "greedy", "place", "quiet"]

    def test_bounds_flags_defaults_and_help_are_the_verbs(self, command):
        parameters = inspect.signature(command).parameters
        marks = {name: get_args(parameters[name].annotation)[1] for name in ("rows", "share", "greedy", "place")}
        assert (marks["rows"].param_decls, marks["rows"].min, parameters["rows"].default) == (("--lines",), 1, 5)
        assert (marks["share"].metavar, marks["share"].min, marks["share"].max) == ("SHARE", 0, 1)
        assert (marks["place"].metavar, marks["place"].help) == ("DIR", "Elsewhere.")
        assert marks["rows"].help == "How many there are." and not marks["greedy"].show_default

    def test_what_is_not_said_is_left_to_the_verb(self, command, calls):
        command(name="a", rows=3, share=None, greedy=False, place=None, quiet=True)
        assert calls == [("a", True, {"rows": 3, "greedy": False})]
