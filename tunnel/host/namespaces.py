"""Work in another network namespace, for the calling thread only.

Linux keeps the network namespace per thread, so a worker thread can look into another one while
the event loop stays where it is. Sockets, child processes and /proc/sys/net all follow the thread.
"""

import ctypes
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tunnel.host.errors import HostError

_CLONE_NEWNET = 0x40000000
_OURS = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(netns: Path | str | None) -> Iterator[None]:
    """Run the body in the namespace at the path `netns` (None: stay where we are).

    Raises HostError when it cannot be entered. The thread is back where it was afterwards.
    """
    if netns is None:
        yield
        return
    home = os.open(_OURS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            there = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise HostError.from_errno(
                "enter namespace", str(netns), error.errno or 0, "ip netns list names those there"
            ) from error
        try:
            _setns(there, str(netns))
        finally:
            os.close(there)
        try:
            yield
        finally:
            _setns(home, "we came from")
    finally:
        os.close(home)


def namespace_id() -> int:
    """A number which tells the calling thread's network namespace from all others."""
    return os.stat(_OURS).st_ino


def namespace_lives(number: int) -> bool:
    """Whether a process is in the network namespace of that number, or `ip netns` keeps it."""
    places = itertools.chain(
        Path("/run/netns").glob("*"), Path("/proc").glob("[0-9]*/task/[0-9]*/ns/net")
    )
    for place in places:
        with suppress(OSError):  # a process that has just ended, or that we may not look at
            if place.stat().st_ino == number:
                return True
    return False


def _setns(fd: int, name: str) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        raise HostError.from_errno(
            "enter namespace", name, ctypes.get_errno(), "needs root (CAP_SYS_ADMIN)"
        )
