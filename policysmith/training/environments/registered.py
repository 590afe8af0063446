"""Environment ids: from the text of a file to what gymnasium has registered under it.

In: an id. Out: its registration, or a problem at `environment.id` with the remedy. A configuration names, and imports
nothing but the packages listed here.
"""

from __future__ import annotations

import importlib

from gymnasium.envs import registration
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import Error

from policysmith.errors import ConfigError, Problem, did_you_mean, missing_extra
from policysmith.training.environments.two_player import GAMES

__all__ = ["newer_version", "registered"]

# Environments that a package registers when it is imported: prefix of the id → (module, what installs it).
_PROVIDERS = {
    "MiniGrid-": ("minigrid", "minigrid"),
    "BabyAI-": ("minigrid", "minigrid"),
    "ALE/": ("ale_py", None),
}
OWN = "an environment of your own is registered in a Python file, which is named by --plugin FILE"


def registered(name: str) -> EnvSpec:
    """What is registered under an id; without a version, its latest. Raises `ConfigError`.

    gymnasium's own search warns in colours of what is out of date: `newer_version` tells of that.
    """
    if ":" in name:
        message = f"{name!r} names a module to import, which a configuration may not: import it in a Python file, and "
        raise _refused(f"{message}name that by --plugin FILE; the id is {name.split(':', 1)[1]!r} then")
    _import_provider(name)
    if (found := registration.registry.get(name)) is not None:
        return found
    try:
        namespace, stem, version = registration.parse_env_id(name)
    except Error:
        raise _refused(f"{name!r} is no id of an environment: ids are like CartPole-v1 or ALE/Pong-v5") from None
    latest = _latest(namespace, stem)
    if latest is None:
        raise _refused(f"{name!r} can't be made: {_unknown(name, namespace)}; {OWN}")
    if version is not None:
        raise _refused(f"{name!r} can't be made: there is no such version of it; take {latest.id}")
    return latest


def newer_version(spec: EnvSpec) -> str | None:
    """The id of the latest version, where this is an older one."""
    latest = _latest(spec.namespace, spec.name)
    if latest is None or spec.version is None or latest.version is None or latest.version <= spec.version:
        return None
    return latest.id


def _latest(namespace: str | None, stem: str) -> EnvSpec | None:
    alike = [s for s in registration.registry.values() if (s.namespace, s.name) == (namespace, stem)]
    return max(alike, key=lambda spec: -1 if spec.version is None else spec.version, default=None)


def _unknown(name: str, namespace: str | None) -> str:
    known = {spec.namespace for spec in registration.registry.values()}
    if namespace is not None and namespace not in known:
        return f"no package has registered environments of {namespace}/"
    return f"no environment of that name is registered{did_you_mean(name, [*registration.registry, *GAMES])}"


def _import_provider(name: str) -> None:
    for prefix, (module, extra) in _PROVIDERS.items():
        if name.startswith(prefix):
            try:
                importlib.import_module(module)
            except ImportError as error:
                plain = f"{module} is not installed; run: pip install {module}"
                raise _refused(f"{name}: {missing_extra(module, extra) if extra else plain}") from error


def _refused(message: str) -> ConfigError:
    return ConfigError([Problem("environment.id", message)])
