"""`policysmith swap`: another component in a stored policy's place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Store the result there; by default in place.")
    ] = None,
    keep_weights: Annotated[
        bool, typer.Option("--keep-weights", help="Start from the overlapping weights of the component before.")
    ] = False,
    resize: Annotated[
        bool, typer.Option("--resize", help="Rebuild, in the same way, what reads an output that changes its shape.")
    ] = False,
    seed: Annotated[int | None, typer.Option(metavar="N", min=0, help="Of the new weights.")] = None,
) -> None:
    """Replace components of a stored policy.

    All is checked against the policy's plan first: a replacement that does not fit changes nothing.

    Examples:
        policysmith swap runs/a actor='{type: mlp, hidden: [128, 64]}' --seed 1
        policysmith swap runs/new actor=runs/old:actor --output runs/both
    """
    with chatter_to_stderr():
        from policysmith import api

        policy = api.swap(artifact, replacements, output=output, keep_weights=keep_weights, resize=resize, seed=seed)
    names = [text.partition("=")[0] for text in replacements]
    rows = {"replaced": ", ".join(names), "weights": count(sum(p.numel() for p in policy.parameters()), "parameter")}
    facts({**rows, "policy": shown_path(output or artifact)})
