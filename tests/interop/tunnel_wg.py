"""`tunnel-wg` in hosts of a lab, configured by Debian's `wg`, and pings that count every loss."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunnel.lab import Host
from tunnel.lab.peers import Node, WireGuardGoEnd, render_conf
from tunnel.lab.process import HostProcess

ROOT = Path(__file__).parents[2]
SOCKET = "/run/wireguard/wg0.sock"


def write_script(folder: Path, name: str = "tunnel-wg", module: str = "tunnel.cli.wg") -> str:
    """One executable without arguments, which is what wg-quick wants: the path of `tunnel-wg`.

    The installed console script does the same; this one runs what is checked out here.
    """
    path = folder / name
    path.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m {module} "$@"\n',
        encoding="utf-8",
    )
    path.chmod(0o755)
    return str(path)


def start(host: Host, script: str, name: str = "wg0") -> None:
    """Start the daemon in the background; the interface exists on return."""
    host.run([script, name])


def wg(host: Host, *arguments: str, stdin: str | None = None) -> str:
    """What `wg` prints; LabError with what it says when it fails."""
    return host.run(["wg", *arguments], stdin=stdin).stdout


def mesh_of_tunnel_wg(nodes: list[Node], script: str) -> list[WireGuardGoEnd]:
    """Ends of ours, up as the manual of wireguard-go has it."""
    ends = []
    for node in nodes:
        others = [other for other in nodes if other is not node]
        ends.append(WireGuardGoEnd(node, render_conf(node, others, quick=False), script))
        ends[-1].up()
    return ends


class Pings:
    """A stream of pings under way. They end by themselves, so none is cut off in flight."""

    def __init__(self, host: Host, address: str, *, interval: float, count: int) -> None:
        arguments = ["ping", "-n", "-q", "-W", "2", "-i", str(interval), "-c", str(count), address]
        self._count = count
        self._process: HostProcess = host.popen(arguments)

    @property
    def running(self) -> bool:
        """Whether there is traffic still."""
        return self._process.running

    def lost(self, timeout: float = 60.0) -> int:
        """Wait for the last one; how many got no reply."""
        self._process.wait(timeout)
        log = self._process.log()
        found = re.search(r"(\d+) packets transmitted, (\d+) received", log)
        assert found is not None, log
        assert int(found[1]) == self._count, log
        assert "duplicates" not in log, log
        return int(found[1]) - int(found[2])


@contextmanager
def nothing_lost(*directions: tuple[Host, str], seconds: float, at_most: int = 0) -> Iterator[None]:
    """Ping in all `directions`, from a host to an address, 100 times a second during the body.

    Afterwards no stream may have lost more than `at_most` packets.
    """
    streams = [
        Pings(host, address, interval=0.01, count=int(seconds * 100))
        for host, address in directions
    ]
    yield
    assert all(stream.running for stream in streams), "the change outlasted the traffic"
    lost = [stream.lost() for stream in streams]
    assert max(lost) <= at_most, lost
