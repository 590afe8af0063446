"""The graph grammar of schema version 1, as text: `_merge_`, `_template_` and `${}` become plain located data.

Its meaning, that is modules and calls, is read in `policysmith.graph.v1`.
"""

from policysmith.config.v1.load import finish_v1, is_v1

__all__ = ["finish_v1", "is_v1"]
