"""`policysmith swap`: another component in a stored policy's place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from policysmith import api
from policysmith.cli.from_signature import with_options_of
from policysmith.cli.output import chatter_to_stderr, count, facts, shown_path

__all__ = ["swap"]


def check_replacements(texts: list[str]) -> list[str]:
    """The replacements, where all of them have the form of one; a usage error otherwise."""
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals and value.strip()):
            raise typer.BadParameter(
                f"{text!r} is no replacement: write component=type, component='{{type: mlp, hidden: [64]}}', or "
                "component=other/artifact:component"
            )
    return texts


@with_options_of(api.swap)
def swap(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="The directory of a stored policy.")],
    replacements: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=NEW",
            callback=check_replacements,
            help="A component and what replaces it: a type, a mapping, or another artifact's (directory:component).",
        ),
    ],
    **options: Any,
) -> None:
    """Replace components of a stored policy.

    All is checked against the policy's plan first: a replacement that does not fit changes nothing.

    Examples:
        policysmith swap runs/a actor='{type: mlp, hidden: [128, 64]}' --seed 1
        policysmith swap runs/new actor=runs/old:actor --output runs/both
    """
    with chatter_to_stderr():
        policy = api.swap(artifact, replacements, **options)
    names = [text.partition("=")[0] for text in replacements]
    rows = {"replaced": ", ".join(names), "weights": count(sum(p.numel() for p in policy.parameters()), "parameter")}
    facts({**rows, "policy": shown_path(options.get("output", artifact))})
