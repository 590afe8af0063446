"""Calls of the Linux kernel that Python does not offer, by number, on x86-64 and 64-bit ARM.

In: numbers and structures. Out: what the kernel gave; OSError where it refuses.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

__all__ = ["MACHINE", "no_new_privileges", "system_call"]

MACHINES = {"x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
# None on other systems and processors, and in 32-bit processes, whose calls have other numbers.
MACHINE = MACHINES.get(platform.machine()) if sys.platform == "linux" and sys.maxsize > 2**32 else None
NO_NEW_PRIVILEGES = 38


def system_call(number: int, *arguments: object) -> int:
    """`syscall(2)`; arguments are ints or ctypes' own. Raises OSError."""
    return _checked(_libc().syscall(ctypes.c_long(number), *map(_word, arguments)))


def prctl(option: int, *arguments: object) -> int:
    """`prctl(2)`. Raises OSError."""
    words = [_word(argument) for argument in arguments] + [ctypes.c_ulong(0)] * (4 - len(arguments))
    return _checked(_libc().prctl(ctypes.c_int(option), *words))


def no_new_privileges() -> None:
    """No program that is started later gains rights; Landlock and seccomp ask for it."""
    prctl(NO_NEW_PRIVILEGES, 1)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _word(argument: object) -> object:
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
