"""`policysmith store …`: what is in a store of policies, and looking after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policysmith.cli.arguments import AsJson
from policysmith.cli.command import command
from policysmith.cli.help import Command, Group
from policysmith.cli.output import chatter_to_stderr, count, facts, print_json, print_rich
from policysmith.errors import PolicysmithError, did_you_mean

if TYPE_CHECKING:
    from policysmith.store import PolicyRecord, PolicyStore

__all__ = ["store"]

DEFAULT = "policies"
Store = Annotated[
    str, typer.Option("--store", metavar="URI", help="A directory, or s3://…, gs://…, hf://…; 'policies' by default.")
]
Selector = Annotated[
    str,
    typer.Argument(
        metavar="SELECTOR", help="latest, best:return, best:-loss, top:5:return, rand, tag:good, a name or a hash."
    ),
]

store = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None)


@store.callback()
def describe_store() -> None:
    """Look into a store of policies, and after it.

    A selector says which policies are meant; its parts are joined by commas: best:return,name:cartpole.

    Examples:
        policysmith store ls
        policysmith store ls top:5:return --store runs/policies
        policysmith store show best:return
        policysmith store verify
    """


def list_policies(
    selector: Selector = "all",
    sort: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="By created, name, step, epoch or a metric; '-KEY' the other way round."),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="No more than so many lines.")] = None,
    uri: Store = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List policies, the newest first.

    Examples:
        policysmith store ls
        policysmith store ls name:cartpole --sort -return --limit 10
        policysmith store ls tag:good --json
    """
    with chatter_to_stderr():
        found = _sorted(_open(uri).find(selector), sort)
    shown = found[:limit]
    if as_json:
        print_json({"policies": [record.describe() for record in shown]})
        return
    if shown:
        print_rich(_table(shown), wrap=True)
    hidden = len(found) - len(shown)
    typer.echo(f"{_policies(len(found))}{f', {hidden:,} not shown' if hidden else ''}")


def show(selector: Selector = "latest", uri: Store = DEFAULT, as_json: AsJson = False) -> None:
    """Show what is known of one policy.

    Examples:
        policysmith store show best:return
        policysmith store show 3fa94c1b --json
    """
    with chatter_to_stderr():
        policies = _open(uri)
        record = policies.get(selector)
        ancestors = policies.lineage(record)[1:]
    if as_json:
        print_json(record.describe())
        return
    size = sum(record.objects.values())
    rows: dict[str, str | Sequence[str]] = {
        "policy": f"{record.name}  {record.id}",
        "created": f"{record.created:%Y-%m-%d %H:%M:%S} UTC by policysmith {record.policysmith}",
        "step": _number(record.step),
        "epoch": _number(record.epoch),
        "metrics": [f"{name} {_metric(value)}" for name, value in record.metrics.items()],
        "tags": ", ".join(record.tags),
        "parents": [_line(ancestor) for ancestor in ancestors],
        "weights": f"{count(record.parameters, 'parameter')}, {size:,} bytes",
        "config": record.config,
        "parts": [_component(name, said) for name, said in record.components.items()],
    }
    facts({label: value for label, value in rows.items() if value})


def tag(
    selector: Selector,
    tags: Annotated[list[str], typer.Argument(metavar="TAG", help="Letters, digits, '.', '_' and '-'.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take the tags away instead.")] = False,
    uri: Store = DEFAULT,
) -> None:
    """Give tags to the policies that a selector means.

    Examples:
        policysmith store tag best:return production
        policysmith store tag tag:production production --remove
    """
    with chatter_to_stderr():
        policies = _open(uri)
        changed = policies.untag(selector, *tags) if remove else policies.tag(selector, *tags)
    _told("untagged" if remove else "tagged", changed)


def rm(
    selector: Selector,
    everything: Annotated[bool, typer.Option("--all", help="Also where it means several policies.")] = False,
    uri: Store = DEFAULT,
) -> None:
    """Remove a policy; `gc` then frees the weights that only it used.

    Examples:
        policysmith store rm 3fa94c1b
        policysmith store rm tag:old --all
    """
    with chatter_to_stderr():
        policies = _open(uri)
        removed = policies.remove(selector if everything else policies.get(selector))
    _told("removed", removed)


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    grace: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0, help="Spare what is younger; by default 0, an hour in remote stores."),
    ] = None,
    uri: Store = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Remove weights that no policy uses, and what killed saves left.

    Examples:
        policysmith store gc --dry-run
        policysmith store gc
    """
    with chatter_to_stderr():
        cleaned = _open(uri).gc(grace=grace, dry_run=dry_run)
    if as_json:
        print_json({"files": list(cleaned.files), "bytes": cleaned.bytes, "removed": not dry_run})
        return
    facts({"would free" if dry_run else "freed": f"{count(len(cleaned.files), 'file')}, {cleaned.bytes:,} bytes"})


def verify(
    reindex: Annotated[
        bool, typer.Option("--reindex", help="Build the index of a local store again from its records first.")
    ] = False,
    uri: Store = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Read every file and name each that is damaged; the exit code is 1 if there are any.

    Examples:
        policysmith store verify
        policysmith store verify --store s3://bucket/policies --json
    """
    with chatter_to_stderr():
        policies = _open(uri)
        if reindex:
            policies.reindex()
        problems = policies.verify()
        records = 0 if problems else len(policies.find())
    if as_json:
        print_json({"problems": [{"file": problem.file, "reason": problem.reason} for problem in problems]})
    elif problems:
        for problem in problems:
            typer.echo(str(problem))
    else:
        typer.echo(f"whole: {_policies(records)}")
    if problems:
        raise typer.Exit(1)


