"""Planned faults in core functions, each of which must turn a test red; `python -m tests.mutants` tries them all."""
