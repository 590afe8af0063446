"""What is kept of a run whose experts are stored: its module, logs and results, without weights.

In: a processed run and its outcomes. Out: `archive/<run folder>/<run>/`; then the run's folder goes away at once.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from policysmith.skills.runs.completed_training import RESULT, Outcome
from policysmith.skills.runs.training_run import CONFIG, REMAP, TrainingRun
from policysmith.store.files import remove_left, sync_directory, write_synced
from policysmith.store.json_files import json_bytes, parsed

__all__ = ["archive_run", "archived_outcomes", "put_away"]

OUTCOMES, TRASH = "outcomes.json", ".trash"
KEPT = (REMAP, CONFIG, RESULT, "worker.log", "progress.jsonl", "metrics.jsonl")


def archive_run(root: Path, run: TrainingRun, outcomes: Iterable[Outcome]) -> Path:
    """Keep what a run says of itself; a second call finds it there."""
    place = root / "archive" / run.run_folder.name / run.name
    if (place / OUTCOMES).is_file():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".", dir=place.parent))
    try:
        for name in (run.module_path.name, *KEPT):
            with suppress(FileNotFoundError):
                write_synced(fresh / name, (run.run_folder / name).read_bytes())
        said = [{**vars(outcome), "folder": os.path.relpath(outcome.folder, root)} for outcome in outcomes]
        write_synced(fresh / OUTCOMES, json_bytes({"format": 1, "outcomes": said}))
        fresh.chmod(0o755)
        fresh.rename(place)
        sync_directory(place.parent)
    finally:
        remove_left(fresh)
    return place


def archived_outcomes(root: Path, folder: str, run: str | None = None) -> list[Outcome] | None:
    """What became of a run that was processed; of the last one with this folder where none is named."""
    place = root / "archive" / folder
    files = [place / run / OUTCOMES] if run is not None else sorted(place.glob(f"[!.]*/{OUTCOMES}"), key=_age)
    if not files or not files[-1].is_file():
        return None
    said: list[dict[str, Any]] = parsed(files[-1], files[-1].read_bytes())["outcomes"]
    return [Outcome(**{**outcome, "folder": root / outcome["folder"]}) for outcome in said]


def put_away(root: Path, folder: Path) -> None:
    """Remove a folder: it is gone in one step, whatever happens then; also what killed processes left half removed."""
    trash = root / TRASH
    trash.mkdir(exist_ok=True)
    if folder.exists():
        folder.rename(trash / f"{folder.name}-{secrets.token_hex(4)}")
    for left in trash.iterdir():
        shutil.rmtree(left, ignore_errors=True)


def _age(file: Path) -> int:
    return file.stat().st_mtime_ns
