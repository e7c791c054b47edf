"""Which process holds a port of this network namespace, by /proc (proc_net_udp(5), proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from tunnel.linux.rights import Capability, raised

_STATE, _INODE = 3, 9
"""The fields of a line of /proc/net/udp that have the state and the inode of the socket."""
_LISTENING = "0A"


def port_holder(port: int, protocol: Literal["tcp", "udp"] = "udp") -> str:
    """The process that has a socket on that port, as "NAME (process 123)"; empty if not to be seen.

    With TCP, one that listens. Other users' processes are seen by root alone.
    """
    sockets = {f"socket:[{inode}]" for inode in _inodes(port, protocol)}
    for folder in Path("/proc").glob("[0-9]*/fd") if sockets else ():
        with suppress(OSError), raised(Capability.SYS_PTRACE):
            for descriptor in folder.iterdir():
                with suppress(OSError):
                    if os.readlink(descriptor) in sockets:
                        name = (folder.parent / "comm").read_text(errors="replace").strip()
                        return f"{name} (process {folder.parent.name})"
    return ""


def _inodes(port: int, protocol: str) -> Iterator[str]:
    for file in (protocol, f"{protocol}6"):
        with suppress(OSError):
            for line in Path("/proc/thread-self/net", file).read_text().splitlines()[1:]:
                fields = line.split()
                is_held = protocol == "udp" or fields[_STATE] == _LISTENING
                if is_held and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[_INODE]
