"""Which file a name on the command line means."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tunnel.config.keys import check_name
from tunnel.config.problems import ConfigErrors, Mistake, Problem, escape

__all__ = ["ENVIRONMENT", "FOLDERS", "find", "folders"]

ENVIRONMENT: Final = "TUNNEL_CONFIG_PATH"
"""The environment variable that replaces FOLDERS, folders parted by colons."""

FOLDERS: Final = (Path("/etc/tunnel"), Path("/etc/wireguard"))
"""Where confs are looked up by name, the first that has it wins."""


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
    what `folders()` says). Raises ConfigErrors that say where was looked.
    """
    text = os.fspath(name_or_path)
    if "/" in text or (text.endswith(".conf") and _exists(Path(text)) is True):
        candidates = [Path(text)]
    else:
        name = text.removesuffix(".conf")
        try:
            check_name(name)
        except Mistake as mistake:
            raise _error(text, mistake.found or "", mistake.expected, _REMEDY) from None
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
            "a conf that can be read",
            "run the command as root",
        )
    raise _error(text, f"no file {_listing(candidates)}", "a conf", _REMEDY)


_REMEDY: Final = "check the spelling, or give the path with a slash, as ./peer.conf"


def _exists(path: Path) -> bool | None:
    """Whether the file is there; None if the kernel will not tell."""
    try:
        os.stat(path)
    except PermissionError:
        return None
    except (OSError, ValueError):
        return False
    return True


def _listing(paths: Sequence[Path]) -> str:
    return " or ".join(escape(str(path)) for path in paths) or "(no folder to look in)"


def _error(text: str, found: str, expected: str, remedy: str) -> ConfigErrors:
    return ConfigErrors([Problem(escape(text), None, "", found, expected, remedy)])
