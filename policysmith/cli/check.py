"""`policysmith check`: every problem of a configuration at once."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import typer

from policysmith import api
from policysmith.cli.arguments import AsJson, Config, Overrides
from policysmith.cli.from_signature import with_options_of
from policysmith.cli.output import chatter_to_stderr, count, print_json, print_problems, print_readings, print_rich

__all__ = ["check"]


@with_options_of(api.check)
def check(config: Config, overrides: Overrides = None, *, as_json: AsJson = False, **options: Any) -> None:
    """Check a configuration whole, without building it.

    Every problem takes a line; with any the exit code is 1.

    Examples:
        policysmith check policy.yaml
        policysmith check cartpole model.activation=gelu
        policysmith check policy.yaml --env --plugin my_environment.py
    """
    with chatter_to_stderr():
        problems = api.check(config, overrides or [], **options)
        where = {name: options[name] for name in ("base_dir",) if name in options}
        description = {} if problems or as_json else api.describe(config, overrides or [], **where)
    if as_json:
        print_json({"ok": not problems, "problems": [asdict(problem) for problem in problems]})
    elif problems:
        print_problems(problems)
        print_rich(f"\n{count(len(problems), 'problem')}")
    else:
        _print_ok(config, description)
    if problems:
        raise typer.Exit(1)


def _print_ok(config: str, description: dict) -> None:
    from rich.text import Text

    components = count(len(description["nodes"]), "component")
    parameters = count(description["totals"]["parameters"], "parameter")
    print_rich(Text.assemble(("ok  ", "bold green"), f"{config}: {components}, {parameters}"))
    print_readings(description["observation"])
