"""What a process gives up of root's rights: capabilities(7), prctl(2), core dumps.

A capability is given up in every set, the bounding set included, so that no program that the
process starts has it either. All of that is of one thread and of those that it starts: give up
before there is another.
"""

from __future__ import annotations

import ctypes
import os
import resource
import threading
from collections.abc import Collection
from enum import IntEnum
from pathlib import Path

from tunnel.linux import kernel

_libc = ctypes.CDLL(None, use_errno=True)
_LAST_CAP = Path("/proc/sys/kernel/cap_last_cap")
_NEWEST_KNOWN = 40
_WORDS = 2
"""Words of 32 bits of each set, in version 3 of capset's interface."""


class Capability(IntEnum):
    """The numbers of those that a tunnel may need (linux/capability.h)."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    FOWNER = 3
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13
    SYS_PTRACE = 19
    SYS_ADMIN = 21


def hide_memory() -> None:
    """Write no core dump, and let only root with CAP_SYS_PTRACE look at the memory of the process.

    Neither holds for the programs that it starts, but for the soft limit. Raises OSError.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    # A core that the kernel pipes to a program does not heed the limit.
    _prctl(kernel.PR_SET_DUMPABLE, 0)


def give_up_all_but(kept: Collection[Capability]) -> None:
    """Give up every other capability, and the way to get one back by a setuid program.

    Raises OSError where the machine refuses: a filter of systemd does, and so does a container that
    has taken CAP_SETPCAP. What was given up until then stays so. RuntimeError if there is a second
    thread, which would keep its rights.
    """
    if threading.active_count() > 1:
        raise RuntimeError("another thread would keep its rights")
    for number in range(_last() + 1):
        if number not in kept and _prctl(kernel.PR_CAPBSET_READ, number):
            _prctl(kernel.PR_CAPBSET_DROP, number)
    header = (ctypes.c_uint32 * 2)(kernel.CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * (3 * _WORDS))()  # effective, permitted, inheritable; twice
    if _libc.capget(header, sets):
        raise _error()
    for place in range(len(sets)):
        first = 32 * (place // 3)
        sets[place] &= sum(1 << number - first for number in kept if 0 <= number - first < 32)
    if _libc.capset(header, sets):
        raise _error()
    _prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def _last() -> int:
    try:
        return int(_LAST_CAP.read_text())
    except (OSError, ValueError):
        return _NEWEST_KNOWN


def _prctl(option: int, value: int) -> int:
    found = int(_libc.prctl(option, value, 0, 0, 0))
    if found < 0:
        raise _error()
    return found


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
