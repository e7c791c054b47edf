"""`tunnel-wg` in hosts of a lab, configured by Debian's `wg`, and pings that count every loss."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunnel.lab import Host
from tunnel.lab.peers import Node, WireGuardGoEnd, render_conf
from tunnel.lab.process import HostProcess, wait_for

ROOT = Path(__file__).parents[2]
_ANSWER = re.compile(r"icmp_seq=(\d+) ttl=.*\n")
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
    """A hundred pings a second, answered already when this returns, until `lost` ends them."""

    def __init__(self, host: Host, address: str) -> None:
        self._process: HostProcess = host.popen(["ping", "-n", "-i", "0.01", address])
        self._wait_for_answers(1)

    def lost(self) -> int:
        """Wait until they are answered again, and end them; how many got no answer.

        Those sent after the last one that was answered may still be on their way: they count for
        nothing.
        """
        self._wait_for_answers(len(self._answered()) + 20)
        self._process.signal(signal.SIGINT)
        assert self._process.wait(10) == 0, self._process.log()
        answered = self._answered()
        assert len(set(answered)) == len(answered), "duplicates"
        return max(answered) - len(answered)

    def _wait_for_answers(self, count: int) -> None:
        wait_for(lambda: len(self._answered()) >= count, 15, f"{count} answers to the pings")

    def _answered(self) -> list[int]:
        return [int(number) for number in _ANSWER.findall(self._process.log())]


@contextmanager
def nothing_lost(*directions: tuple[Host, str], at_most: int = 0) -> Iterator[None]:
    """Ping in all `directions`, from a host to an address, 100 times a second during the body.

    Afterwards no stream may have lost more than `at_most` packets.
    """
    streams = [Pings(host, address) for host, address in directions]
    yield
    lost = [stream.lost() for stream in streams]
    assert max(lost) <= at_most, lost
