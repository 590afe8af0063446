"""`policysmith schema`: the JSON Schema of the experiment file, for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from policysmith.cli.output import chatter_to_stderr, print_json, shown_path, write_file
from policysmith.cli.types_catalogue import catalogue

__all__ = ["schema"]


def schema(
    ctx: typer.Context,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to a file instead of printing.")] = None,
) -> None:
    """Print the JSON Schema of experiment files, for editors.

    With it they complete a file as it is typed, and mark what is wrong.

    Examples:
        policysmith schema --output policysmith.schema.json
        policysmith --plugin my_parts.py schema --output policysmith.schema.json
    """
    with chatter_to_stderr():
        data = catalogue(plugins=bool(ctx.obj))["schema"]
    if output is None:
        print_json(data)
        return
    write_file(output, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    typer.echo(f"wrote {shown_path(output)}")
    typer.echo(f"first line of an experiment file:  # yaml-language-server: $schema={shown_path(output)}")
