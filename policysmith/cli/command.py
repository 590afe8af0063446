"""What all commands share: global options, plugins, and errors that become sentences and exit codes."""

from __future__ import annotations

import functools
import inspect
import os
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from policysmith.cli.output import chatter_to_stderr, print_error, print_problems
from policysmith.errors import ConfigError, PolicysmithError

__all__ = ["Debug", "Plugins", "command", "with_plugins"]

INTERRUPTED = 130  # 128 + SIGINT, as shells say it

Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", metavar="FILE", help="A Python file that registers types; repeatable.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]


def command(function: Callable[..., None]) -> Callable[..., None]:
    """`function` as a command that takes the global options too, and that fails with a sentence.

    Wrong input and failed tasks end with exit code 1, wrong usage with 2.
    """
    signature = inspect.signature(function, eval_str=True)

    @functools.wraps(function)
    def run(ctx: typer.Context, plugin: list[Path] | None, debug: bool, **arguments: Any) -> None:
        before = ctx.find_root().params
        ctx.obj = [*(before.get("plugin") or []), *(plugin or [])]
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        with _reported(debug or bool(before.get("debug"))):
            _load(ctx.obj)
            function(**arguments, **({"ctx": ctx} if "ctx" in signature.parameters else {}))

    _declare(run, signature)
    return run


def with_plugins(ctx: typer.Context, words: Sequence[str]) -> list[str]:
    """The words of a command line that goes on under the same plugins."""
    plugins = [word for path in ctx.obj or [] for word in ("--plugin", str(path))]
    return ["policysmith", *plugins, *words]


def _declare(run: Any, signature: inspect.Signature) -> None:
    """Tell typer of the function's own parameters and of the global ones."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    extra = [
        inspect.Parameter("ctx", keyword, annotation=typer.Context),
        inspect.Parameter("plugin", keyword, default=None, annotation=Plugins),
        inspect.Parameter("debug", keyword, default=False, annotation=Debug),
    ]
    own = [p.replace(kind=keyword) for p in signature.parameters.values() if p.name != "ctx"]
    run.__signature__ = inspect.Signature([*own, *extra])
    run.__annotations__ = {p.name: p.annotation for p in [*own, *extra]}


def _load(plugins: Sequence[Path]) -> None:
    if not plugins:
        return
    from policysmith.registry import load_plugin_file

    for path in plugins:
        try:
            with chatter_to_stderr():
                load_plugin_file(path)
        except PolicysmithError:
            raise
        except Exception as error:
            raise PolicysmithError(f"plugin {path} failed: {_sentence(error)}") from error


@contextmanager
def _reported(debug: bool) -> Iterator[None]:
    """Say what went wrong, and leave with exit code 1."""
    try:
        with nullcontext() if debug else _warnings_as_lines():
            yield
    except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
        raise
    except KeyboardInterrupt as error:
        _notes(error)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        _report(error, debug)
        raise typer.Exit(1) from None


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """A warning is one line, without the place that it was raised at, and without colours of others; once each."""
    before = warnings.formatwarning
    told: set[str] = set()

    def line(message: Warning | str, *where: Any, **more: Any) -> str:
        text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(message)).split())
        new = text not in told
        told.add(text)
        return f"warning: {text}\n" if new else ""

    warnings.formatwarning = line
    try:
        yield
    finally:
        warnings.formatwarning = before


def _report(error: Exception, debug: bool) -> None:
    if isinstance(error, ConfigError):
        if os.environ.get("RANK", "0") == "0":  # under torchrun all ranks read one configuration: one of them tells
            print_problems(error.problems, to_stderr=True)
    elif isinstance(error, PolicysmithError):
        print_error(str(error))
    else:
        print_error(f"{_sentence(error)}{'' if debug else ' (unexpected: add --debug to see where)'}")
    _notes(error)


def _notes(error: BaseException) -> None:
    """What is to be known beside an error: what of a run is saved, and how it goes on."""
    for note in getattr(error, "__notes__", ()):
        print_error(note, label="note")


def _sentence(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])
