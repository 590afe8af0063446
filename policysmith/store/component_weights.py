"""Weights of single components from files of their own: what `load: file` in a configuration asks for.

In: a new policy. Out: the same, with the weights of some components taken from what others have stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from policysmith.config.load import Document
from policysmith.errors import CheckpointError, Problem, did_you_mean
from policysmith.graph.plan import Plan
from policysmith.policy.actor_critic import ActorCritic
from policysmith.store.weights_file import listed, printable, read_weights

__all__ = ["load_components", "missing_files"]

MANIFEST, MODEL = "manifest.json", "model.safetensors"


def load_components(policy: ActorCritic) -> None:
    """Load every component whose configuration says `load`: `.safetensors`, what `torch.save` wrote, or an artifact.

    A file must hold just the component's tensors, under their names in its `state_dict`; only tensors are read. Of an
    artifact, a directory, the component of the same name is taken. Raises `CheckpointError` with everything that does
    not fit, and has changed nothing then.
    """
    wanted = {node.name: node.spec.load for node in policy.plan.nodes if node.spec.load}
    found = {name: _fitting(name, policy.components[name], Path(file)) for name, file in wanted.items()}
    for name, tensors in found.items():
        policy.components[name].load_state_dict(tensors)


def missing_files(document: Document, plan: Plan) -> list[Problem]:
    """A problem for every `load` that leads to nothing: only where a policy is new does it matter."""
    model = document.data.get("model")
    stated = model.get("components") if isinstance(model, dict) else None
    problems = []
    for node in plan.nodes:
        if node.spec.load and not Path(node.spec.load).exists():
            section = "components" if isinstance(stated, dict) and node.name in stated else "component_build_args"
            message = f"there is nothing at {node.spec.load} to take weights from"
            problems.append(document.problem(("model", section, node.name, "load"), message))
    return problems


def _fitting(name: str, component: nn.Module, file: Path) -> Mapping[str, Tensor]:
    tensors = _of_artifact(name, file) if (file / MANIFEST).is_file() else read_weights(file).tensors
    expected = component.state_dict()
    missing = [key for key in expected if key not in tensors]
    problems = [f"{key}: missing" for key in missing]
    for key, tensor in tensors.items():
        if key not in expected:
            problems.append(f"{printable(key)}: unexpected{did_you_mean(printable(key), missing)}")
        elif tensor.shape != expected[key].shape:
            problems.append(f"{key}: {tuple(tensor.shape)}, expected {tuple(expected[key].shape)}")
    if problems:
        raise CheckpointError(listed(f"{file}: are not the weights of component {name!r}", problems))
    return tensors


def _of_artifact(name: str, directory: Path) -> Mapping[str, Tensor]:
    """The tensors of one component of a stored policy."""
    prefix = f"components.{name}."
    stored = read_weights(directory / MODEL).tensors
    found = {key.removeprefix(prefix): tensor for key, tensor in stored.items() if key.startswith(prefix)}
    if not found:
        names = list(dict.fromkeys(key.split(".")[1] for key in stored if key.startswith("components.")))
        hint = did_you_mean(name, names) or f"; there are: {', '.join(names)}"
        raise CheckpointError(f"{directory}: holds no weights of a component {name!r}{hint}")
    return found
