"""The graph grammar of schema version 1: a composed document becomes modules and a plan of calls.

What differs from our own grammar lives here: types, blocks, operations, references, `_target_`.
"""

from policysmith.graph.v1.assemble import assemble_v1

__all__ = ["assemble_v1"]
