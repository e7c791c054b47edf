"""Where the sockets of running daemons are."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
from pathlib import Path

from tunnel.errors import DaemonError
from tunnel.linux.files import RUN_FOLDER


def own_folder() -> Path:
    """Where the sockets of what this user runs are: an ordinary user has a folder of their own."""
    if os.geteuid() == 0:
        return RUN_FOLDER
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime, "tunnel")
    return Path(tempfile.gettempdir(), f"tunnel-run-{os.geteuid()}")


def make_own_folder() -> Path:
    """Make the folder, if it is not there. Raises DaemonError, also where it is another user's."""
    folder = own_folder()
    try:
        folder.mkdir(mode=0o755 if folder == RUN_FOLDER else 0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DaemonError(
            f"cannot make the folder {folder}: {error.strerror}; let XDG_RUNTIME_DIR name a folder "
            "of yours"
        ) from error
    if not _is_ours(folder):
        raise DaemonError(
            f"{folder} is another user's, or others may write it; remove it, or let "
            "XDG_RUNTIME_DIR name a folder of yours"
        )
    return folder


def remove_own_folder() -> None:
    """Remove an ordinary user's own in the folder of temporary files, once nothing is in it."""
    folder = own_folder()
    if folder.parent == Path(tempfile.gettempdir()) and _is_ours(folder):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _is_ours(folder: Path) -> bool:
    """Whether no other user can have put anything there."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not (status.st_mode & 0o022)
    )


def socket_path(name: str, folder: Path | None = None) -> Path:
    """Where the daemon of interface `name` listens, or what an ordinary user runs by that name.

    With `folder`, the place in that one.
    """
    if folder is None:
        own = own_folder() / f"{name}.sock"
        folder = own.parent if own.exists() and _is_ours(own.parent) else RUN_FOLDER
    return folder / f"{name}.sock"


def metrics_path(name: str) -> Path:
    """Where the daemon of interface `name` shows its metrics, which are not in JSON."""
    return RUN_FOLDER / f"{name}.metrics"


def holder_path(name: str) -> Path:
    """Where the holder of the tunnel `name` listens."""
    return RUN_FOLDER / f"{name}.holder"


def is_hidden() -> bool:
    """Whether this user may not list what root runs: no name found does not mean that none is."""
    return RUN_FOLDER.exists() and not os.access(RUN_FOLDER, os.R_OK | os.X_OK)


def running_names() -> list[str]:
    """Names of the interfaces whose control sockets exist, sorted; some may be stale.

    Those that `is_hidden` speaks of are left out.
    """
    folders = [RUN_FOLDER, *filter(_is_ours, {own_folder()} - {RUN_FOLDER})]
    return sorted({path.stem for folder in folders for path in folder.glob("*.sock")})


def is_listened_on(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> bool:
    """Whether a process listens on the socket at `path`. Raises OSError as the kernel gives it."""
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


def has_holder(name: str) -> bool:
    """Whether a process holds the descriptors of that tunnel, as far as this user may know."""
    try:
        return is_listened_on(holder_path(name), socket.SOCK_SEQPACKET)
    except OSError:
        return True
