"""What restarts of a daemon cost the traffic through its tunnel, beside wireguard-go. As root.

    python -m tests.soak.restarts --rounds 5

Two hosts on a cable. A ping every 10 ms and a TCP stream (iperf3) go through the tunnel while its
daemon is restarted or killed, and started again where nothing does that. A row for each program and
each way, medians of the rounds: pings lost, the longest time between two answers, the longest time
without data of the TCP stream, and whether a handshake was made.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median

from tests.support.daemons import status
from tunnel.lab import Lab
from tunnel.lab.peers import End, Node, OurEnd, mesh
from tunnel.lab.process import HostProcess

SECONDS = 12
INTERVAL = 0.01
HEAD = ("program", "how", "pings lost", "longest pause", "TCP without data", "handshake")
STEP = 0.1
"""Seconds of one interval of iperf3."""


def restart(end: End) -> None:
    """`tunnel restart`."""
    assert isinstance(end, OurEnd)
    end.tunnel("restart", str(end.conf))


def kill(end: End) -> None:
    """kill -9 of the daemon, which the holder starts again."""
    assert isinstance(end, OurEnd)
    os.kill(status(end)["pid"], signal.SIGKILL)


def down_and_up(end: End) -> None:
    """What there is without a holder, as fast as a script can do it."""
    end.down()
    end.up()


WAYS: dict[str, tuple[str, str, Callable[[End], None]]] = {
    "restart": ("tunnel", "tunnel restart", restart),
    "kill": ("tunnel", "kill -9", kill),
    "down": ("tunnel", "take it down and up", down_and_up),
    "other": ("wireguard-go", "end it, start and configure it", down_and_up),
}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=tuple(WAYS))
    options = parser.parse_args()
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD), flush=True)
    for way in options.ways:
        program, how, act = WAYS[way]
        if program == "wireguard-go" and shutil.which(program) is None:
            continue
        rounds = [measure(program, act) for _ in range(options.rounds)]
        lost, pause, silence, shaken = (list(column) for column in zip(*rounds, strict=True))
        row = (
            program,
            how,
            f"{median(lost):.0f}",
            f"{median(pause) * 1000:.0f} ms",
            f"{median(silence):.1f} s",
            "yes" if any(shaken) else "no",
        )
        print("| " + " | ".join(row) + " |", flush=True)
    return 0


def measure(program: str, act: Callable[[End], None]) -> tuple[int, float, float, bool]:
    """Pings lost, seconds of the longest pause, and of the longest silence of TCP; and whether
    there was a handshake.
    """
    with Lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b, ["192.0.2.1/24"], ["192.0.2.2/24"])
        nodes = [Node(a, ("10.77.0.1/24",), "192.0.2.1"), Node(b, ("10.77.0.2/24",), "192.0.2.2")]
        ends = mesh(nodes, foreign={} if program == "tunnel" else {"a": program})
        for end in ends.values():
            end.up()
        b.ping("10.77.0.1")
        before = handshake(ends["b"])
        count = str(int(SECONDS / INTERVAL))
        ping = b.popen(
            ["ping", "-n", "-D", "-i", str(INTERVAL), "-c", count, "-w", "60", "10.77.0.1"]
        )
        server = b.popen(["iperf3", "-s", "-1", "--forceflush"])
        server.wait_for_output("Server listening")
        stream = a.popen(
            ["iperf3", "-c", "10.77.0.2", "-t", str(SECONDS), "-i", str(STEP), "-b", "200M", "-J"]
        )
        time.sleep(SECONDS / 4)
        act(ends["a"])
        stream.wait(SECONDS + 60)
        ping.wait(90)
        return *pings(ping), silence(stream), handshake(ends["b"]) != before


def handshake(end: End) -> float:
    """When the latest one was."""
    assert isinstance(end, OurEnd)
    (peer,) = status(end)["peers"]
    return float(peer["latest_handshake"])


def pings(process: HostProcess) -> tuple[int, float]:
    """Those lost, and the longest time in seconds between two answers."""
    text = process.log()
    found = re.search(r"(\d+) packets transmitted, (\d+) received", text)
    assert found is not None, text[-300:]
    times = [float(match) for match in re.findall(r"^\[(\d+\.\d+)\] \d+ bytes", text, re.M)]
    return int(found[1]) - int(found[2]), max(later - one for one, later in pairwise(times))


def silence(process: HostProcess) -> float:
    """The longest time in seconds in which TCP has sent nothing; all of it if it has failed."""
    try:
        intervals = json.loads(process.log())["intervals"]
    except (ValueError, KeyError):
        return float(SECONDS)
    longest = now = 0
    for interval in intervals:
        now = now + 1 if not interval["sum"]["bytes"] else 0
        longest = max(longest, now)
    return longest * STEP


if __name__ == "__main__":
    sys.exit(main())
