"""The `policysmith` program: its commands and what is said before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from policysmith.cli.check import check
from policysmith.cli.command import Debug, Plugins, command
from policysmith.cli.eval import evaluate
from policysmith.cli.help import Command, Group
from policysmith.cli.import_ import program as importing
from policysmith.cli.list import list_types
from policysmith.cli.new import new
from policysmith.cli.record import record
from policysmith.cli.schema import schema
from policysmith.cli.show import show
from policysmith.cli.skills import skills
from policysmith.cli.store import store
from policysmith.cli.swap import swap
from policysmith.cli.train import train
from policysmith.cli.train_offline import train_offline
from policysmith.cli.tune import tune

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; the process ends with 0 (done), 1 (wrong input, or the task failed) or 2 (wrong usage)."""
    app(prog_name="policysmith")


def print_version(wanted: bool) -> None:
    """Print the version and stop, if it is wanted."""
    if wanted:
        from policysmith import __version__

        typer.echo(f"policysmith {__version__}")
        raise typer.Exit


@app.callback()
def policysmith(
    plugin: Plugins = None,
    debug: Debug = False,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Reinforcement-learning policies from data.

    Describe a policy in a small YAML file; check it, train it, look into it.

    Examples:
        policysmith train cartpole
        policysmith new policy.yaml --env Acrobot-v1
        policysmith check policy.yaml
        policysmith show policy.yaml --diagram svg
    """


COMMANDS: Mapping[str, Callable[..., None]] = {
    "train": train,
    "eval": evaluate,
    "record": record,
    "train-offline": train_offline,
    "tune": tune,
    "show": show,
    "check": check,
    "list": list_types,
    "new": new,
    "swap": swap,
    "schema": schema,
}
for name, function in COMMANDS.items():
    app.command(name, cls=Command)(command(function))
app.add_typer(importing, name="import")
app.add_typer(store, name="store")
app.add_typer(skills, name="skills")
