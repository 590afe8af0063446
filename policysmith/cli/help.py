"""How help looks: plain aligned columns, the same with every version of typer, and the docstring's examples last."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from policysmith.cli.flag_advice import override_for

__all__ = ["Command", "Group"]

EXAMPLES = "\nExamples:\n"


class _Plain:
    """What a command and the group of all commands have in common."""

    params: list[Any]
    help: str | None
    get_help_option: Callable[..., Any]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The arguments, then the options: `CONFIG [OVERRIDE]... [OPTIONS]`."""
        return [*(_argument(p) if p.required else f"[{_argument(p)}]" for p in _arguments(self)), "[OPTIONS]"]

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """The docstring up to its examples."""
        text, _, _ = (self.help or "").partition(EXAMPLES)
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text.strip())

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments and options."""
        options = [*(p for p in self.params if p.param_type_name == "option"), self.get_help_option(ctx)]
        _section(formatter, "Arguments", [(_argument(p), p.help or "") for p in _arguments(self)])
        _section(formatter, "Options", [(_option(p), p.help or "") for p in options])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The docstring's examples, as they are."""
        _, _, examples = (self.help or "").partition(EXAMPLES)
        if examples:
            with formatter.section(_heading("Examples")):
                formatter.write("".join(f"  {line.strip()}\n" for line in examples.strip().splitlines()))


class Command(_Plain, TyperCommand):
    """A command with plain help. A flag that it lacks is answered with the override that it stands for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words as parameters; raises the error of a wrong usage with a remedy."""
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # typer has no public name for the kind that knows an `option_name`
            flag = getattr(error, "option_name", None)
            if flag and any(p.name == "overrides" for p in self.params) and (override := override_for(flag, words)):
                error.message += f"; options of the experiment are written without dashes: {override}"  # type: ignore[attr-defined]
            raise


class Group(_Plain, TyperGroup):
    """All commands, with plain help."""

    commands: dict[str, Any]

    def list_commands(self, ctx: Any) -> list[str]:
        """The names in the order in which they were declared."""
        return list(self.commands)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`COMMAND [OPTIONS]`."""
        return ["COMMAND", "[OPTIONS]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The commands, then the options."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        lines = [(name, (c.help or "").split("\n\n")[0]) for name, c in commands if c]
        _section(formatter, "Commands", lines)
        super().format_options(ctx, formatter)


def _arguments(command: _Plain) -> list[Any]:
    return [p for p in command.params if p.param_type_name == "argument"]


def _argument(parameter: Any) -> str:
    return f"{parameter.metavar}..." if parameter.nargs == -1 else str(parameter.metavar)


def _option(parameter: Any) -> str:
    names = ", ".join(sorted(parameter.opts, key=len))
    names = " / ".join([names, *parameter.secondary_opts])
    return names if parameter.is_flag else f"{names} {parameter.metavar}"


def _section(formatter: Any, heading: str, lines: Iterable[tuple[str, str]]) -> None:
    if lines := list(lines):
        with formatter.section(_heading(heading)):
            formatter.write_dl(lines, col_max=32)


def _heading(text: str) -> str:
    return typer.style(text, bold=True)
