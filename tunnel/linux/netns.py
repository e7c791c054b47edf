"""Network namespaces. Linux keeps one per thread: sockets, children and /proc/sys/net follow it."""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tunnel.linux.kernel import CLONE_NEWNET
from tunnel.linux.processes import netns_inode
from tunnel.linux.rights import Capability, raised

_T = TypeVar("_T")

_OURS = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


def enter(descriptor: int, kinds: int = CLONE_NEWNET) -> None:
    """Move the calling thread into an open network namespace. Needs CAP_SYS_ADMIN in both.

    With a pidfd, into the namespaces of `kinds` (CLONE_NEW… flags) of that process.
    """
    # os.setns is of Python 3.12.
    with raised(Capability.SYS_ADMIN):
        _check(_libc.setns(descriptor, kinds))


def open_namespace(path: Path | str) -> int:
    """An open descriptor of the network namespace at `path`, to be closed. Raises OSError."""
    with raised(Capability.SYS_PTRACE):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def inside(path: Path | str) -> Iterator[None]:
    """Run the body in the namespace at `path`; the thread is back where it was afterwards."""
    with _opened(_OURS) as home:
        with _opened(path) as there:
            enter(there)
        try:
            yield
        finally:
            enter(home)


@contextmanager
def _opened(path: Path | str) -> Iterator[int]:
    descriptor = open_namespace(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def call_inside(namespace: Path | str | int, function: Callable[[], _T]) -> _T:
    """What `function` returns or raises in a namespace, given as a path or an open descriptor.

    It runs in a thread of its own, so that no other part of the process can find itself there.
    A socket that it opens stays in that namespace wherever it is used.
    """

    def go() -> _T:
        if isinstance(namespace, int):
            enter(namespace)
        else:
            # Without a way back, which an ordinary user may not go.
            with _opened(namespace) as there:
                enter(there)
        return function()

    return _in_a_thread(go)


def _in_a_thread(function: Callable[[], _T]) -> _T:
    """What `function` returns or raises in a thread that ends with it."""
    result: list[_T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            result.append(function())
        except BaseException as error:  # handed to the caller, whatever it is
            failure.append(error)

    thread = threading.Thread(target=body, name="netns")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def entering(path: str) -> Callable[[], None] | None:
    """For `preexec_fn` of a process that should be in the namespace at `path`; None if empty."""
    if not path:
        return None

    def go() -> None:
        with _opened(path) as there:
            enter(there)

    return go


def new_namespace() -> int:
    """Make a network namespace; an open descriptor, which keeps it. Raises OSError."""

    def make() -> int:
        with raised(Capability.SYS_ADMIN):
            _check(_libc.unshare(CLONE_NEWNET))
        return os.open(_OURS, os.O_RDONLY | os.O_CLOEXEC)

    return _in_a_thread(make)


def namespace_id() -> int:
    """The inode that identifies the calling thread's network namespace."""
    return os.stat(_OURS).st_ino


def is_ours(descriptor: int) -> bool:
    """Whether an open network namespace is the calling thread's."""
    ours, theirs = os.stat(_OURS), os.fstat(descriptor)
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


def find_namespace(inode: int) -> Path | None:
    """A path of the network namespace of that number; None if no process is in it, as far as we
    see, and `ip netns` does not keep it.
    """
    places = itertools.chain(
        Path("/run/netns").glob("*"), Path("/proc").glob("[0-9]*/task/[0-9]*/ns/net")
    )
    return next((place for place in places if netns_inode(str(place)) == inode), None)


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
