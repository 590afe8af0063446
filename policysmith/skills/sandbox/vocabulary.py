"""The closed table, by name: what code of skills may call and read. Nothing here is imported or looked up.

A name maps to how many arguments may stand without a name: the ones that follow in NumPy would be `out`, an array that
is written to. Whatever is not here does not exist for a skill.
"""

from __future__ import annotations

import re

__all__ = [
    "ANNOTATIONS",
    "ANY_NUMBER",
    "ARRAY_ATTRIBUTES",
    "ARRAY_METHODS",
    "BUILTINS",
    "CONSTANTS",
    "DTYPES",
    "FLOAT_FUNCTIONS",
    "FUNCTIONS",
    "METHODS",
    "MODULES",
    "NAMED_ARGUMENTS",
    "NO_FEATURE",
    "PLAIN_METHODS",
    "TEXT_ARGUMENTS",
]

ANY_NUMBER = 255


def _counted(**groups: str) -> dict[str, int]:
    """`_2="add all"` → {"add": 2, "all": 2}."""
    return {name: int(count[1:]) for count, names in groups.items() for name in names.split()}


_TYPES = "bool_ float32 float64 int32 int64"
_ARRAYS = _counted(
    _1="abs absolute arctan ceil cos exp expm1 floor isfinite isinf isnan log log10 log1p log2 logical_not negative "
    f"ravel reciprocal sign sin sqrt square tan tanh {_TYPES}",
    _2="add all any arctan2 argmax argmin array asarray concatenate count_nonzero divide dot equal floor_divide fmax "
    "fmin fmod greater greater_equal hypot isin less less_equal logical_and logical_or logical_xor max maximum median "
    "min minimum mod multiply not_equal ones_like power remainder round squeeze stack subtract true_divide zeros_like",
    _3="clip cumsum diff mean prod std sum take var where",
    _4="linalg.norm",
    _5="isclose",
)
_MATH = """
acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh degrees dist erf exp exp2 expm1 fabs floor fmod
fsum gcd hypot isclose isfinite isinf isnan log log10 log1p log2 pow prod radians remainder sin sinh sqrt tan tanh trunc
"""
_TORCH = """
abs add all any argmax argmin as_tensor atan atan2 cat ceil clamp clip cos count_nonzero cumsum diff div dot eq exp
expm1 floor floor_divide fmax fmin fmod ge gt hypot isclose isfinite isin isinf isnan le linalg.norm log log10 log1p
log2 logical_and logical_not logical_or logical_xor lt max maximum mean median min minimum mul ne neg norm ones_like pow
prod ravel reciprocal relu remainder round sigmoid sign sin sqrt square squeeze stack std sub sum tan tanh tensor
true_divide var where zeros_like
"""

# Modules that may be imported → functions of theirs that may be called → how many arguments without a name.
FUNCTIONS: dict[str, dict[str, int]] = {
    "math": dict.fromkeys(_MATH.split(), ANY_NUMBER),
    "numpy": _ARRAYS,
    "jax.numpy": _ARRAYS,
    "torch": dict.fromkeys(_TORCH.split(), ANY_NUMBER),  # an `out` of torch's has to be named
}
MODULES = frozenset(FUNCTIONS)

# Functions of `math` that give whole numbers or truth values; all others give floats.
FLOAT_FUNCTIONS = frozenset(_MATH.split()) - set(
    ["ceil", "floor", "gcd", "isclose", "isfinite", "isinf", "isnan", "prod", "trunc"]
)

# … → what may be read of them without a call; types serve as dtypes and annotations.
CONSTANTS: dict[str, frozenset[str]] = {
    "math": frozenset(["e", "inf", "nan", "pi", "tau"]),
    "numpy": frozenset(f"e inf nan newaxis ndarray pi {_TYPES}".split()),
    "jax.numpy": frozenset(f"e inf nan newaxis ndarray pi {_TYPES}".split()),
    "torch": frozenset(["Tensor", "bool", "e", "float32", "float64", "inf", "int32", "int64", "nan", "pi"]),
}

_BUILTINS = """
abs all any bool dict divmod enumerate float int len list max min pow range reversed round set sorted sum tuple zip
"""
BUILTINS = frozenset(_BUILTINS.split())

# Methods by kind of value; none changes the value it belongs to.
ARRAY_METHODS = _counted(
    _0="bool float int long ravel tolist",
    _1="all any argmax argmin astype max min round",
    _2="clip cumsum mean prod std sum var",
    _8="item reshape squeeze",
)
PLAIN_METHODS: dict[type, dict[str, int]] = {
    dict: {"get": 2, "items": 0, "keys": 0, "values": 0},
    list: {"count": 1, "index": 3},
    tuple: {"count": 1, "index": 3},
    range: {"count": 1, "index": 1},
    str: {"count": 3, "index": 3},
}
METHODS = {name: count for kind in (ARRAY_METHODS, *PLAIN_METHODS.values()) for name, count in kind.items()}

# No feature is called so: these lead from a value to memory, to frames, to files, or to formats. Reading goes by kind
# of value, so this list protects nothing; it lets the mistake be told before anything runs.
NO_FEATURE = re.compile(r"_.*|(gi|cr|ag|f|tb|co|func)_.*|format(_map)?|tofile|dumps?|ctypes|data|base")

# What may be read of an array without a call; numbers have `real` and `imag`, feature objects their declared fields.
ARRAY_ATTRIBUTES = frozenset(["T", "dtype", "imag", "itemsize", "nbytes", "ndim", "real", "shape", "size"])

# `key=` and the like would call what they are given, `out=` would be written to.
_NAMED = """
a_max a_min atol axis base default dim dtype equal_nan initial keepdim keepdims max min nan ndigits ord
other rtol start strict
"""
NAMED_ARGUMENTS = frozenset(_NAMED.split())

# As texts; those of an array of objects or of texts are not among them.
_DTYPES = "bool float float16 float32 float64 int int8 int16 int32 int64 uint8 uint16 uint32 uint64"
DTYPES = frozenset(_DTYPES.split())

# Texts that array functions take, by the argument's name.
TEXT_ARGUMENTS = {"dtype": DTYPES, "ord": frozenset(["fro", "nuc"])}

# What may annotate; annotations are read and dropped.
ANNOTATIONS = frozenset({"bool", "float", "int", "str", "list", "tuple", "dict"})
