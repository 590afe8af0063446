"""What a configuration says of recorded data: where it lies, and that there is any.

In: a checked experiment. Out: the experiment with absolute paths, so that it can be resumed from anywhere; episodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policysmith.config.experiment import Experiment
from policysmith.errors import ConfigError
from policysmith.policy.sections import Spaces
from policysmith.registry import PartSpec
from policysmith.training.datasets import Dataset, Episodes
from policysmith.training.sections import Environment

__all__ = ["dataset_spaces", "known_spaces", "place_dataset", "require_offline"]

PLACE = ("training", "dataset")


def place_dataset(experiment: Experiment) -> Experiment:
    """The dataset's paths as absolute ones: from the file that names them, or from the working directory."""
    training = experiment["training"]
    spec = training.options.get("dataset") if training is not None else None
    if not isinstance(spec, PartSpec):
        return experiment
    names = spec.entry.traits.get("paths", ())
    placed = {name: str(_absolute(experiment, name, spec.options[name])) for name in names}
    dataset = PartSpec(spec.entry, {**spec.options, **placed})
    return experiment.with_section("training", PartSpec(training.entry, {**training.options, "dataset": dataset}))


def require_offline(experiment: Experiment, given: Episodes | None) -> Episodes:
    """The episodes to learn from: those given, or those of `training.dataset`; raises `ConfigError` without any."""
    document, training = experiment.document, experiment["training"]
    if training is None:
        message = "this section is required to train: {type: offline, dataset: {type: memmap, path: …}}"
        raise ConfigError([document.problem(PLACE[:1], message)])
    if not training.entry.traits.get("offline"):
        message = f"{training.type!r} learns by playing: run policysmith train, or set type: offline"
        raise ConfigError([document.problem((*PLACE[:1], "type"), message)])
    if given is not None:
        return given
    spec: Any = training.options.get("dataset")
    if spec is None:
        raise ConfigError([document.problem(PLACE, "required to train: {type: memmap, path: …}")])
    dataset: Dataset = spec.build()
    return dataset.open()


def known_spaces(experiment: Experiment, episodes: Episodes) -> tuple[Any, Any]:
    """The episodes' spaces, where the configuration has none of its own: then None."""
    if experiment.find(Environment) is not None or experiment.find(Spaces) is not None:
        return None, None
    return episodes.observation_space, episodes.action_space


def dataset_spaces(experiment: Experiment) -> tuple[Any, Any] | None:
    """Observation and action space that the dataset tells; None where there is none, or it knows no spaces."""
    training = place_dataset(experiment)["training"]
    spec: Any = training.options.get("dataset") if training is not None else None
    if not isinstance(spec, PartSpec):
        return None
    episodes: Episodes = spec.build().open()
    found = (episodes.observation_space, episodes.action_space)
    return None if None in found else found


def _absolute(experiment: Experiment, name: str, path: str) -> Path:
    place = experiment.document.places.get((*PLACE, name))
    file = Path(place.file) if place is not None and place.line else None
    return ((file.parent if file is not None and file.is_file() else Path.cwd()) / Path(path).expanduser()).resolve()
