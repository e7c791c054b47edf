"""Files: replaced so that at any time the old or the new one is there whole, and where ours are."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import stat
import struct
from pathlib import Path
from typing import Final, Literal

from tunnel.linux.rights import Capability, raised

_libc = ctypes.CDLL(None, use_errno=True)
_SYS_OPENAT2 = 437
"""The same number on every architecture; of Linux 5.6."""
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10

_ACCESS_LIST: Final = "system.posix_acl_access"
_NO_LIST: Final = (errno.ENODATA, errno.ENOTSUP)

RUN_FOLDER = Path("/run/tunnel")
"""Where running tunnels have their sockets, locks, logs and state files, each by its NAME."""


def state_folder(usual: Path | str = "/var/lib/tunnel") -> Path:
    """Where root keeps what outlives a boot; a service manager may name another place than the
    usual one.
    """
    return Path(os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or usual)


def log_folder() -> Path:
    """Where tunnels keep records; the same holds."""
    return Path(os.environ.get("LOGS_DIRECTORY", "").partition(":")[0] or "/var/log/tunnel")


Keep = Literal["nothing", "owner", "access"]


def replace_file(
    path: Path,
    text: str,
    *,
    mode: int = 0o600,
    keep: Keep = "nothing",
    known: os.stat_result | None = None,
) -> None:
    """Replace the file at `path` by one that holds `text`, or create it.

    The new file has `mode`. With `keep` it gets the owner and group of the file it replaces, or
    its whole access: owner, group, mode and access list. Where those cannot be given, the file is
    for our user only. Bytes read by "surrogateescape" are written as they were. A symbolic link at
    `path` is replaced, not followed. With `known`, only the file of that status is replaced: other
    users who can write the folder may have put another one there. Raises OSError, and then the old
    file is there as it was, and no other; only a failure to write the folder itself to disk (EIO)
    leaves the new one.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # From here on by the folder itself, which may get another name at any time.
        temporary = f".{path.name}.{secrets.token_hex(8)}.tmp"
        descriptor, is_named = _open_new(folder, path.name, temporary)
        try:
            with open(descriptor, "wb") as file:
                file.write(text.encode("utf-8", "surrogateescape"))
                file.flush()
                _set_access(folder, path.name, descriptor, mode, keep)
                os.fsync(descriptor)
                if not is_named:
                    os.link(f"/proc/self/fd/{descriptor}", temporary, dst_dir_fd=folder)
            if known is not None:
                found = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
                if not os.path.samestat(found, known):
                    raise OSError(errno.ESTALE, "another file has taken its place", str(path))
            os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise
        _sync_folder(folder)
    finally:
        os.close(folder)


def _open_new(folder: int, name: str, temporary: str) -> tuple[int, bool]:
    """A new file in the folder, to be given the name `temporary`, and whether it has that already.

    Without a name it is gone if we are killed before it is whole, as its keys should be. One that
    gets another owner has a name from the start: later it could not be given one.
    """
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        is_ours = os.stat(name, dir_fd=folder, follow_symlinks=False).st_uid == os.geteuid()
    except OSError:
        is_ours = True
    if is_ours and os.path.exists("/proc/self/fd"):
        with contextlib.suppress(OSError):  # not every file system can
            return os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=folder), False
    return os.open(temporary, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder), True


def create_file(path: Path, text: str | bytes, *, mode: int = 0o600) -> None:
    """Make a file that holds `text`, where there is none. Raises OSError, and then it is not there,
    unless it was before.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink()
        raise


def append_whole(path: Path, data: bytes) -> int:
    """Append the data to a plain file, which is made with mode 0600 if it is not there, or nothing
    of it. The size of the file then. Raises OSError.
    """
    descriptor = open_plain(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        size = os.fstat(descriptor).st_size
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError:
            os.ftruncate(descriptor, size)
            raise
        return size + len(data)
    finally:
        os.close(descriptor)


def open_plain(path: Path | str, flags: int, mode: int = 0o600) -> int:
    """A descriptor of a plain file. Raises OSError, also for a symbolic link, a pipe, or a device.

    Waits for nothing, as for the other end of a pipe.
    """
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = os.open(path, flags, mode)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return descriptor


def read_plain(path: Path) -> str:
    """The text of a plain file. Raises OSError as `open_plain` does, and UnicodeDecodeError."""
    with open(open_plain(path, os.O_RDONLY), encoding="utf-8") as file:
        return file.read()


def _set_access(folder: int, name: str, descriptor: int, mode: int, keep: Keep) -> None:
    _drop_inherited(descriptor)
    if keep == "nothing":
        os.fchmod(descriptor, mode)
        return
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        os.fchown(descriptor, status.st_uid, status.st_gid)
        if keep == "owner":
            os.fchmod(descriptor, mode)
            return
        os.fchmod(descriptor, status.st_mode & 0o700)
        _copy_access_list(f"/proc/self/fd/{folder}/{name}", descriptor, status.st_mode)
    except OSError:
        # There is no old file, or it is another user's: we may replace that, but not give it back.
        return


def open_in_root(root: str, path: str, flags: int) -> int:
    """Open the file at `path` as a process would whose root directory is `root`; its descriptor.

    No symbolic link leads out of there: see openat2(2). With O_CREAT, a new file has mode 0644.
    Raises OSError.
    """
    with raised(Capability.SYS_PTRACE):  # the root of a process
        folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mode = 0o644 if flags & os.O_CREAT else 0
        how = struct.pack("=QQQ", flags, mode, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
        name = os.fsencode(path)
        found = int(_libc.syscall(_SYS_OPENAT2, folder, name, how, ctypes.c_size_t(len(how))))
        if found < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        return found
    finally:
        os.close(folder)


def _drop_inherited(descriptor: int) -> None:
    """Remove the list that comes from the folder's default one: as soon as the mode lets the group
    read, its users could read, too.
    """
    try:
        os.removexattr(descriptor, _ACCESS_LIST)
    except OSError as error:
        if error.errno not in _NO_LIST:
            raise


def _copy_access_list(path: str, descriptor: int, mode: int) -> None:
    try:
        # Where there is a list, the mode's group bits are its mask: as a mode they would mean more.
        access = os.getxattr(path, _ACCESS_LIST, follow_symlinks=False)
        os.setxattr(descriptor, _ACCESS_LIST, access)
    except OSError as error:
        if error.errno not in _NO_LIST:
            raise
        os.fchmod(descriptor, mode & 0o777)


def _sync_folder(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        # Not every file system can, for instance those of some container runtimes.
        if error.errno != errno.EINVAL:
            raise
