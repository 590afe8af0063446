"""Namespaces: a network without a single connection, and a user who owns nothing of the system's.

In: nothing. Out: this process, which must have one thread yet, in namespaces of its own.
"""

from __future__ import annotations

import os

from policysmith.skills.walls.system import MACHINE, system_call

__all__ = ["leave_network"]

UNSHARE = {"x86_64": 272, "aarch64": 97}
NEW_IPC, NEW_USER, NEW_NET = 0x08000000, 0x10000000, 0x40000000


def leave_network() -> str:
    """Leave network, System V memory, and, where one may, all rights over the system; returns what was left.

    Raises OSError where the system allows none of it (containers often do not).
    """
    if MACHINE is None:
        raise OSError("unknown processor")
    if os.geteuid() != 0:  # only a new user may leave the others
        system_call(UNSHARE[MACHINE], NEW_USER | NEW_NET | NEW_IPC)
        return "user, network, ipc"
    try:
        system_call(UNSHARE[MACHINE], NEW_USER | NEW_NET | NEW_IPC)
        return "user, network, ipc"
    except OSError:
        system_call(UNSHARE[MACHINE], NEW_NET | NEW_IPC)
        return "network, ipc"
