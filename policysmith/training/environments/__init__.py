"""Where policies act: gymnasium's environments by name, games for two, and environments that can be brought back."""

from typing import TYPE_CHECKING

from policysmith.lazy_names import lazy_names

if TYPE_CHECKING:
    from policysmith.training.environments.make import (
        WRAPPERS,
        close_vector,
        make_environment,
        make_vector,
        single_spaces,
    )

__all__ = ["WRAPPERS", "close_vector", "make_environment", "make_vector", "single_spaces"]

# Late: environments need games for two, and those need nothing of here.
__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "policysmith.training.environments.make"))
