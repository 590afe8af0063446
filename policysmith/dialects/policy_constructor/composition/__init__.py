"""The graph grammar of schema version 1, as text: `_merge_`, `_template_` and `${}` become plain located data.

Its meaning, that is modules and calls, is read in `translate.py`.
"""

from policysmith.dialects.policy_constructor.composition.compose import finish_v1, is_v1

__all__ = ["finish_v1", "is_v1"]
