"""What a skill's things are called on disk: the one place that makes a folder's name of a skill's name."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["expert_folder", "folder_name", "run_folder", "skill_folder"]

LONGEST = 80


def folder_name(skill: str) -> str:
    """Letters, digits and single underscores; accents are dropped, everything else becomes an underscore.

    Different skills may give one name: folders carry the expert's index beside it.
    """
    plain = unicodedata.normalize("NFKD", skill).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")[:LONGEST].rstrip("_") or "skill"


def skill_folder(expert: int, skill: str) -> str:
    """`<global>_<name>`, below `skills/`."""
    return f"{expert}_{folder_name(skill)}"


def expert_folder(expert: int) -> str:
    """`expert_<global>_policy`, in a skill's folder."""
    return f"expert_{expert}_policy"


def run_folder(expert: int, skill: str) -> str:
    """`skill_<global>_<name>`, below `training_runs/`."""
    return f"skill_{skill_folder(expert, skill)}"
