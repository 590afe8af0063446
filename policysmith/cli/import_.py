"""`policysmith import`: what another system has stored becomes a policy of ours."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policysmith.cli.command import with_plugins
from policysmith.cli.output import chatter_to_stderr, command_line, count, facts, shown_path
from policysmith.errors import PolicysmithError, did_you_mean
from policysmith.importers import DIALECTS

if TYPE_CHECKING:
    from policysmith.importers import Imported, Importer

__all__ = ["import_policy"]

SIDES = re.compile(r"([1-9]\d{0,5})[x×]([1-9]\d{0,5})", re.IGNORECASE)


def check_dialect(name: str) -> str:
    """The name, where it is one of a dialect; a usage error otherwise."""
    if name not in DIALECTS:
        raise typer.BadParameter(
            f"unknown dialect {name!r}{did_you_mean(name, DIALECTS)}; there are: {', '.join(DIALECTS)}"
        )
    return name


def check_sides(text: str | None) -> str | None:
    """The text, where it tells the two sides of a board; a usage error otherwise."""
    if text is not None and not SIDES.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is no size of a board: write height x width, as in 9x9")
    return text


def import_policy(
    ctx: typer.Context,
    dialect: Annotated[
        str, typer.Argument(metavar="DIALECT", callback=check_dialect, help=f"Who wrote it: {', '.join(DIALECTS)}.")
    ],
    checkpoint: Annotated[Path, typer.Argument(metavar="FILE", help="The checkpoint: .pt, .pth or .safetensors.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="The directory in which the policy is stored.")],
    board_size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", callback=check_sides, help="The board, where the weights alone do not tell its sides."
        ),
    ] = None,
    input_channels: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Planes of an observation, if others than the weights read."),
    ] = None,
    resize_input: Annotated[
        bool,
        typer.Option("--resize-input", help="Allow that: add planes with zero weights, or cut the last ones off."),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The model's options in JSON or YAML, where the checkpoint holds none."),
    ] = None,
    unmasked: Annotated[
        bool,
        typer.Option("--unmasked", help="Let steps of decoder_only pyramids see later ones, as the original did."),
    ] = False,
) -> None:
    """Import a policy that another system has stored.

    Sizes follow from the weights, or from the configuration stored with them. Nothing in the file is run: one that
    holds more than plain data is refused.

    Examples:
        policysmith import keisei old.pt --output runs/shogi
        policysmith import keisei old.pt --output runs/small --board-size 5x6
        policysmith import model-config old.pt --output runs/trader
    """
    if resize_input and input_channels is None:
        raise typer.BadParameter("give the number of planes with --input-channels", param_hint="--resize-input")
    if (output / "manifest.json").exists():
        raise PolicysmithError(f"{output} holds a policy already: choose another --output")
    given = {
        "board_size": _sides(board_size),
        "input_channels": input_channels,
        "resize_input": resize_input or None,
        "config": config,
        "unmasked": unmasked or None,
    }
    with chatter_to_stderr():
        from policysmith import api
        from policysmith.importers import find_importer

        read = find_importer(dialect)
        imported = read(checkpoint, **_options(dialect, read, given))
        api.save(imported.policy, output)
    _summary(ctx, imported, shown_path(output))


def _sides(text: str | None) -> tuple[int, int] | None:
    match = SIDES.fullmatch(text) if text else None
    return (int(match[1]), int(match[2])) if match else None


def _options(dialect: str, read: Importer, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, where the dialect's importer takes all of it."""
    stated = {name: value for name, value in given.items() if value is not None}
    for name in stated:
        if name not in inspect.signature(read).parameters:
            option = f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"checkpoints of {dialect} take no such option", param_hint=option)
    return stated


def _summary(ctx: typer.Context, imported: Imported, place: str) -> None:
    policy = imported.policy
    model = policy.config["model"]
    options = [f"{name} {value}" for name, value in _told(model) if name != "type"]
    rows: dict[str, Any] = {
        "model": f"{model['type']}: {', '.join(options)}",
        "observes": str(policy.observations.space),
        "acts": str(policy.actions.space),
        "weights": count(sum(p.numel() for p in policy.parameters()), "parameter"),
    }
    facts(rows | ({"notes": imported.notes} if imported.notes else {}) | {"policy": place})
    typer.echo()
    facts({"next": command_line(with_plugins(ctx, ["show", place]))})


def _told(model: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The options of a model; of components and other parts the types."""
    for name, value in model.items():
        if name == "components":
            yield from _told(value)
        else:
            yield name, value.get("type", "") if isinstance(value, Mapping) else value
