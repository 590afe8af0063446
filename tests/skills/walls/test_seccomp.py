"""The filter's program, judged by a machine of 20 lines that runs it as the kernel would."""

import errno

import pytest

from policysmith.skills.walls.seccomp import ALLOW, ARCHITECTURE, ERROR, KILL_PROCESS, program

PID = 4242
NO = ERROR | errno.EPERM


def verdict(machine, number, *arguments, files=True, architecture=None):
    words = {0: number, 4: architecture or ARCHITECTURE[machine]}
    words |= {16 + 8 * place: value & 0xFFFFFFFF for place, value in enumerate([*arguments, 0, 0, 0, 0])}
    code, at, accumulator = program(machine, PID, files=files), 0, 0
    while True:
        operation, if_true, if_false, constant = code[at]
        at += 1
        if operation == 0x20:
            accumulator = words[constant]
        elif operation == 0x06:
            return constant
        else:
            test = {0x15: accumulator == constant, 0x35: accumulator >= constant, 0x45: bool(accumulator & constant)}
            at += if_true if test[operation] else if_false


THREAD, FORK = 0x3D0F00, 0x01200011  # the flags with which the C library makes a thread, and forks
CASES = {
    "x86_64": {"read": 0, "write": 1, "mmap": 9, "futex": 202, "getpid": 39, "execve": 59, "fork": 57, "socket": 41,
               "ptrace": 101, "unlink": 87, "clone": 56, "clone3": 435, "openat": 257, "tgkill": 234, "kill": 62},
    "aarch64": {"read": 63, "write": 64, "mmap": 222, "futex": 98, "getpid": 172, "execve": 221, "socket": 198,
                "ptrace": 117, "unlink": 35, "clone": 220, "clone3": 435, "openat": 56, "tgkill": 131, "kill": 129},
}  # fmt: skip


@pytest.mark.parametrize("machine", CASES)
def test_calls_of_a_processor(machine):
    numbers = CASES[machine]
    for name in ("read", "write", "mmap", "futex", "getpid"):
        assert verdict(machine, numbers[name]) == ALLOW
    for name in {"execve", "fork", "socket", "ptrace", "unlink"} & set(numbers):
        assert verdict(machine, numbers[name]) == NO
    assert verdict(machine, numbers["clone"], THREAD) == ALLOW and verdict(machine, numbers["clone"], FORK) == NO
    assert verdict(machine, numbers["clone3"]) == ERROR | errno.ENOSYS
    assert verdict(machine, numbers["openat"], -100, 0, 0) == ALLOW
    for flags in (1, 2, 0o100, 0o1000, 0o20200000):
        assert verdict(machine, numbers["openat"], -100, 0, flags) == NO
        assert verdict(machine, numbers["openat"], -100, 0, flags, files=False) == ALLOW
    for name in ("tgkill", "kill"):
        assert verdict(machine, numbers[name], PID) == ALLOW and verdict(machine, numbers[name], 1) == NO
    assert verdict(machine, numbers["unlink"], files=False) == ALLOW


def test_calls_of_another_processor_end_the_process():
    for machine in CASES:
        other = next(code for name, code in ARCHITECTURE.items() if name != machine)
        assert verdict(machine, 1, architecture=other) == KILL_PROCESS
    assert verdict("x86_64", 0x40000000) == NO


def test_no_jump_is_too_far():
    for machine in CASES:
        code = program(machine, PID, files=True)
        assert len(code) < 4096 and all(max(line[1:3]) < 256 for line in code)
