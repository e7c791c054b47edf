"""Is all flat over hours in which everything happens at once? As root; needs iperf3.

    python -m tests.soak.hours --hours 8 --chart soak.svg

Two hosts of a lab, a tunnel, one TCP stream at `--rate` and a ping every 100 ms. Meanwhile, on host
a: 200 peers come by `wg set` and go, the conf is reloaded, status, metrics and events are asked
for; its address changes every 20 seconds, so it roams; its interface goes down and up once a
minute; on host b the daemon is restarted every five minutes. Keys are renewed every two minutes, as
always. Samples of both daemons: resident memory, open files, tasks of the event loop, and the
bytes that b has received.

It fails where the slope over the second half says that memory, files or tasks grow, or that the
throughput falls, by more than the limits below. `--chart` draws all of it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.line_chart import draw
from tests.support.scraping import scrape, value
from tunnel.lab import Host, Lab
from tunnel.lab.peers import Node, OurEnd, mesh

ADDRESSES = ("192.0.2.1", "192.0.2.11")
"""Those that host a has in turn."""
ROAM, FLAP, RESTART = 20.0, 60.0, 300.0
"""Seconds between two of them."""
LIMITS = {"resident": 2_048.0, "files": 6.0, "tasks": 6.0}
"""What may have come in the second half: kB, and numbers. A client takes a file and some tasks."""
LEAST_THROUGHPUT = 0.8
"""Of that of the first half."""


@dataclass(frozen=True)
class Sample:
    """One daemon at one time; `seconds` since the start, `resident` in kB, `rate` in Mbit/s."""

    seconds: float
    resident: float
    files: float
    tasks: float
    rate: float


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Units per second: the median of all pairs of points (Theil and Sen).

    A single odd point does not count.
    """
    pairs = itertools.combinations(points, 2)
    return statistics.median((b - a) / (then - now) for (now, a), (then, b) in pairs)


