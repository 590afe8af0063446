"""Which version of an expert somebody means: its head, the beginning of a hash, or a branch's name.

In: an expert's versions and a word. Out: the one version that it names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from policysmith.errors import SkillError, did_you_mean
from policysmith.skills.library.index import VersionRecord

__all__ = ["pick"]

PREFIX = re.compile(r"[0-9a-f]{4,64}")


def pick(versions: Sequence[VersionRecord], skill: str, wanted: str) -> VersionRecord:
    """The version that `wanted` names: `head`, a branch, or four or more first digits. Raises `SkillError`."""
    if wanted == "head":
        found = [record for record in versions if record.is_head]
    elif PREFIX.fullmatch(wanted):
        found = [record for record in versions if record.version.startswith(wanted)]
    else:
        found = [record for record in versions if wanted in record.branches]
    if len(found) == 1:
        return found[0]
    if found:
        raise SkillError(f"{skill}@{wanted} is more than one version: {', '.join(record.short for record in found)}")
    if wanted == "head":
        raise SkillError(f"{skill!r} has no head yet: no run of it was processed")
    names = [*(name for record in versions for name in record.branches), *(record.short for record in versions)]
    raise SkillError(f"{skill!r} has no version {wanted!r}{did_you_mean(wanted, names)}; "
                     f"there are: {', '.join(names) or 'none'}")  # fmt: skip
