"""One daemon per interface name: a lock that the kernel frees, also after kill -9."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tunnel import host
from tunnel.errors import AlreadyRunningError, DaemonError
from tunnel.linux.files import RUN_FOLDER, open_plain

_POLL = 0.02
"""Seconds between two attempts to take a lock that another process holds; flock has no timeout."""

_REMEDIES = {
    errno.ENOSPC: f"make room below {RUN_FOLDER}",
    errno.EROFS: f"mount {RUN_FOLDER} writable",
    **dict.fromkeys(
        (errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ENOTDIR),
        "move away what has that name: it must be a plain file",
    ),
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the machine's limit of open files (sysctl fs.file-max)",
}


@contextlib.contextmanager
def hold(name: str, *, patience: float = 0.0, folder: Path = RUN_FOLDER) -> Iterator[int]:
    """Hold the lock of interface `name`, so that two daemons never share a name.

    The descriptor holds it; while a child has that open as well, the child holds it, too. Waits
    `patience` seconds for another holder; blocks meanwhile. Raises AlreadyRunningError,
    DaemonError.
    """
    path = lock_path(name, folder)
    deadline = time.monotonic() + patience
    while (descriptor := _try(path)) is None:
        if time.monotonic() >= deadline:
            raise AlreadyRunningError(f"a tunnel named {name} is already running{_where(name)}")
        time.sleep(_POLL)
    try:
        yield descriptor
    finally:
        # Before the lock is released: a process that has opened the file sees that it is gone.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def lock_path(name: str, folder: Path = RUN_FOLDER) -> Path:
    """The file of the lock."""
    return folder / f"{name}.lock"


def _where(name: str) -> str:
    with contextlib.suppress(host.HostError):
        record = host.load_record(name)
        if record is not None and not record.is_here():
            return (
                ", in another network namespace; give this conf another name, or this namespace a "
                "/run of its own"
            )
    return f"; see tunnel show {name}"


def _try(path: Path) -> int | None:
    """The descriptor that holds the lock, or None if another process holds it."""
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have removed the file between our open and our lock.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        return open_plain(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> DaemonError:
    """The error for a file in RUN_FOLDER that cannot be created."""
    remedy = _REMEDIES.get(error.errno or 0, "run it as root (sudo)")
    return DaemonError(f"cannot write {path}: {error.strerror}; {remedy}")
