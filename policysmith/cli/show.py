"""`policysmith show`: what a configuration or a stored policy is made of, as a table, a picture, JSON or code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from policysmith import api
from policysmith.cli.arguments import AsJson, Overrides
from policysmith.cli.from_signature import with_options_of
from policysmith.cli.output import chatter_to_stderr, fits, print_readings, print_rich, shown_path, write_file

__all__ = ["Diagram", "show"]


class Diagram(str, Enum):  # noqa: UP042 - typer shows the values of a plain str enum in every version
    """The kinds of picture."""

    mermaid = "mermaid"
    svg = "svg"
    html = "html"


@with_options_of(api.describe, own_first=True)
def show(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG", help="An experiment file, a preset, or a stored policy (a directory, or store#selector)."
        ),
    ],
    overrides: Overrides = None,
    *,
    diagram: Annotated[
        Diagram | None,
        typer.Option(metavar="mermaid|svg|html", help="Draw it; svg and html go to a file, <name>.svg by default."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to a file; its suffix may stand for --diagram.")
    ] = None,
    as_json: AsJson = False,
    code: Annotated[bool, typer.Option("--code", help="Print the Python code that runs the policy.")] = False,
    **options: Any,
) -> None:
    """Show what a policy is made of.

    Shapes, parameters, operations and memory; a configuration is planned for it, not built.

    Examples:
        policysmith show cartpole model.hidden=[128]
        policysmith show board/large --batch 256
        policysmith show runs/cartpole --diagram svg
        policysmith show policy.yaml --output policy.html
    """
    if output and not (diagram or as_json or code):
        diagram = _by_suffix(output)
    if sum(map(bool, (diagram, as_json, code))) > 1:
        raise typer.BadParameter("only one of these at a time", param_hint="--diagram, --json, --code")
    batch, where = options.get("batch", 1), {n: options[n] for n in ("base_dir",) if n in options}
    if batch > 1 and (diagram or code):
        raise typer.BadParameter("pictures and code are the same for every batch", param_hint="--batch")
    if overrides and _is_artifact(config):
        raise typer.BadParameter(f"{config} is a stored policy, which cannot be changed here", param_hint="OVERRIDE")
    if code:
        _print_code(_code(config, overrides or [], where), output)
        return
    with chatter_to_stderr():
        description = api.describe(config, overrides or [], **options)
    if as_json:
        _print_or_write(json.dumps(description, indent=2, ensure_ascii=False), output)
    elif diagram:
        _draw(description, diagram, output, _name(config))
    else:
        _print_table(description)


def _print_table(description: Mapping[str, Any]) -> None:
    from policysmith.transform.table import table

    drawn = table(description)
    if not fits(drawn):
        drawn.columns[0].no_wrap = False  # else long names leave no room for the inputs beside them
    print_rich(drawn, wrap=True)
    print_readings(description["observation"])


def _by_suffix(output: Path) -> Diagram:
    kinds = {".svg": Diagram.svg, ".html": Diagram.html, ".mmd": Diagram.mermaid, ".md": Diagram.mermaid}
    if output.suffix not in kinds:
        raise typer.BadParameter(
            f"{str(output)!r} is no .svg, .html or .mmd: say what with --diagram", param_hint="--output"
        )
    return kinds[output.suffix]


def _draw(description: Mapping[str, Any], diagram: Diagram, output: Path | None, name: str) -> None:
    from policysmith.transform import diagram as pictures

    draw: Mapping[Diagram, Callable[[Mapping[str, Any]], str]] = {
        Diagram.mermaid: pictures.mermaid,
        Diagram.svg: pictures.svg,
        Diagram.html: pictures.html,
    }
    if diagram is not Diagram.mermaid:
        output = output or Path(f"{name}.{diagram.value}")
    _print_or_write(draw[diagram](description), output)


def _print_or_write(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text.removesuffix("\n"))
        return
    write_file(output, text.removesuffix("\n") + "\n")
    typer.echo(f"wrote {shown_path(output)}")


def _code(config: str, overrides: list[str], where: Mapping[str, Any]) -> str:
    with chatter_to_stderr():
        policy = api.load(config) if _is_artifact(config) else api.build(config, overrides=overrides, **where)
        return str(policy.eval().code)


def _print_code(source: str, output: Path | None) -> None:
    if output is None and typer.get_text_stream("stdout").isatty():
        from rich.syntax import Syntax

        print_rich(Syntax(source.strip("\n"), "python", theme="ansi_dark", background_color="default"), wrap=True)
    else:
        _print_or_write(source, output)


def _is_artifact(config: str) -> bool:
    return (Path(config) / "manifest.json").is_file() or ("#" in config and not Path(config).exists())


def _name(config: str) -> str:
    """What a picture of it is called."""
    path = Path(config).resolve()
    return (path.stem if path.is_file() else path.name) or "policy"
