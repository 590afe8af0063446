"""A store of many policies: saved by any number of processes, found by selectors, and loaded again.

In: policies with what is known of them. Out: records, and the same policies again. Weights are kept once a component,
however many policies share them. torch and the rooms that build policies are imported when one is saved or loaded: who
only lists policies has no need of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policysmith.errors import CheckpointError, did_you_mean
from policysmith.registry import Registry, default_registry
from policysmith.store.cache import Cache, Stored
from policysmith.store.catalogue import IndexedCatalogue, read_record, tags_on_disk
from policysmith.store.comparison import PolicyDiff, compare
from policysmith.store.file_names import MARK, MARK_CONTENT, record_name, tag_content, tag_name
from policysmith.store.json_files import json_bytes, parsed
from policysmith.store.objects import CONFIG, WEIGHTS, Objects
from policysmith.store.policy_record import PolicyRecord, checked_metrics, checked_name, checked_tags, make_record
from policysmith.store.selectors import Query, parse
from policysmith.store.store_uri import is_store, open_store
from policysmith.store.tensor_bytes import pack, unpacked
from policysmith.store.upkeep import Cleaned, StoreProblem, clean, index_problems, verify

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from policysmith.policy import ActorCritic
    from policysmith.store.codec import Encoded

__all__ = ["PolicyStore"]

FULL = re.compile(r"[0-9a-f]{64}")
SHOWN = 5
GRACE = 3600.0
Selector = str | PolicyRecord


class PolicyStore:
    """The policies at `uri`: a directory, or `s3://…`, `gs://…`, `hf://…`, `memory://…`.

    Nothing is made before the first save. Any number of processes may save into a local store at once, and a kill at
    any moment leaves one in which every policy that is listed loads. `cache_size` policies are kept as data once they
    were loaded; each load builds a policy of its own from it. Types of your own must be in `registry` or the default.

    What goes wrong raises `CheckpointError`, `MissingExtraError` where a package for the URI is not installed.
    """

    def __init__(self, uri: str | Path = "policies", *, cache_size: int = 10, registry: Registry | None = None) -> None:
        self.uri = str(uri)
        self._storage, self._catalogue, self._lock = open_store(self.uri)
        self._objects = Objects(self._storage, None if self._lock else GRACE / 2)
        self._seen = False
        self._registry, self._cache = registry or default_registry, Cache(cache_size)

    def __repr__(self) -> str:
        return f"PolicyStore({self.uri!r})"

    def exists(self) -> bool:
        """Whether there is a store yet; raises `CheckpointError` where there is something else."""
        self._seen = self._seen or is_store(self._storage)
        return self._seen

    def require(self) -> None:
        """Raise `CheckpointError` unless there is a store."""
        if not self.exists():
            raise CheckpointError(f"{self.uri}: there is no store of policies; PolicyStore(…).save makes one")

    def save(
        self,
        policy: ActorCritic,
        *,
        name: str,
        step: int | None = None,
        epoch: int | None = None,
        metrics: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
        parents: Sequence[Selector] = (),
    ) -> PolicyRecord:
        """Keep the policy as it is now, with what is known of it; returns its record.

        `parents` are the policies that it came from: records, hashes or selectors. It is on disk when this returns.
        """
        from policysmith.store.codec import encode_policy

        name, labels, numbers = checked_name(name), checked_tags(tags), checked_metrics(metrics or {})
        lineage = tuple(self._parent(parent) for parent in parents)
        encoded = encode_policy(policy)
        config = json_bytes(encoded.config, "config")
        weights = _packed(encoded)
        self._create()

        def put() -> PolicyRecord:
            components = {
                component: _kept(said, self._objects, weights.get(component))
                for component, said in encoded.components.items()
            }
            record = make_record(
                name=name,
                step=step,
                epoch=epoch,
                metrics=numbers,
                parents=lineage,
                config=self._objects.add(config, CONFIG),
                components=components,
                tags=labels,
                sequence=self._catalogue.newest() + 1,  # saves at the same time may share one: then the clock decides
            )
            self._catalogue.add(record)
            for tag in labels:
                self._storage.write(tag_name(tag, record.id), tag_content(tag, record.id))
            self._storage.write(record_name(record.id), record.body)  # last: what is listed is whole
            return record

        return self._catalogue.changed(put)

    def find(
        self, selector: str = "all", *, name: str | None = None, tag: str | None = None, seed: int | None = None
    ) -> list[PolicyRecord]:
        """The records that a selector means, in its order, else newest first; an empty list if there are none.

        `all`, `latest`, `best:return`, `best:-loss` (less is better), `top:5:return`, `rand` (`seed` makes it draw
        alike), `tag:good`, `name:cartpole`, `id:3fa9`, a name, or the beginning of a hash; joined by commas:
        `best:return,name:cartpole`. `name` and `tag` narrow it further. NaN ranks nowhere.
        """
        query = parse(selector)
        if name is not None:
            query = replace(query, name=name)
        if tag is not None:
            query = replace(query, tags=(*query.tags, tag))
        return self._catalogue.search(query, seed) if self.exists() else []

    def get(self, selector: Selector, *, seed: int | None = None) -> PolicyRecord:
        """The one record that a selector means; raises `CheckpointError` for none and for several."""
        if isinstance(selector, PolicyRecord):
            return read_record(self._storage, selector.id, tags_on_disk(self._storage).get(selector.id, ()))
        self.require()
        found = self.find(selector, seed=seed)
        if len(found) != 1:
            raise CheckpointError(self._explain(parse(selector), found))
        return found[0]

    def load(
        self, selector: Selector = "latest", *, device: torch.device | str = "cpu", seed: int | None = None
    ) -> ActorCritic:
        """The policy that a selector means, in eval mode on `device`; draws nothing from torch's global generator."""
        from policysmith.store.codec import decode_policy

        record = self.get(selector, seed=seed)
        config, weights = self._stored(record)
        policy = decode_policy(config, weights, self._registry, self._config_file(record), self._record_file(record))
        return policy.to(device).eval()

    def tag(self, selector: Selector, *tags: str) -> list[PolicyRecord]:
        """Give tags to all that a selector means; returns their records."""
        return self._retag(selector, tags, add=True)

    def untag(self, selector: Selector, *tags: str) -> list[PolicyRecord]:
        """Take tags from all that a selector means; returns their records."""
        return self._retag(selector, tags, add=False)

    def remove(self, selector: Selector) -> list[PolicyRecord]:
        """Remove all that a selector means; returns what their records were. `gc` then frees what only they used."""
        records = self._some(selector)

        def act() -> None:
            for record in records:
                self._storage.remove(record_name(record.id))
                for tag in record.tags:
                    self._storage.remove(tag_name(tag, record.id))
            self._catalogue.remove([record.id for record in records], [])

        self._catalogue.changed(act)
        return records

    def gc(self, *, grace: float | None = None, dry_run: bool = False) -> Cleaned:
        """Remove weights that no policy uses and what killed saves left; returns what it removed, or would.

        On this machine it waits for saves under way and holds back others meanwhile. Where there are no locks (a
        remote store) it spares what is younger than `grace` seconds, an hour by default.
        """
        self.require()
        with self._alone():
            cleaned = clean(self._storage, grace if grace is not None else 0.0 if self._lock else GRACE, dry_run)
            if isinstance(self._catalogue, IndexedCatalogue) and not dry_run:
                self._catalogue.prune_alone()
        return cleaned

    def verify(self) -> list[StoreProblem]:
        """Every problem of every file, none for a store that is whole. It reads everything."""
        if not self._storage.exists(MARK):
            return [
                StoreProblem(self._storage.shown(MARK), "is missing: this is no store of policies, or not all of it")
            ]
        problems = verify(self._storage, self._objects)
        if isinstance(self._catalogue, IndexedCatalogue):
            with self._alone():
                problems += index_problems(self._storage, self._catalogue)
        return problems

    def reindex(self) -> int:
        """Build the index of a local store again from its records; returns how many there are."""
        self.require()
        return self._catalogue.rebuild() if isinstance(self._catalogue, IndexedCatalogue) else len(self.find())

    def diff(self, first: Selector, second: Selector) -> PolicyDiff:
        """How two policies differ."""
        records = self.get(first), self.get(second)
        (config, weights), (other_config, other_weights) = map(self._stored, records)
        return compare(records, (config, other_config), (weights, other_weights))

    def lineage(self, selector: Selector) -> list[PolicyRecord]:
        """A policy and those that it came from, the nearest first; what was removed is left out."""
        todo, found = [self.get(selector)], {}
        for record in todo:
            if record.id not in found:
                found[record.id] = record
                todo += [parent for id in record.parents for parent in self.find(f"id:{id}")]
        return list(found.values())

    def _stored(self, record: PolicyRecord) -> Stored:
        return self._cache.get(record.id, lambda: self._read(record.id))

    def _read(self, id: str) -> Stored:
        """Configuration and weights, all checked against their hashes, the record's own among them."""
        record = read_record(self._storage, id)
        config = parsed(self._config_file(record), self._objects.get(record.config, CONFIG))
        weights: dict[str, Tensor] = {}
        for name, said in record.components.items():
            if "sha256" in said:
                content = self._objects.get(said["sha256"], WEIGHTS)
                file = self._storage.shown(self._objects.name(said["sha256"], WEIGHTS))
                weights |= {f"components.{name}.{key}": tensor for key, tensor in unpacked(file, content).items()}
        return config, weights

    def _retag(self, selector: Selector, tags: Sequence[str], *, add: bool) -> list[PolicyRecord]:
        labels, records = checked_tags(tags), self._some(selector)
        pairs = [(tag, record.id) for record in records for tag in labels]

        def act() -> None:
            if add:
                self._catalogue.add_tags(pairs)
            for pair in pairs:
                if add:
                    self._storage.write(tag_name(*pair), tag_content(*pair))
                else:
                    self._storage.remove(tag_name(*pair))
            if not add:
                self._catalogue.remove([], pairs)

        self._catalogue.changed(act)
        changed = set(labels)
        after = [set(r.tags) | changed if add else set(r.tags) - changed for r in records]
        return [replace(record, tags=tuple(sorted(new))) for record, new in zip(records, after, strict=True)]

    def _some(self, selector: Selector) -> list[PolicyRecord]:
        """All that a selector means; raises `CheckpointError` for none."""
        if isinstance(selector, PolicyRecord):
            return [self.get(selector)]
        self.require()
        found = self.find(selector)
        if not found:
            raise CheckpointError(self._explain(parse(selector), found))
        return found

    def _parent(self, parent: Selector) -> str:
        if isinstance(parent, PolicyRecord):
            return parent.id
        return parent if FULL.fullmatch(parent) else self.get(parent).id

    def _explain(self, query: Query, found: Sequence[PolicyRecord]) -> str:
        """Why a selector means not one policy, and what there is."""
        head = f"{self.uri}: the selector {query.text!r} means"
        if found:
            shown = ", ".join(_told(record) for record in found[:SHOWN])
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            either = f", or write 'latest,{query.text}'" if query == replace(query, order="newest", count=None) else ""
            return f"{head} {len(found)} policies: {shown}{more}. Name one by its hash{either}"
        overview = self._catalogue.overview()
        if not overview["names"]:
            return f"{head} no policy: the store is empty"
        wanted: dict[str, list[str | None]] = {
            "names": [query.name, query.word],
            "tags": [*query.tags],
            "metrics": [query.metric],
        }
        lines = []
        for kind, known in overview.items():
            missing = [word for word in wanted[kind] if word and word not in known]
            hint = next((hint for word in missing if (hint := did_you_mean(word, known))), "")
            lines.append(f"{kind}: {', '.join(known[:20]) or 'none'}{', …' if len(known) > 20 else ''}{hint}")
        return f"{head} no policy. There are {'; '.join(lines)}"

    def _create(self) -> None:
        """Make the store, if there is none."""
        if not self.exists():
            self._storage.write(MARK, MARK_CONTENT)

    def _alone(self) -> AbstractContextManager[None]:
        return self._lock.alone() if self._lock else nullcontext()

    def _config_file(self, record: PolicyRecord) -> str:
        return self._storage.shown(self._objects.name(record.config, CONFIG))

    def _record_file(self, record: PolicyRecord) -> str:
        return self._storage.shown(record_name(record.id))


def _packed(encoded: Encoded) -> dict[str, bytes]:
    """A file of weights a component, of those that have weights of their own."""
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, tensor in encoded.weights.items():
        _, component, key = name.split(".", 2)
        grouped.setdefault(component, {})[key] = tensor
    return {component: pack(tensors, component) for component, tensors in grouped.items()}


def _kept(said: Mapping[str, Any], objects: Objects, content: bytes | None) -> dict[str, Any]:
    """What the record says of a component whose weights are kept: their hash is that of the file."""
    facts = {key: value for key, value in said.items() if key != "sha256"}
    return facts if content is None else {**facts, "sha256": objects.add(content, WEIGHTS), "size": len(content)}


def _told(record: PolicyRecord) -> str:
    return f"{record.short} ({record.name}{'' if record.step is None else f', step {record.step:,}'})"
