"""Reading the files a conf is made of, with every refusal of the kernel turned into words."""

import errno
import os
import stat
from pathlib import Path
from typing import Final, NamedTuple

from tunnel.config.problems import Mistake

__all__ = ["CONF_LIMIT", "FileContent", "others_may", "read"]

CONF_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of the largest conf read: two million networks. Beyond it the name is wrong."""
KEY_LIMIT: Final = 4096
"""Bytes of the largest key file read; a key and its newline are 45."""

_REMEDIES: Final = {
    errno.ENOENT: ("no such file", "check the name, or create the file"),
    errno.ENOTDIR: ("no such file", "check the name: a part of it is no folder"),
    errno.EACCES: ("permission denied", "run the command as root, or as the owner of the file"),
    errno.EPERM: ("permission denied", "run the command as root, or as the owner of the file"),
    errno.ELOOP: ("a circle of symbolic links", "name the file itself"),
    errno.ENAMETOOLONG: ("a name that is too long", "check the name"),
}


class FileContent(NamedTuple):
    """The bytes of a file and its status at the time they were read."""

    data: bytes
    status: os.stat_result


def read(path: str | os.PathLike[str], *, limit: int, what: str = "a readable file") -> FileContent:
    """Read a regular file of at most `limit` bytes. Raises Mistake, `found` filled in.

    Pipes, devices and folders are refused instead of waited for.
    """
    try:
        # O_NONBLOCK so that a pipe without a writer is refused below and does not hang us.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except ValueError:  # a NUL in the name
        raise Mistake(what, "check the name", found="a name no file can have") from None
    except OSError as error:
        raise _refusal(error, what) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            found = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
            raise Mistake(what, "name a plain file", found=found)
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise _refusal(error, what) from None
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise Mistake(
            f"{what} of at most {limit:,} bytes",
            "check the name: this is some other file",
            found="a larger one",
        )
    return FileContent(data, status)


def _refusal(error: OSError, what: str) -> Mistake:
    found, remedy = _REMEDIES.get(
        error.errno or 0, (f"an error ({error.strerror or error})", "check the file and its disk")
    )
    return Mistake(what, remedy, found=found)


def others_may(path: Path, status: os.stat_result, mask: int = 0o007) -> bool:
    """Whether users that are neither owner nor in the group may get at the file.

    wg-quick's test: a bit set on the file and on its folder.
    """
    try:
        folder = os.stat(path.parent)
    except OSError:
        return False
    return bool(status.st_mode & folder.st_mode & mask)
