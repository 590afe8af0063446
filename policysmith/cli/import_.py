"""`policysmith import`: what another system has stored becomes a policy of ours."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from policysmith.cli.command import with_plugins
from policysmith.cli.output import chatter_to_stderr, command_line, count, facts, shown_path
from policysmith.errors import PolicysmithError, did_you_mean

__all__ = ["import_policy"]

# The names alone, as the registry has them: help needs no registry, which imports pydantic.
DIALECTS = sorted(name for slot, name in importlib.import_module("policysmith.dialects").TYPES if slot == "grammar")

EVENT = re.compile(r"([A-Za-z_]\w*)=([1-9]\d{0,5}(?:[x×][1-9]\d{0,5})*)", re.IGNORECASE)
LARGEST = re.compile(r"([^=,\s]+)=(\d{1,6})")
GRID = re.compile(r"([1-9]\d{0,5})[x×]([1-9]\d{0,5})[x×]([1-9]\d{0,5})", re.IGNORECASE)
SKILL = re.compile(r"(\d{1,9})=(.*\S.*)")
SIDES = re.compile(r"([1-9]\d{0,5})[x×]([1-9]\d{0,5})", re.IGNORECASE)


def check_dialect(name: str) -> str:
    """The name, where it is one of a dialect; a usage error otherwise."""
    from policysmith.registry import default_registry

    known = default_registry.names("grammar")
    if name not in known:
        raise typer.BadParameter(f"unknown dialect {name!r}{did_you_mean(name, known)}; there are: {', '.join(known)}")
    return name


def check_sides(text: str | None) -> str | None:
    """The text, where it tells the two sides of a board; a usage error otherwise."""
    if text is not None and not SIDES.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is no size of a board: write height x width, as in 9x9")
    return text


def check_grid(text: str | None) -> str | None:
    """The text, where it tells a grid of features; a usage error otherwise."""
    if text is not None and not GRID.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is no grid: write height x width x features, as in 11x11x22")
    return text


def check_events(texts: list[str] | None) -> list[str] | None:
    """The texts, where each tells an input's shape; a usage error otherwise."""
    for text in texts or []:
        if not EVENT.fullmatch(text):
            raise typer.BadParameter(f"{text!r} is no input: write its name and one row's shape, as in image=3x84x84")
    return texts


def check_actions(text: str | None) -> str | None:
    """The text, where it lists action types; a usage error otherwise."""
    if text is not None and not all(LARGEST.fullmatch(entry.strip()) for entry in text.split(",")):
        raise typer.BadParameter(
            f"{text!r} are no actions: write types with their largest parameter, as in noop=0,move=1"
        )
    return text


def check_numbers(text: str | None) -> str | None:
    """The text, where it lists numbers; a usage error otherwise."""
    try:
        [float(number) for number in (text or "0").split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} are no numbers: write them with commas, as in 1,10,255") from None
    return text


def check_skills(texts: list[str] | None) -> list[str] | None:
    """The texts, where each tells an expert's skill; a usage error otherwise."""
    for text in texts or []:
        if not SKILL.fullmatch(text):
            raise typer.BadParameter(f"{text!r} is no skill: write the expert's number and its name, as in 0=Wood")
    return texts


def import_policy(
    ctx: typer.Context,
    dialect: Annotated[
        str, typer.Argument(metavar="DIALECT", callback=check_dialect, help=f"Who wrote it: {', '.join(DIALECTS)}.")
    ],
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="The checkpoint: .pt, .pth or .safetensors; of flowrl .npz, of metta and policy-constructor the YAML.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The directory in which the policy is stored.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Argument(metavar="WEIGHTS", help="metta, policy-constructor: the weights; without them they start anew."),
    ] = None,
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
    obs_shape: Annotated[
        str | None,
        typer.Option(metavar="HxWxC", callback=check_grid, help="metta: the grid of an observation, as in 11x11x22."),
    ] = None,
    actions: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE=MAX,…",
            callback=check_actions,
            help="metta: action types with their largest parameter, as in noop=0,move=1.",
        ),
    ] = None,
    trained_actions: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE=MAX,…",
            callback=check_actions,
            help="metta: the actions of the weights, where --actions are others.",
        ),
    ] = None,
    feature_max: Annotated[
        str | None,
        typer.Option(
            metavar="N,…",
            callback=check_numbers,
            help="metta: what each feature is divided by, where no weights tell.",
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=SHAPE",
            callback=check_events,
            help="policy-constructor: the shape of one row of an input, as in image=3x84x84; one for each.",
        ),
    ] = None,
    library: Annotated[
        Path | None, typer.Option(metavar="DIR", help="flowrl: take the experts up into this library of skills.")
    ] = None,
    remap: Annotated[
        Path | None, typer.Option(metavar="FILE", help="flowrl: the remap.json of the run that the experts are from.")
    ] = None,
    skill: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INDEX=NAME", callback=check_skills, help="flowrl: whose an expert is, by its number there."
        ),
    ] = None,
    activation: Annotated[
        str | None, typer.Option(metavar="NAME", help="flowrl: what is between the layers; tanh by default.")
    ] = None,
) -> None:
    """Import a policy that another system has stored.

    Sizes follow from the weights, or from the configuration stored with them. Nothing in the file is run: one that
    holds more than plain data is refused.

    Examples:
        policysmith import keisei old.pt --output runs/shogi
        policysmith import keisei old.pt --output runs/small --board-size 5x6
        policysmith import model-config old.pt --output runs/trader
        policysmith import metta agent.yaml old.pt --output a --obs-shape 11x11x22
        policysmith import policy-constructor head.yaml head.pt --output head
        policysmith import flowrl experts.npz --library library --skill 0=Wood
    """
    if output is None and (library is None or dialect != "flowrl"):
        raise typer.BadParameter("say where the policy goes", param_hint="--output")
    if resize_input and input_channels is None:
        raise typer.BadParameter("give the number of planes with --input-channels", param_hint="--resize-input")
    if output is not None and ((output / "manifest.json").exists() or (output / "graph.yaml").exists()):
        raise PolicysmithError(f"{output} holds a policy already: choose another --output")
    given = {
        "board_size": _sides(board_size),
        "input_channels": input_channels,
        "resize_input": resize_input or None,
        "config": config,
        "unmasked": unmasked or None,
        "weights": weights,
        "obs_shape": _grid(obs_shape),
        "actions": _largest(actions),
        "trained_actions": _largest(trained_actions),
        "feature_max": [float(number) for number in feature_max.split(",")] if feature_max else None,
        "inputs": _events(inputs),
        "remap": remap,
        "activation": activation,
    }
    if dialect != "flowrl" and (library is not None or skill):
        raise typer.BadParameter(f"{dialect} has no skills", param_hint="--library" if library else "--skill")
    with chatter_to_stderr():
        from policysmith.registry import default_registry

        grammar: Any = default_registry.entry("grammar", dialect).target
        imported = grammar.read(checkpoint, **_options(dialect, grammar, given))
        if library is not None:
            taken = imported.take_up(library, _skills(skill))
        if output is not None:
            imported.save(output)
    if library is not None:
        facts({"library": shown_path(library), "skills": taken})
    if dialect == "policy-constructor" and output is not None:
        _summary_of_graph(imported, shown_path(output))
    else:
        _summary(ctx, imported, output)


