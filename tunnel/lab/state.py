"""Which labs stand on this machine: one small file for each, so that leftovers can be found.

Root's are in /run/tunnel-lab. An ordinary user's hosts live in a user namespace whose /run is
private, so that user's files are below the directory for temporary files, and are read from
outside of the namespace.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tunnel.lab.errors import LabError
from tunnel.lab.namespace import (
    NETNS_DIRECTORY,
    end_host,
    outer_uid,
    remove_name,
    start_time,
)
from tunnel.linux.files import replace_file
from tunnel.linux.processes import netns_inode, pids_in

PREFIX = "tl-"
"""Begins the name of every namespace of a lab: tl-ID-HOST."""


@dataclass
class LabState:
    """What is written down about a lab."""

    id: str
    owner: int
    owner_start: int
    directory: str
    kept: bool = False
    holders: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Name of the host to PID and start time of its holder."""

    @property
    def alive(self) -> bool:
        """Whether it is still in use: it was kept, or its owner runs."""
        return self.kept or start_time(self.owner) == self.owner_start

    def write(self) -> None:
        """Write the file, whole or not at all."""
        replace_file(state_directory() / f"{self.id}.json", json.dumps(asdict(self)))


def state_directory() -> Path:
    """The directory of the files, made if it is not there; only its owner may write into it."""
    uid = outer_uid()
    if uid == 0:
        directory = Path("/run/tunnel-lab")
    else:
        directory = Path(tempfile.gettempdir()) / f"tunnel-lab-{uid}"
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    # In a temporary directory another user might have made it before us.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise LabError(f"{directory} is not a directory of ours; remove it")
    return directory


def read_all() -> list[LabState]:
    """All labs there are files of; a file that is no such file is left alone."""
    found = []
    for path in sorted(state_directory().glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            raw = json.loads(path.read_text())
            raw["holders"] = {name: (pid, start) for name, (pid, start) in raw["holders"].items()}
            found.append(LabState(**raw))
    return found


def remove(state: LabState) -> None:
    """Take down a lab that has no owner any more: processes, namespaces, files."""
    for name, (pid, start) in state.holders.items():
        netns = f"{PREFIX}{state.id}-{name}"
        held = start_time(pid) == start
        # While its holder or its name exists, an inode number cannot belong to another one.
        path = f"/proc/{pid}/ns/net" if held else str(NETNS_DIRECTORY / netns)
        inode = netns_inode(path)
        named = netns if (NETNS_DIRECTORY / netns).exists() else None
        if inode is not None:
            end_host(inode, named, holder=pid if held else None)
        elif named is not None:
            remove_name(named)
    shutil.rmtree(state.directory, ignore_errors=True)
    (state_directory() / f"{state.id}.json").unlink(missing_ok=True)


def sweep() -> list[str]:
    """Remove what dead labs left behind and return their IDs; live and kept ones stay."""
    # Labs start side by side; each name is to be removed once.
    with (state_directory() / ".sweep").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _sweep()


def _sweep() -> list[str]:
    removed = []
    known = set()
    for state in read_all():
        known.add(state.id)
        if not state.alive:
            remove(state)
            removed.append(state.id)
    if NETNS_DIRECTORY.is_dir() and os.geteuid() == 0:
        for path in sorted(NETNS_DIRECTORY.glob(f"{PREFIX}*-*")):
            lab_id = path.name.removeprefix(PREFIX).partition("-")[0]
            inode = netns_inode(str(path))
            # Without a file its owner is not known: it is removed only if nothing runs in it.
            if lab_id not in known and inode is not None and not pids_in(inode):
                remove_name(path.name)
                removed.append(lab_id)
    return removed