def diff(first: Selector, second: Selector, uri: Store = DEFAULT, as_json: AsJson = False) -> None:
    """Say how two policies differ: configuration, weights by component, and what is known of them.

    Examples:
        policysmith store diff 3fa94c1b best:return
    """
    with chatter_to_stderr():
        found = _open(uri).diff(first, second)
    if as_json:
        pairs = {"said": found.said, "config": found.config}
        print_json({**{kind: _plain(values) for kind, values in pairs.items()}, "components": found.components})
        return
    for values in (found.said, found.config):
        for name, (before, after) in values.items():
            print_rich(f"{name}: {before} → {after}")
    for name, state in found.components.items():
        change = state if isinstance(state, str) else f"changed by up to {state:.3g}"
        print_rich(f"components.{name}: {change}")


COMMANDS: Mapping[str, Callable[..., None]] = {
    "ls": list_policies,
    "show": show,
    "tag": tag,
    "rm": rm,
    "gc": gc,
    "verify": verify,
    "diff": diff,
}
for _name, _function in COMMANDS.items():
    store.command(_name, cls=Command)(command(_function))


def _open(uri: str) -> PolicyStore:
    """The store, which must be there: a command only reads and changes one."""
    from policysmith.store import PolicyStore

    policies = PolicyStore(uri)
    policies.require()
    return policies


def _sorted(found: list[PolicyRecord], key: str | None) -> list[PolicyRecord]:
    """In the order of a key; those that have no such value come last, in the order found."""
    if key is None:
        return found
    name = key.removeprefix("-")
    fields = ("created", "name", "step", "epoch")
    values = [getattr(r, name) if name in fields else r.metrics.get(name) for r in found]
    known = [(v, r) for v, r in zip(values, found, strict=True) if v is not None and v == v]
    if found and not known:
        names = [*fields, *sorted({metric for record in found for metric in record.metrics})]
        raise PolicysmithError(f"nothing can be sorted by {name!r}{did_you_mean(name, names)}: {', '.join(names)}")
    ranked = [record for _, record in sorted(known, key=lambda pair: pair[0], reverse=key != name)]
    rest = [record for value, record in zip(values, found, strict=True) if value is None or value != value]
    return [*ranked, *rest]


def _table(records: Sequence[PolicyRecord]) -> Any:
    from rich.table import Table

    metrics = list(dict.fromkeys(metric for record in records for metric in record.metrics))
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("id", style="cyan", no_wrap=True)
    for heading in ("name", "step"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "step" else "left")
    for metric in metrics:
        table.add_column(metric, justify="right")
    table.add_column("tags")
    table.add_column("created", no_wrap=True)
    for record in records:
        numbers = [_metric(record.metrics[metric]) if metric in record.metrics else "" for metric in metrics]
        time = f"{record.created:%m-%d %H:%M:%S}"
        table.add_row(record.short, record.name, _number(record.step), *numbers, ", ".join(record.tags), time)
    return table


def _told(done: str, records: Sequence[PolicyRecord]) -> None:
    facts({done: [_line(record) for record in records]})


def _line(record: PolicyRecord) -> str:
    words = [record.short, record.name, *([f"step {record.step:,}"] if record.step is not None else []), *record.tags]
    return "  ".join(words)


def _component(name: str, said: Mapping[str, Any]) -> str:
    weights = f"shares {said['shares']}" if "shares" in said else said.get("sha256", "no weights")[:12]
    return f"{name}  {said['type']}  {count(said['parameters'], 'parameter')}  {weights}"


def _policies(number: int) -> str:
    return f"{number:,} {'policy' if number == 1 else 'policies'}"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _metric(value: float) -> str:
    return f"{value:,.4g}" if math.isfinite(value) and abs(value) < 1e4 else f"{value:,.0f}"


def _plain(pairs: Mapping[str, tuple[Any, Any]]) -> dict[str, list[Any]]:
    """Pairs for JSON; numbers that are not finite are None."""
    return {
        name: [None if isinstance(v, float) and not math.isfinite(v) else v for v in pair]
        for name, pair in pairs.items()
    }
