"""Processes by the network namespace that they are in, and their end."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

from tunnel.linux.rights import Capability, raised

_NS_GET_PARENT: Final = 0xB702
_ARG_START: Final = 48
"""The number of that field, from 1; the first after the name of the program is 3."""
_UCRED: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid


def show_command(words: Sequence[str]) -> None:
    """Have ps show another command line of this process; one longer than its own changes nothing.
    Nor does any where there is no /proc.

    The kernel reads it out of the process's memory, between two addresses of proc_pid_stat(5).
    """
    try:
        # As bytes: of the program's name the kernel keeps 15, and may end it within a character.
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return
    start, end = int(fields[_ARG_START - 3]), int(fields[_ARG_START - 2])
    line = b"".join(os.fsencode(word) + b"\0" for word in words)
    if start and len(line) <= end - start:
        ctypes.memmove(start, line.ljust(end - start, b"\0"), end - start)


class HasOptions(Protocol):
    """A socket, of the standard library or of trio."""

    def getsockopt(self, level: int, option: int, buflen: int, /) -> bytes:
        """An option of it, as bytes."""


def peer_pid(sock: HasOptions) -> int:
    """The process at the other end of a unix socket, as the kernel knows it (SO_PEERCRED)."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(data)[0])


def netns_inode(path: str) -> int | None:
    """The inode that identifies the network namespace at `path`; None if it is gone."""
    try:
        with raised(Capability.SYS_PTRACE):
            return os.stat(path).st_ino
    except OSError:
        return None


def start_time(pid: str) -> int:
    """When the process began, in clock ticks since boot; 0 if there is none."""
    try:
        # The folder may have another name, as "self".
        number = int(pid) if pid.isascii() and pid.isdecimal() else 0
        text = Path(f"/proc/{number}/stat").read_text(errors="replace")
    except (OSError, ValueError):
        return 0
    # The second field, its name, may hold anything.
    return int(text.rpartition(")")[2].split()[19])


def own_pid(pid: int, other: int) -> int:
    """Our number of the process that is `pid` in the PID namespace of process `other`; 0 if there
    is none in sight.
    """
    theirs = _pid_namespace(other)
    if theirs in (None, _pid_namespace(os.getpid())):
        return pid
    depth = len(_numbers(other))
    for entry in filter(str.isdigit, os.listdir("/proc")):
        numbers = _numbers(int(entry))
        if len(numbers) >= depth and numbers[depth - 1] == pid and _is_below(int(entry), theirs):
            return int(entry)
    return 0


def _numbers(pid: int) -> list[int]:
    """What the process is called in each PID namespace, from ours to its own."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return [int(word) for word in line.split()[1:]]
    return []


def _pid_namespace(pid: int) -> int | None:
    with contextlib.suppress(OSError), raised(Capability.SYS_PTRACE):
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    return None


def _is_below(pid: int, inode: int | None) -> bool:
    """Whether the PID namespace of the process is the one of that inode, or within it."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        with raised(Capability.SYS_PTRACE):
            found = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        while True:
            stack.callback(os.close, found)
            if os.fstat(found).st_ino == inode:
                return True
            found = fcntl.ioctl(found, _NS_GET_PARENT)
    return False


def pids_in(inode: int) -> list[int]:
    """Processes whose network namespace has this inode, without the caller itself."""
    own = os.getpid()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == own:
            continue
        if netns_inode(f"/proc/{entry}/ns/net") == inode:
            found.append(int(entry))
    return found


def end_processes(pids: Iterable[int], *, grace: float = 2.0) -> None:
    """End exactly these processes: SIGTERM, and SIGKILL for what is left after `grace` seconds.

    Returns when all of them are gone. Children of ours are not reaped here: the owner of
    their Popen does that. Raises TimeoutError when one survives SIGKILL for five seconds.
    """
    descriptors: dict[int, int] = {}
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                descriptors[pid] = os.pidfd_open(pid)
        for sign, bound in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            for descriptor in descriptors.values():
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, sign)
            _wait_gone(descriptors, bound)
            if not descriptors:
                return
        raise TimeoutError(f"processes {sorted(descriptors)} did not end after SIGKILL")
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


def _wait_gone(descriptors: dict[int, int], bound: float) -> None:
    """Wait up to `bound` seconds; what has ended is closed and taken out of `descriptors`."""
    end = time.monotonic() + bound
    while descriptors:
        poller = select.poll()
        for descriptor in descriptors.values():
            poller.register(descriptor, select.POLLIN)
        remaining = end - time.monotonic()
        ready = {number for number, _ in poller.poll(max(0.0, remaining) * 1000)}
        for pid, descriptor in list(descriptors.items()):
            if descriptor in ready:
                os.close(descriptor)
                del descriptors[pid]
        if remaining <= 0:
            return
