"""Configurations that ship with the package: presets are whole experiments, profiles are sections to lay on others.

In: a name such as `board/large` or `fast-inference`. Out: the file behind it.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["PRESETS", "PROFILES", "locate", "preset_names", "profile_names"]

PRESETS = Path(__file__).parent / "presets"
PROFILES = Path(__file__).parent / "profiles"


def preset_names() -> list[str]:
    """The presets, sorted."""
    return _names(PRESETS)


def profile_names() -> list[str]:
    """The profiles, sorted."""
    return _names(PROFILES)


def locate(name: str, directory: Path) -> Path:
    """The file that `name` means in `directory`: the file of that name if there is one, else a preset or a profile."""
    own = directory / name
    if not own.is_file():
        for folder, names in ((PRESETS, preset_names()), (PROFILES, profile_names())):
            if name in names:
                return folder / f"{name}.yaml"
    return own


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
