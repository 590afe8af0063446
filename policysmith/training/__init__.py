"""Training loops, environments, evaluation and what they write down."""

import policysmith.training.factories  # noqa: F401 - registers the factory of graphs in files