def faults(name: str, samples: Sequence[Sample]) -> list[str]:
    """What is not flat in the second half."""
    half = samples[len(samples) // 2 :]
    if len(half) < 3:
        return [f"{name}: {len(samples)} samples are too few"]
    span = half[-1].seconds - half[0].seconds
    found = []
    for what, limit in LIMITS.items():
        grown = slope([(one.seconds, getattr(one, what)) for one in half]) * span
        if grown > limit:
            found.append(f"{name}: {what} grew by {grown:.0f} in {span:.0f} s")
    before = statistics.median(one.rate for one in samples[: len(samples) // 2])
    after = statistics.median(one.rate for one in half)
    if after < LEAST_THROUGHPUT * before:
        found.append(f"{name}: {after:.0f} Mbit/s in the second half, {before:.0f} in the first")
    return found


@dataclass
class Watch:
    """Samples of one end, whose daemon may be another one each time."""

    end: OurEnd
    peer: str
    samples: list[Sample] = field(default_factory=list)
    _received: float = 0.0
    _at: float = 0.0

    def look(self, seconds: float) -> None:
        found = scrape(self.end.node.host)
        received = value(found, "wireguard_received_bytes_total", public_key=self.peer)
        # A daemon that has just been restarted counts from 0.
        taken = received - self._received if received >= self._received else received
        rate = taken * 8e-6 / (seconds - self._at)
        self._received, self._at = received, seconds
        resident = value(found, "process_resident_memory_bytes") / 1024
        files = value(found, "process_open_fds")
        self.samples.append(Sample(seconds, resident, files, value(found, "tunnel_tasks"), rate))


def roam(a: Host, turn: int) -> None:
    """Host a has its other address from here on."""
    new, old = ADDRESSES[turn % 2], ADDRESSES[1 - turn % 2]
    a.ip(f"address replace {new}/24 dev eth0", f"address delete {old}/24 dev eth0")


def soak(lab: Lab, seconds: float, every: float, rate: str, scale: float = 1.0) -> dict[str, Watch]:
    """Everything, for so long; a sample of each end `every` so many seconds.

    `scale` shortens the times between two changes.
    """
    hosts = a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, [f"{ADDRESSES[0]}/24"], ["192.0.2.2/24"])
    # The address that is left stays when the first one of the network goes.
    a.set_sysctl("net.ipv4.conf.eth0.promote_secondaries", "1")
    nodes = [
        Node(host, (f"10.77.0.{number}/24",), f"192.0.2.{number}")
        for number, host in enumerate(hosts, start=1)
    ]
    ends = mesh(nodes)
    watches: dict[str, Watch] = {}
    for name, end in ends.items():
        assert isinstance(end, OurEnd)
        end.up()
        (peer,) = (node.public_key for node in nodes if node is not end.node)
        watches[name] = Watch(end, peer)
    server = b.popen(["iperf3", "-s", "-1", "--forceflush"])
    server.wait_for_output("Server listening")
    stream = a.popen(["iperf3", "-c", "10.77.0.2", "-b", rate, "-t", str(int(seconds) + 60)])
    ping = a.popen(["ping", "-n", "-q", "-i", "0.1", "10.77.0.2"])
    program = [sys.executable, "-m", "tests.support.churn_program", "1000000000"]
    churn = a.popen([*program, "peers", "reloads", "requests"])

    def flap(_: int) -> None:
        a.ip("link set wg0 down", "link set wg0 up")

    def restart(_: int) -> None:
        watches["b"].end.tunnel("restart", "wg0")

    changes: list[tuple[float, Callable[[int], None]]] = [
        (ROAM / scale, lambda turn: roam(a, turn)),
        (FLAP / scale, flap),
        (RESTART / scale, restart),
    ]
    begin = time.monotonic()
    due = [(period, period, 1, change) for period, change in changes]
    look_at = every
    while (now := time.monotonic() - begin) < seconds:
        for place, (at, period, turn, change) in enumerate(due):
            if now >= at:
                change(turn)
                due[place] = (at + period, period, turn + 1, change)
        if now >= look_at:
            for one in (churn, stream, ping):
                assert one.running, one.log()[-2_000:]
            for name, watch in watches.items():
                watch.look(time.monotonic() - begin)
                last = watch.samples[-1]
                print(
                    f"{last.seconds / 60:8.1f} {name} {last.resident:8,.0f} {last.files:6.0f} "
                    f"{last.tasks:6.0f} {last.rate:8.1f}",
                    flush=True,
                )
            look_at += every
        time.sleep(max(0.0, min(look_at, *(at for at, *_ in due)) - (time.monotonic() - begin)))
    churn.kill()
    stream.stop()
    ping.stop()
    return watches


def main() -> int:
    """The exit status: 1 where something is not flat."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--hours", type=float, default=0.5)
    parser.add_argument("--rate", default="50M", help="of the TCP stream, as iperf3 has it")
    parser.add_argument("--chart", type=Path, help="the chart, as SVG")
    options = parser.parse_args()
    seconds = options.hours * 3600
    print(f" minutes    RSS kB  files  tasks   Mbit/s   ({options.hours:g} hours)", flush=True)
    with Lab() as lab:
        watches = soak(lab, seconds, max(5.0, seconds / 200), options.rate)
    found = [one for name, watch in watches.items() for one in faults(name, watch.samples)]
    if options.chart:
        options.chart.write_text(chart(watches))
    print("\n".join(found) or "all is flat")
    return int(bool(found))


def chart(watches: dict[str, Watch]) -> str:
    """One panel for each of what is sampled, a line for each end."""
    titles = {
        "resident": "resident memory, kB",
        "files": "open files",
        "tasks": "tasks of the event loop",
        "rate": "received, Mbit/s",
    }
    panels = {
        title: {
            name: [(one.seconds / 60, getattr(one, what)) for one in watch.samples]
            for name, watch in watches.items()
        }
        for what, title in titles.items()
    }
    return draw(panels, title="Hours in which everything happens", x_title="minutes")


if __name__ == "__main__":
    sys.exit(main())
