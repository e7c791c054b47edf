"""Finding and reading the files of a conf, with every refusal of the kernel turned into words."""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tunnel.config.problems import ConfigErrors, Mistake, Problem, escape
from tunnel.config.values import check_name

__all__ = ["CONF_LIMIT", "ENVIRONMENT", "FOLDERS", "FileContent", "find", "others_may", "read"]

ENVIRONMENT: Final = "TUNNEL_CONFIG_PATH"
"""The environment variable that replaces FOLDERS: folders separated by colons."""

FOLDERS: Final = (Path("/etc/tunnel"), Path("/etc/wireguard"))
"""Where confs are looked up by name; the first that has it wins."""

CONF_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of the largest conf read: two million networks. Beyond it the name is wrong."""

_PIECE: Final = 1 << 20
"""Bytes that are read at a time."""

_DENIED: Final = (
    "cannot be read by this user",
    "run the command as root, or as the owner of the file",
)
_DENIED_TO_ROOT: Final = (
    "cannot be read, not even by root",
    "if it is a symbolic link in a folder that all users can write to, name the file itself; "
    "if it is on a network disk, copy it to this machine; "
    "where root lacks CAP_DAC_OVERRIDE, as in some containers, make root its owner",
)
"""The kernel follows no link of another user in such a folder (fs.protected_symlinks)."""
_REFUSALS: Final = {
    errno.ENOENT: ("does not exist", "check the name, or create the file"),
    errno.ENOTDIR: ("does not exist", "check the name: a part of it is not a folder"),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.ELOOP: ("is in a circle of symbolic links", "name the file itself"),
    errno.ENAMETOOLONG: ("has a name that is too long", "check the name"),
}


class FileContent(NamedTuple):
    """The bytes of a file and its status at the time they were read."""

    data: bytes
    status: os.stat_result


def read(path: str | os.PathLike[str], *, limit: int) -> FileContent:
    """Read a regular file of at most `limit` bytes. Raises Mistake.

    Pipes, devices and folders are refused, not waited for.
    """
    try:
        # O_NONBLOCK so that a pipe without a writer is refused below and does not hang us.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except ValueError:
        raise Mistake("has a NUL character in its name", "check the name") from None
    except OSError as error:
        raise _refusal(error) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = "folder" if stat.S_ISDIR(status.st_mode) else "device, pipe or socket"
            raise Mistake(f"must be a plain file, not a {kind}", "name a plain file")
        # Not in one read, for which the memory of the largest file would be taken.
        pieces, room = [], limit + 1
        while room > 0 and (piece := os.read(descriptor, min(room, _PIECE))):
            pieces.append(piece)
            room -= len(piece)
        data = b"".join(pieces)
    except OSError as error:
        raise _refusal(error) from None
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise Mistake(
            f"is larger than {limit:,} bytes", "check the name: this must be some other file"
        )
    return FileContent(data, status)


def _refusal(error: OSError) -> Mistake:
    if isinstance(error, PermissionError) and os.geteuid() == 0:
        return Mistake(*_DENIED_TO_ROOT)
    fault, remedy = _REFUSALS.get(
        error.errno or 0,
        (f"cannot be read ({error.strerror or error})", "check the file and its disk"),
    )
    return Mistake(fault, remedy)


def others_may(path: Path, status: os.stat_result, mask: int = 0o007) -> bool:
    """Whether users that are neither owner nor in the group may get at the file.

    wg-quick's test: a bit set on the file and on its folder.
    """
    try:
        folder = os.stat(path.parent)
    except OSError:
        return False
    return bool(status.st_mode & folder.st_mode & mask)


def folders() -> tuple[Path, ...]:
    """Return the folders in which a name is looked up."""
    override = os.environ.get(ENVIRONMENT)
    if not override:
        return FOLDERS
    return tuple(Path(folder) for folder in override.split(":") if folder)


def find(
    name_or_path: str | os.PathLike[str], search: Sequence[str | os.PathLike[str]] | None = None
) -> Path:
    """Return the conf that `name_or_path` means. It exists, but need not be readable.

    With a slash it is a path. NAME.conf without one is the file of that name here, if there
    is one; otherwise, and for a bare NAME always, it is looked up in `search` (by default
    `folders()`). Raises ConfigErrors that name these places.
    """
    text = os.fspath(name_or_path)
    if "/" in text or (text.endswith(".conf") and _exists(Path(text)) is True):
        candidates = [Path(text)]
    elif not text:
        raise _error('""', "no conf is named", "name one, as office or ./office.conf")
    else:
        name = text.removesuffix(".conf")
        try:
            check_name(name)
        except Mistake as mistake:
            fault = f"the name of an interface {mistake.fault}"
            if os.path.isdir(text):
                fault = "this is a folder, not a conf"
            raise _error(text, fault) from None
        places = folders() if search is None else tuple(Path(folder) for folder in search)
        candidates = [folder / f"{name}.conf" for folder in places]
    hidden = []
    for candidate in candidates:
        exists = _exists(candidate)
        if exists:
            return candidate
        if exists is None:
            hidden.append(candidate)
    if hidden:
        raise _error(
            text,
            f"no permission to look for {_listing(hidden)}",
            "run the command as root",
        )
    remedy = "check the path" if "/" in text else _REMEDY
    if "/" in text and _exists(Path(f"{text}.conf")):
        remedy = f"did you mean {escape(text)}.conf?"
    raise _error(text, f"there is no {_listing(candidates)}", remedy)


_REMEDY: Final = "check the spelling, or give the path with a slash, as ./peer.conf"


def _exists(path: Path) -> bool | None:
    """Whether the file is there; None if the kernel does not say."""
    try:
        os.stat(path)
    except PermissionError:
        return None
    except (OSError, ValueError):
        return False
    return True


def _listing(paths: Sequence[Path]) -> str:
    return " or ".join(escape(str(path)) for path in paths) or "(no folder to look in)"


def _error(text: str, fault: str, remedy: str = _REMEDY) -> ConfigErrors:
    return ConfigErrors([Problem(escape(text), None, "", fault, remedy)])
