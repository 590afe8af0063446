"""Arguments that several commands take, checked before anything heavy is imported."""

from __future__ import annotations

import re
from typing import Annotated

import typer

__all__ = ["Artifact", "AsJson", "Config", "Overrides", "check_overrides", "is_override"]

OVERRIDE = re.compile(r"~[^=\s]+|\+[^=\s]+|[^=~+\s][^=]*=.*", re.DOTALL)


def is_override(text: str) -> bool:
    """Whether the text has the form `a.b=value`, `~a.b` or `+profile`."""
    return OVERRIDE.fullmatch(text) is not None


def check_overrides(texts: list[str] | None) -> list[str]:
    """The overrides, where all of them have the form of one; a usage error otherwise."""
    for text in texts or []:
        if not is_override(text):
            raise typer.BadParameter(
                f"{text!r} is no override: write 'a.b=value' to set (model.hidden=[128]) and '~a.b' to remove; "
                "'+name' lays a profile over the configuration",
                param_hint="OVERRIDE",
            )
    return texts or []


Config = Annotated[
    str,
    typer.Argument(metavar="CONFIG", help="An experiment file, or a preset (see `policysmith list presets`)."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="OVERRIDE",
        callback=check_overrides,
        help="A change: a.b=value sets, ~a.b removes, +name lays a profile (such as fast-inference) over it.",
    ),
]
Artifact = Annotated[
    str, typer.Argument(metavar="ARTIFACT", help="The directory of a stored policy, or store#selector.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]
