"""What code of skills may call: functions that compute, and nothing that reads, writes, imports or runs anything.

Names only: nothing here is imported. `module_file` and the worker that runs the code both go by these lists.
"""

from __future__ import annotations

__all__ = ["BUILTINS", "CONSTANTS", "FUNCTIONS", "METHODS", "MODULES", "NAMED_ARGUMENTS"]

_MATH = """
acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh degrees dist erf exp exp2 expm1 fabs floor fmod
fsum gcd hypot isclose isfinite isinf isnan log log10 log1p log2 pow prod radians remainder sin sinh sqrt tan tanh trunc
"""
_ARRAYS = """
abs absolute add all any arctan arctan2 argmax argmin array asarray ceil clip concatenate cos count_nonzero cumsum
diff divide dot equal exp expm1 floor floor_divide fmax fmin fmod greater greater_equal hypot isclose isfinite isin
isinf isnan less less_equal linalg.norm log log10 log1p log2 logical_and logical_not logical_or logical_xor max maximum
mean median min minimum mod multiply negative not_equal ones_like power prod ravel reciprocal remainder round sign sin
sqrt square squeeze stack std subtract sum take tan tanh true_divide var where zeros_like
"""
_BUILTINS = """
abs all any bool dict divmod enumerate float int len list max min pow range reversed round set sorted sum
tuple zip
"""
_METHODS = """
all any argmax argmin astype bool clip count cumsum float get index int item items keys long max mean min
prod ravel reshape round squeeze std sum tolist values var
"""
_NAMED_ARGUMENTS = """
a_max a_min atol axis base default dim dtype equal_nan initial keepdim keepdims max min nan ndigits ord
other rtol start strict
"""
_TYPES = "bool_ float32 float64 int32 int64"
_TORCH = """
abs add all any argmax argmin as_tensor atan atan2 cat ceil clamp clip cos count_nonzero cumsum diff div dot eq exp
expm1 floor floor_divide fmax fmin fmod ge gt hypot isclose isfinite isin isinf isnan le linalg.norm log log10 log1p
log2 logical_and logical_not logical_or logical_xor lt max maximum mean median min minimum mul ne neg norm ones_like pow
prod ravel reciprocal relu remainder round sigmoid sign sin sqrt square squeeze stack std sub sum tan tanh tensor
true_divide var where zeros_like
"""

# Modules that may be imported → functions of theirs that may be called.
FUNCTIONS: dict[str, frozenset[str]] = {
    "math": frozenset(_MATH.split()),
    "numpy": frozenset((_ARRAYS + _TYPES).split()),
    "jax.numpy": frozenset((_ARRAYS + _TYPES).split()),
    "torch": frozenset(_TORCH.split()),
}
MODULES = frozenset(FUNCTIONS)

# … → what may be read of them without a call; types serve as dtypes and annotations.
CONSTANTS: dict[str, frozenset[str]] = {
    "math": frozenset(["e", "inf", "nan", "pi", "tau"]),
    "numpy": frozenset(f"e inf nan newaxis ndarray pi {_TYPES}".split()),
    "jax.numpy": frozenset(f"e inf nan newaxis ndarray pi {_TYPES}".split()),
    "torch": frozenset(["Tensor", "bool", "e", "float32", "float64", "inf", "int32", "int64", "nan", "pi"]),
}

BUILTINS = frozenset(_BUILTINS.split())

# Methods of the values that a function is given; none changes the value it belongs to.
METHODS = frozenset(_METHODS.split())

# `key=` and the like would call what they are given.
NAMED_ARGUMENTS = frozenset(_NAMED_ARGUMENTS.split())
