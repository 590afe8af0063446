"""Versions that may go: neither a head nor a branch nor a parent of one, and old enough.

In: an expert's versions. Out: those that nothing needs; they leave their folder one by one, each at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from policysmith.skills.experts.expert_versions import version_folder
from policysmith.skills.library.archive import put_away
from policysmith.skills.library.index import VersionRecord

__all__ = ["prunable", "remove_versions"]


def prunable(versions: Sequence[VersionRecord], older_than: float) -> list[VersionRecord]:
    """Those that may go, the oldest first; `older_than` is in days. A parent is kept for what is merged later."""
    kept = {record.version for record in versions if record.is_head or record.branches}
    parents = {parent for record in versions if record.version in kept for parent in record.parents}
    limit = datetime.now(UTC) - timedelta(days=older_than)
    free = [record for record in versions if record.version not in kept | parents]
    return [record for record in free if not record.created or datetime.fromisoformat(record.created) <= limit]


def remove_versions(root: Path, folder: Path, versions: Iterable[str]) -> None:
    """Remove them from disk. The library's lock is held."""
    for version in versions:
        put_away(root, version_folder(folder, version))