def _sides(text: str | None) -> tuple[int, int] | None:
    match = SIDES.fullmatch(text) if text else None
    return (int(match[1]), int(match[2])) if match else None


def _grid(text: str | None) -> tuple[int, int, int] | None:
    match = GRID.fullmatch(text) if text else None
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def _largest(text: str | None) -> dict[str, int] | None:
    """Action types with their largest parameter."""
    matches = [LARGEST.fullmatch(entry.strip()) for entry in text.split(",")] if text else []
    return {match[1]: int(match[2]) for match in matches if match} or None


def _events(texts: list[str] | None) -> dict[str, list[int]] | None:
    """Shapes by name."""
    matches = [EVENT.fullmatch(text) for text in texts or []]
    return {match[1]: [int(size) for size in re.split("[x×]", match[2])] for match in matches if match} or None


def _skills(texts: list[str] | None) -> dict[int, str]:
    """Names by number."""
    matches = [SKILL.fullmatch(text) for text in texts or []]
    return {int(match[1]): match[2] for match in matches if match}


def _options(dialect: str, grammar: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, where the dialect takes all of it."""
    stated = {name: value for name, value in given.items() if value is not None}
    taken = {name for name in inspect.signature(grammar.read).parameters if name != "weights" or grammar.weights_apart}
    for name in stated:
        if name not in taken:
            option = {"weights": "WEIGHTS", "inputs": "--input"}.get(name, f"--{name.replace('_', '-')}")
            raise typer.BadParameter(f"checkpoints of {dialect} take no such option", param_hint=option)
    return stated


def _summary_of_graph(imported: Any, place: str) -> None:
    model = imported.model
    native = "format" in imported.config
    returned = model.outputs if isinstance(model.outputs, str) else ", ".join(model.outputs)
    rows: dict[str, Any] = {
        "graph": f"{', '.join(model.inputs)} → {returned}, {len(model.graph_modules)} modules",
        "grammar": "our own (format: 1)" if native else "schema version 1, composed",
        "weights": count(sum(tensor.numel() for tensor in imported.tensors.values()), "number"),
    }
    facts(
        rows
        | ({"not ours": imported.obstacles} if imported.obstacles else {})
        | ({"notes": imported.notes} if imported.notes else {})
        | {"stored": place}
    )


def _summary(ctx: typer.Context, imported: Any, output: Path | None) -> None:
    policy = imported.policy
    model = policy.config["model"]
    options = [f"{name} {value}" for name, value in _told(model) if name != "type"]
    rows: dict[str, Any] = {
        "model": f"{model['type']}: {', '.join(options)}",
        "observes": str(policy.observations.space),
        "acts": str(policy.actions.space),
        "weights": count(sum(p.numel() for p in policy.parameters()), "parameter"),
    }
    stored = {} if output is None else {"policy": shown_path(output)}
    facts(rows | ({"notes": imported.notes} if imported.notes else {}) | stored)
    if output is not None:
        typer.echo()
        facts({"next": command_line(with_plugins(ctx, ["show", shown_path(output)]))})


def _told(model: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The options of a model; of components and other parts the types."""
    for name, value in model.items():
        if name == "components":
            yield from _told(value)
        else:
            yield name, value.get("type", "") if isinstance(value, Mapping) else value
