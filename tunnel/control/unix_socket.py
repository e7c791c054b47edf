"""Listening on a unix socket in place of one that no process listens on any more."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from tunnel.control.clients import BACKLOG
from tunnel.control.run_folder import is_listened_on


def remove_stale_socket(path: Path) -> bool:
    """Remove the socket at `path` if no process listens on it any more; whether it was removed.

    Raises OSError as the kernel gives it.
    """
    if not path.is_socket() or is_listened_on(path):
        return False
    path.unlink(missing_ok=True)
    return True


def bind_unix_socket(path: Path, *, folder_mode: int = 0o755) -> socket.socket:
    """Listen on `path`, mode 0600, replacing a socket that no process listens on any more.

    Raises OSError(EADDRINUSE) if one does, and OSError as the kernel gives it otherwise.
    """
    path.parent.mkdir(mode=folder_mode, parents=True, exist_ok=True)
    if not remove_stale_socket(path) and path.is_socket():
        raise OSError(errno.EADDRINUSE, "another process is listening", str(path))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    previous = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(previous)
    return listener
