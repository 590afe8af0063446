"""Component modules: parts with keys, to be called with a mapping by themselves.

Their parts are registered by `policysmith.parts`; import from `policysmith.modules`, which imports them too.
"""
