"""A search from start to finish: validation, trials, and what is left of them in a folder.

In: a configuration with search spaces. Out: a `TuneResult`, and in the folder `study.sqlite3`, `best.yaml`,
`history.png` and `trials/<number>/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policysmith.config.open_document import open_document
from policysmith.config.search_spaces import Space
from policysmith.errors import ConfigError, did_you_mean
from policysmith.registry import Registry, default_registry
from policysmith.store.files import replace_file
from policysmith.training.logging.plots import plot_search
from policysmith.tuning.search import METRICS, Metric, Pruner, Sampler, Search, make_search
from policysmith.tuning.study import Trial, best_of, held, load_optuna, open_study, take_up, trials_of
from policysmith.tuning.trial_run import CONFIG, POLICY
from policysmith.tuning.trial_workers import Told, folder_of, share, work

__all__ = ["TuneResult", "tune"]

NAMES = {"metric": METRICS, "sampler": ("tpe", "random"), "pruner": ("median", "hyperband", "none")}


@dataclass(frozen=True)
class TuneResult:
    """What a search knows: trials in their order, the best of them, and the files it left.

    `artifact` is the best trial's policy; `files` has `config` (best.yaml) and `history`, where a trial was played to
    its end. `direction` is that of `metric`.
    """

    trials: list[Trial]
    best: Trial | None
    spaces: tuple[Space, ...]
    metric: Metric
    direction: str
    offline: bool
    output: Path
    artifact: Path | None = None
    files: dict[str, Path] = field(default_factory=dict)
    interrupted: bool = False


def tune(
    config: Any,
    overrides: Sequence[str] = (),
    *,
    trials: int,
    output: str | Path,
    workers: int = 1,
    metric: Metric | None = None,
    sampler: Sampler = "tpe",
    pruner: Pruner = "median",
    seed: int = 0,
    base_dir: str | Path | None = None,
    plugins: Sequence[Path] = (),
    told: Told | None = None,
) -> TuneResult:
    """Look for the best values of the search spaces in `config`, until `trials` have ended in all.

    A folder that holds the same search is gone on with: `trials` counts those that have ended in it, too. Each trial
    trains the experiment, online or offline as its `training` says. Workers are processes of their own; they register
    types by `plugins`, files such as `policysmith --plugin` takes. `seed` is that of the sampler, not of the training.

    Args:
        config: a file, a preset's name, a mapping or a DictConfig.
        overrides: as everywhere.
        trials: how many trials the folder shall hold: complete, pruned and failed ones.
        output: the folder.
        workers: processes; 1 is this one.
        metric: `return`, the mean of a trial's last 100 returns in training (the default online); `evaluation`, the
            mean return of its evaluation; `validation-loss`, the last one (the default offline).
        sampler: `tpe` (tree-structured Parzen estimator) or `random`.
        pruner: `median`, `hyperband` or `none`.
        seed: of the sampler.
        base_dir: where paths in the model start.
        plugins: files for workers.
        told: called with the trials that have ended since it was last called.

    Raises:
        ConfigError: with every problem of every choice, before the first trial.
        CheckpointError: the folder holds another search.
        MissingExtraError: optuna is not installed.
    """
    load_optuna()
    _check_names(metric=metric, sampler=sampler, pruner=pruner)
    if trials < 1 or workers < 1:
        raise ConfigError(f"at least one trial and one worker are needed, found trials={trials}, workers={workers}")
    registry: Registry = default_registry
    registry.load_plugins()
    document = open_document(config, overrides)
    chosen: dict[str, Any] = {"metric": metric, "sampler": sampler, "pruner": pruner, "seed": seed}
    search = make_search(document, base_dir, registry, **chosen, output=Path(output))
    with held(search.output):
        study = open_study(search)
        take_up(study)
        left = trials - len(trials_of(study, search.spaces))
        interrupted = False
        if left > 0 and workers > 1:
            interrupted = share(search, left, workers, plugins, told)
            take_up(study)  # what a worker that was killed left behind
        elif left > 0:
            tickets = iter(range(left))
            interrupted = work(search, study, lambda: next(tickets, None) is not None, told)
        return _result(search, trials_of(study, search.spaces), interrupted)


def _check_names(**given: str | None) -> None:
    for option, name in given.items():
        known = NAMES[option]
        if name is not None and name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f"there is no {option} {name!r}{hint}; there are: {', '.join(known)}")


def _result(search: Search, trials: list[Trial], interrupted: bool) -> TuneResult:
    best = best_of(trials, search.direction)
    artifact, files = None, {}
    if best is not None:
        folder = folder_of(search.output, best.number)
        artifact = folder / POLICY
        told = f"# Trial {best.number} of {len(trials)}: {search.metric} {best.value:.6g}\n"
        files["config"] = search.output / "best.yaml"
        replace_file(files["config"], told.encode() + (folder / CONFIG).read_bytes())
        whole = [(t.number, float(t.value)) for t in trials if t.state == "complete" and t.value is not None]
        files["history"] = plot_search(search.output / "history.png", whole, search.metric, search.direction)
    return TuneResult(
        trials,
        best,
        search.spaces,
        search.metric,
        search.direction,
        search.offline,
        search.output,
        artifact,
        files,
        interrupted,
    )
