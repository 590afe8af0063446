"""`policysmith import DIALECT …`: what another system has stored becomes a policy of ours.

Each dialect is a command of its own; its options are those of its `read`, and of its `store` where it has one.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from policysmith.cli.command import command, with_plugins
from policysmith.cli.from_signature import options_from, values_from
from policysmith.cli.help import Command, Group
from policysmith.cli.output import chatter_to_stderr, command_line, count, facts, shown_path
from policysmith.errors import ConfigError, PolicysmithError, did_you_mean

__all__ = ["program"]

# Dialect → its module: help needs no registry, and one dialect does not import the others.
DIALECTS = {
    name: module for (slot, name), module in importlib.import_module("policysmith.dialects").TYPES.items()
    if slot == "grammar"
}  # fmt: skip
OUTPUT = typer.Option(metavar="DIR", help="The directory in which the policy is stored.")
OptionalOutput = Annotated[
    Path | None, typer.Option(metavar="DIR", help="The directory in which the policy is stored.")
]
Weights = Annotated[Path | None, typer.Argument(metavar="WEIGHTS", help="The weights; without them they start anew.")]


class Dialects(Group):
    """The commands below `import`: one for each dialect, made when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the dialects."""
        return sorted({*DIALECTS, *_registered()})

    def get_command(self, ctx: Any, name: str) -> Any:
        """The command of a dialect; a usage error for an unknown one."""
        known = self.list_commands(ctx)
        if name not in known:
            hint = did_you_mean(name, known)
            raise typer.BadParameter(f"unknown dialect {name!r}{hint}; there are: {', '.join(known)}")
        return _command(name)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The dialects by name alone: what each takes needs it imported, and is told by its own help."""
        with formatter.section(typer.style("Dialects", bold=True)):
            formatter.write_text(", ".join(self.list_commands(ctx)))
        super(Group, self).format_options(ctx, formatter)


program = typer.Typer(cls=Dialects, no_args_is_help=True, rich_markup_mode=None)


@program.callback()
def describe_import() -> None:
    """Import a policy that another system has stored.

    Sizes follow from the weights, or from the configuration stored with them. Nothing in the file is run: one that
    holds more than plain data is refused. `policysmith import DIALECT --help` tells the options of a dialect.

    Examples:
        policysmith import keisei old.pt --output runs/shogi
        policysmith import keisei old.pt --output runs/small --board-size 5x6
        policysmith import model-config old.pt --output runs/trader
        policysmith import metta agent.yaml old.pt --output a --obs-shape 11x11x22
        policysmith import policy-constructor head.yaml head.pt --output head
        policysmith import flowrl experts.npz --library library --skill 0=Wood
    """


def _registered() -> list[str]:
    """Dialects of plugins, where a registry is at work already."""
    registry = sys.modules.get("policysmith.registry")
    return registry.default_registry.names("grammar") if registry is not None else []


def _command(dialect: str) -> Any:
    """The command of one dialect: FILE, perhaps WEIGHTS, --output, and what its functions take."""
    from policysmith.config.json_schema import argument_notes
    from policysmith.registry import default_registry

    grammar: Any = default_registry.entry("grammar", dialect).target
    store = getattr(grammar, "store", None)
    notes = argument_notes(inspect.getdoc(grammar.read) or "")
    options = options_from(grammar.read, notes)
    if store is not None:
        options |= options_from(store, argument_notes(inspect.getdoc(store) or ""))

    def run(ctx: typer.Context, file: Path, **given: Any) -> None:
        _import(ctx, dialect, grammar, file, given)

    run.__doc__ = inspect.getdoc(grammar)
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            _keyword("ctx", typer.Context),
            _keyword("file", Annotated[Path, typer.Argument(metavar="FILE", help=_sentence(notes.get("path", "")))]),
            *([_keyword("weights", Weights, None)] if grammar.weights_apart else []),
            _keyword("output", Annotated[Path, OUTPUT])
            if store is None
            else _keyword("output", Annotated[Path | None, OUTPUT], None),
            *options.values(),
        ]
    )
    alone = typer.Typer(rich_markup_mode=None, add_completion=False)
    alone.command(dialect, cls=Command)(command(run))
    return typer.main.get_command(alone)


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:]


def _import(ctx: typer.Context, dialect: str, grammar: Any, file: Path, given: dict[str, Any]) -> None:
    """Read the file, store what it became, and tell."""
    output, weights = given.get("output"), given.get("weights")
    stored = values_from(grammar.store, given) if hasattr(grammar, "store") else {}
    if output is None and not stored:
        raise typer.BadParameter("say where the policy goes", param_hint="--output")
    if output is not None and ((output / "manifest.json").exists() or (output / "graph.yaml").exists()):
        raise PolicysmithError(f"{output} holds a policy already: choose another --output")
    with chatter_to_stderr(), _usage_errors(given):
        apart = {"weights": weights} if weights is not None else {}
        imported = grammar.read(file, **apart, **values_from(grammar.read, given))
        told = grammar.store(imported, output, **stored) if hasattr(grammar, "store") else imported.save(output)
    if told:
        facts({name: shown_path(value) if isinstance(value, Path) else value for name, value in told.items()})
    if hasattr(imported, "model") and output is not None:
        _summary_of_graph(imported, shown_path(output))
    else:
        _summary(ctx, imported, output)


@contextmanager
def _usage_errors(options: Mapping[str, Any]) -> Iterator[None]:
    """A problem of an option is wrong usage: it is told with the option's flag."""
    try:
        yield
    except ConfigError as error:
        for problem in error.problems:
            if problem.place is None and problem.path in options:
                flag = f"--{problem.path.replace('_', '-')}"
                raise typer.BadParameter(problem.message, param_hint=flag) from None
        raise


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
