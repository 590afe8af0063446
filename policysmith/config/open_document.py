"""What a caller calls a configuration: a preset's name, a file, a mapping or a DictConfig.

In: the name or the thing, and overrides. Out: the loaded document.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policysmith.config.load import Document, load
from policysmith.config.preset_files import PRESETS, preset_names
from policysmith.errors import ConfigError, did_you_mean

__all__ = ["open_document"]


def open_document(config: Any, overrides: Sequence[str] = ()) -> Document:
    """The document of a preset by its name, else as `load` has it; raises `ConfigError`, with a preset's name near."""
    presets = preset_names()
    if isinstance(config, str) and config in presets:
        config = PRESETS / f"{config}.yaml"
    elif isinstance(config, str) and not Path(config).exists() and (hint := did_you_mean(config, presets)):
        raise ConfigError(f"{config!r} is neither a file nor a preset{hint}")
    return load(config, overrides)
