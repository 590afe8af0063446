"""A filter of system calls: no program, no process, no socket, no other process, and, if wanted, no change of a file.

In: whether files may be written. Out: a filter on every thread of this process, for good. Threads, memory, clocks and
locks go on as before, so that NumPy, torch and JAX compute. What is refused gives EPERM, an error of Python.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from policysmith.skills.walls.system import MACHINE, no_new_privileges, system_call

__all__ = ["close_calls", "program"]

# Names → numbers on x86-64 and 64-bit ARM; None where a processor has no such call.
OUTSIDE: dict[str, tuple[int | None, int | None]] = {
    # programs and processes
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438),
    # sockets
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242),
    # ways around a filter of calls
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "open_by_handle_at": (304, 265), "userfaultfd": (323, 282), "bpf": (321, 280), "perf_event_open": (298, 241),
    # who one is, and what the system is
    "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143),
    "setresuid": (117, 147), "setresgid": (119, 149), "setgroups": (116, 159), "unshare": (272, 97),
    "setns": (308, 268), "chroot": (161, 51), "pivot_root": (155, 41), "mount": (165, 40), "umount2": (166, 39),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "swapon": (167, 224),
    "swapoff": (168, 225), "quotactl": (179, 60), "acct": (163, 89), "reboot": (169, 142), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, None), "ioperm": (173, None),
    "syslog": (103, 116), "personality": (135, 92), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "adjtimex": (159, 171), "clock_adjtime": (305, 266), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219),
}  # fmt: skip
CHANGES: dict[str, tuple[int | None, int | None]] = {
    "creat": (85, None), "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "link": (86, None),
    "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36), "mknod": (133, None), "mknodat": (259, 33),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "truncate": (76, 45), "ftruncate": (77, 46),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16),
}  # fmt: skip
CLONE, CLONE3, KILL, TGKILL, PRLIMIT = (56, 220), (435, 435), (62, 129), (234, 131), (302, 261)
OPEN, OPENAT, OPENAT2 = (2, None), (257, 56), (437, 437)
SECCOMP = {"x86_64": 317, "aarch64": 277}
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32 = 0x40000000  # calls of x86-64's 32-bit pointers have numbers of their own
CLONE_THREAD = 0x00010000
TMPFILE = 0o20000000  # O_TMPFILE without O_DIRECTORY, which is no writing
FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | TMPFILE

SET_FILTER, ALL_THREADS = 1, 1
ALLOW, KILL_PROCESS, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
# Instructions of the filter machine: load a word, jump if equal / at least / any bit set, return.
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCH, ARGUMENTS = 0, 4, 16  # places in struct seccomp_data; arguments have 8 bytes, the low word first

Instruction = tuple[int, int, int, int]  # code, how many to skip if true, if false, and a constant


def close_calls(*, files: bool) -> None:
    """Put the filter on all threads of this process; `files`: none may be changed or opened for writing, too.

    Raises OSError where the system has no such filter.
    """
    if MACHINE is None:
        raise OSError(errno.ENOSYS, "no filter for this processor")
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program(MACHINE, os.getpid(), files=files))
    instructions = ctypes.create_string_buffer(code, len(code))
    filtered = struct.pack("@HP", len(code) // 8, ctypes.addressof(instructions))
    no_new_privileges()
    system_call(SECCOMP[MACHINE], SET_FILTER, ALL_THREADS, ctypes.create_string_buffer(filtered, len(filtered)))


def program(machine: str, pid: int, *, files: bool) -> list[Instruction]:
    """The filter for a processor and a process."""
    column = list(ARCHITECTURE).index(machine)
    made: list[Instruction] = [
        (LOAD, 0, 0, ARCH),
        (EQUAL, 1, 0, ARCHITECTURE[machine]),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, NUMBER),
    ]
    if machine == "x86_64":
        made += [(AT_LEAST, 0, 1, X32), _refuse(errno.EPERM)]
    refused = {**OUTSIDE, **(CHANGES if files else {})}
    for numbers in refused.values():
        made += _if_number(numbers[column], [_refuse(errno.EPERM)])
    # clone3 has its flags in memory, which a filter can't read: the C library then uses clone.
    made += _if_number(CLONE3[column], [_refuse(errno.ENOSYS)])
    made += _if_number(CLONE[column], _unless(0, ANY_BIT, CLONE_THREAD))
    for numbers in (KILL, TGKILL):
        made += _if_number(numbers[column], _unless(0, EQUAL, pid))
    made += _if_number(PRLIMIT[column], [(LOAD, 0, 0, ARGUMENTS), (EQUAL, 1, 0, 0), *_unless(0, EQUAL, pid)[1:]])
    if files:
        made += _if_number(OPENAT2[column], [_refuse(errno.ENOSYS)])
        for numbers, place in ((OPEN, 1), (OPENAT, 2)):
            flags = (LOAD, 0, 0, ARGUMENTS + 8 * place)
            body = [flags, (ANY_BIT, 0, 1, FOR_WRITING), _refuse(errno.EPERM), (RETURN, 0, 0, ALLOW)]
            made += _if_number(numbers[column], body)
    return [*made, (RETURN, 0, 0, ALLOW)]


def _if_number(number: int | None, body: list[Instruction]) -> list[Instruction]:
    """Run `body`, which returns, for this call."""
    return [] if number is None else [(EQUAL, 0, len(body), number), *body]


def _unless(place: int, test: int, value: int) -> list[Instruction]:
    """Refuse unless an argument passes."""
    load = (LOAD, 0, 0, ARGUMENTS + 8 * place)
    return [load, (test, 1, 0, value), _refuse(errno.EPERM), (RETURN, 0, 0, ALLOW)]


def _refuse(code: int) -> Instruction:
    return (RETURN, 0, 0, ERROR | code)
