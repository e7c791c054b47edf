"""Into a host of a lab that stands, from any other process of the user who made it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tunnel.lab.errors import LabError
from tunnel.lab.namespace import HOLDER_MARK, enter_command

_LAB, _HOST = "TUNNEL_LAB", "TUNNEL_LAB_HOST"


@dataclass(frozen=True)
class _Standing:
    """A host that is there: the ID of its lab, its name, and the process that holds it."""

    lab: str
    host: str
    pid: int


def enter(name: str, command: Sequence[str] = ()) -> NoReturn:
    """Become `command`, or a shell, in the host `name` (or LAB/NAME).

    From inside a host, the others of the same lab are meant. Raises LabError if there is no such
    host, or if several labs have one.
    """
    lab, _, host = name.rpartition("/")
    lab = lab or os.environ.get(_LAB, "")
    standing = [found for found in _standing() if lab in ("", found.lab)]
    matching = [found for found in standing if found.host == host]
    if not matching:
        there = ", ".join(f"{found.lab}/{found.host}" for found in standing) or "none"
        raise LabError(f"there is no host {name!r}; standing now: {there}")
    if len(matching) > 1:
        names = ", ".join(f"{found.lab}/{host}" for found in matching)
        raise LabError(f"several labs have a host {host!r}; write one of: {names}")
    (found,) = matching
    shell = [os.environ.get("SHELL") or "/bin/sh"]
    words = [
        *enter_command(found.pid, joins_user=_user(found.pid) != _user(os.getpid())),
        *("env", f"--chdir={Path.cwd()}"),
        *(f"{_LAB}={found.lab}", f"{_HOST}={host}", f"PS1={host}# ", f"debian_chroot=host {host}"),
        *(command or shell),
    ]
    os.execvp(words[0], words)


def _standing() -> Iterator[_Standing]:
    """All hosts of labs of ours. /run, where root's labs are listed, is another in each host."""
    for entry in sorted(os.listdir("/proc")):
        if not entry.isdigit():
            continue
        try:
            text = Path(f"/proc/{entry}/environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        environment = dict(line.partition("=")[::2] for line in text.split("\0"))
        if HOLDER_MARK in environment:
            yield _Standing(environment[_LAB], environment[_HOST], int(entry))


def _user(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/user")
