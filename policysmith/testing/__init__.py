"""The laws that every registered type keeps, for the author of a type: `check_part(MyPart, inputs)` runs them all.

In: a registered type, inputs that it takes, options. Out: nothing, or one AssertionError with every law that is broken.
"""

from policysmith.testing.case import Case, Subject
from policysmith.testing.check_part import LAWS, MEMORY_LAWS, check_part

__all__ = ["LAWS", "MEMORY_LAWS", "Case", "Subject", "check_part"]
