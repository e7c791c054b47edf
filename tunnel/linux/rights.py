"""What a process gives up of root's rights, and what it holds: capabilities(7), prctl(2).

A capability that is given up is gone in every set, the bounding set included, so that no program
that the process starts has it either. One in reserve is held, but used only where `raised` says so,
and no program that the process starts has it. All of that is of one thread and of those that it
starts: give up before there is another.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from tunnel.linux import kernel

_libc = ctypes.CDLL(None, use_errno=True)
_LAST_CAP = Path("/proc/sys/kernel/cap_last_cap")
_WORDS: Final = 2
"""Words of 32 bits of each set, in version 3 of capset's interface."""
_SETS: Final = 3
"""Effective, permitted, inheritable: word 0 of each, then word 1 of each."""


class Capability(IntEnum):
    """All that there are (linux/capability.h)."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    FOWNER = 3
    FSETID = 4
    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    LINUX_IMMUTABLE = 9
    NET_BIND_SERVICE = 10
    NET_BROADCAST = 11
    NET_ADMIN = 12
    NET_RAW = 13
    IPC_LOCK = 14
    IPC_OWNER = 15
    SYS_MODULE = 16
    SYS_RAWIO = 17
    SYS_CHROOT = 18
    SYS_PTRACE = 19
    SYS_PACCT = 20
    SYS_ADMIN = 21
    SYS_BOOT = 22
    SYS_NICE = 23
    SYS_RESOURCE = 24
    SYS_TIME = 25
    SYS_TTY_CONFIG = 26
    MKNOD = 27
    LEASE = 28
    AUDIT_WRITE = 29
    AUDIT_CONTROL = 30
    SETFCAP = 31
    MAC_OVERRIDE = 32
    MAC_ADMIN = 33
    SYSLOG = 34
    WAKE_ALARM = 35
    BLOCK_SUSPEND = 36
    AUDIT_READ = 37
    PERFMON = 38
    BPF = 39
    CHECKPOINT_RESTORE = 40


_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
"""asm-generic/mman.h, as on every architecture but Alpha, PowerPC and SPARC."""

_KNOWN: Final = frozenset(Capability)


@dataclass(frozen=True, slots=True)
class Held:
    """What a process may do, as /proc/PID/status has it; capabilities by their numbers.

    `reserve` are those that it can have, and has not in general. `filters` says whether a filter
    of system calls (seccomp) is in force, `locked` whether memory is kept from swap space.
    """

    uid: int
    capabilities: frozenset[int]
    reserve: frozenset[int]
    no_new_privs: bool
    filters: bool
    locked: bool


def hide_memory() -> None:
    """Write no core dump, and let only root with CAP_SYS_PTRACE look at the memory of the process.

    Neither holds for the programs that it starts, but for the soft limit. Raises OSError.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    # A core that the kernel pipes to a program does not heed the limit.
    _prctl(kernel.PR_SET_DUMPABLE, 0)


def keep_memory_from_swap() -> None:
    """Have no page of this process written to swap space, from now to its end (mlockall(2)).

    Pages are locked as they come into use, so that it takes no more of them. Raises OSError where
    the limit RLIMIT_MEMLOCK cannot be lifted: with one, memory that is there could not be had.
    """
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)
    except ValueError:
        # What Python makes of EPERM. CAP_SYS_RESOURCE of a user namespace is not enough.
        raise OSError(errno.EPERM, os.strerror(errno.EPERM)) from None
    if _libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
        raise _error()


def give_up_all_but(kept: Collection[int], reserve: Collection[int] = ()) -> None:
    """Give up every other capability, and the way to get one back by a setuid program.

    Those in `reserve` are held, to be used by `raised`. Raises OSError where the machine refuses:
    a filter of systemd does, and so does a container that has taken CAP_SETPCAP. What was given up
    until then stays so. RuntimeError if there is a second thread, which would keep its rights.
    """
    if threading.active_count() > 1:
        raise RuntimeError("another thread would keep its rights")
    for number in range(_last() + 1):
        if number not in kept and _prctl(kernel.PR_CAPBSET_READ, number):
            _prctl(kernel.PR_CAPBSET_DROP, number)
    sets = _get()
    for place in range(len(sets)):
        is_permitted = place % _SETS == 1
        sets[place] &= _word({*kept, *reserve} if is_permitted else kept, place // _SETS)
    _set(sets)
    _prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def refuse_new_code() -> None:
    """Have no memory that was written run as code (PR_SET_MDWE); nor will what the process starts.

    Raises OSError, as on kernels before 6.3.
    """
    _prctl(kernel.PR_SET_MDWE, kernel.PR_MDWE_REFUSE_EXEC_GAIN)


@contextlib.contextmanager
def raised(*wanted: Capability) -> Iterator[None]:
    """Have these of the calling thread's reserve in the body; what it lacks it does without."""
    before = _get()
    now = _copy(before)
    for number in wanted:
        word = number // 32
        now[_SETS * word] |= _word({number}, word) & before[_SETS * word + 1]
    if bytes(now) == bytes(before):
        yield
        return
    _set(now)
    try:
        yield
    finally:
        _set(before)


def held_by(pid: int | None = None) -> Held | None:
    """What the process may do, or the calling thread; None if it is gone. Needs no right."""
    try:
        text = Path(f"/proc/{pid or 'thread-self'}/status").read_text(errors="replace")
    except OSError:
        return None
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    effective, permitted = (_numbers(int(fields[name], 16)) for name in ("CapEff", "CapPrm"))
    return Held(
        uid=int(fields["Uid"].split()[1]),
        capabilities=effective,
        reserve=permitted - effective,
        no_new_privs=fields.get("NoNewPrivs") == "1",
        filters=fields.get("Seccomp") == "2",
        locked=int(fields.get("VmLck", "0").split()[0]) > 0,
    )


def names_of(capabilities: Collection[int]) -> tuple[str, ...]:
    """Their names in the kernel's headers, without CAP_, in the order of their numbers."""
    return tuple(
        Capability(number).name if number in _KNOWN else str(number)
        for number in sorted(capabilities)
    )


def _numbers(mask: int) -> frozenset[int]:
    return frozenset(number for number in range(mask.bit_length()) if mask >> number & 1)


def _word(numbers: Collection[int], word: int) -> int:
    return sum(1 << number - 32 * word for number in numbers if number // 32 == word)


def _header() -> ctypes.Array[ctypes.c_uint32]:
    return (ctypes.c_uint32 * 2)(kernel.CAPABILITY_VERSION_3, 0)


def _get() -> ctypes.Array[ctypes.c_uint32]:
    sets = (ctypes.c_uint32 * (_SETS * _WORDS))()
    if _libc.capget(_header(), sets):
        raise _error()
    return sets


def _copy(sets: ctypes.Array[ctypes.c_uint32]) -> ctypes.Array[ctypes.c_uint32]:
    return (ctypes.c_uint32 * len(sets))(*sets)


def _set(sets: ctypes.Array[ctypes.c_uint32]) -> None:
    if _libc.capset(_header(), sets):
        raise _error()


def _last() -> int:
    try:
        return int(_LAST_CAP.read_text())
    except (OSError, ValueError):
        return max(Capability)


def _prctl(option: int, value: int) -> int:
    found = int(_libc.prctl(option, value, 0, 0, 0))
    if found < 0:
        raise _error()
    return found


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
