"""Measurements of what joins two hosts of a lab: throughput, packets, round trips, cost.

Both ends share the machine, and the machine is shared with others: a figure by itself says little.
What counts is the ratio of two subjects measured in turn, round by round, in one run.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from tunnel.bench.subjects import Subject
from tunnel.lab.errors import LabError
from tunnel.lab.host import Host

IPERF_PORT = 5201

_TICKS = os.sysconf("SC_CLK_TCK")
_PING_TIME = re.compile(r"time=([0-9.]+) ms")
_RSS = re.compile(r"^VmRSS:\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True)
class Metric:
    """One figure: `key` for programs, `title` for people; `higher` says which way is better."""

    key: str
    title: str
    unit: str
    higher: bool = True


METRICS = (
    Metric("tcp", "TCP, one stream", "Gbit/s"),
    Metric("tcp8", "TCP, eight streams", "Gbit/s"),
    Metric("tcp_both", "TCP, both directions, sum", "Gbit/s"),
    Metric("tcp_gateway", "TCP, forwarded by a gateway", "Gbit/s"),
    Metric("udp1300", "UDP 1,300 B delivered, saturated", "kpackets/s"),
    Metric("udp64", "UDP 64 B delivered, saturated", "kpackets/s"),
    Metric("udp1300_loss", "UDP 1,300 B lost at 100 Mbit/s", "%", False),
    Metric("udp64_loss", "UDP 64 B lost at 10,000/s", "%", False),
    Metric("rtt_p50", "round trip, idle, p50", "µs", False),
    Metric("rtt_p99", "round trip, idle, p99", "µs", False),
    Metric("rtt_loaded_p50", "round trip under TCP, p50", "µs", False),
    Metric("rtt_loaded_p99", "round trip under TCP, p99", "µs", False),
    Metric("cpu", "CPU of both ends per GB", "s", False),
    Metric("rss", "memory of one end", "MiB", False),
    Metric("tcp_peers1", "TCP, one stream, 1 peer, once more", "Gbit/s"),
    Metric("tcp_peers100", "TCP, one stream, 100 peers", "Gbit/s"),
    Metric("tcp_peers10000", "TCP, one stream, 10,000 peers", "Gbit/s"),
    Metric("tcp_many_peers", "TCP, 10,000 peers ÷ 1 peer", "ratio"),
    Metric("rss_peers1", "memory of one end, 1 peer", "MiB", False),
    Metric("rss_peers100", "memory of one end, 100 peers", "MiB", False),
    Metric("rss_peers10000", "memory of one end, 10,000 peers", "MiB", False),
    Metric("handshakes", "handshakes answered", "1/s"),
    Metric("first_ping", "from up to first ping", "s", False),
    Metric("untraced", "TCP of two alike, never traced", "ratio"),
    Metric("traced", "TCP after a trace ÷ never traced", "ratio"),
    Metric("untraced_cpu", "CPU of two alike, never traced", "ratio", False),
    Metric("traced_cpu", "CPU after a trace ÷ never traced", "ratio", False),
)


@dataclass
class Bench:
    """Two hosts and one subject between them. `seconds` is the length of each load."""

    a: Host
    b: Host
    subject: Subject
    seconds: float = 3.0

    def run(self) -> Iterator[dict[str, float]]:
        """Set the subject up and measure; yields figures by metric key as they come."""
        self.subject.prepare(self.a, self.b)
        yield {"first_ping": self._first_ping()}
        yield self._idle_round_trips()
        # The first load warms everything up and is not counted.
        self.iperf(seconds=min(1.0, self.seconds))
        yield self.tcp()
        yield {"tcp8": gbits(self.iperf("-P", "8"))}
        yield {"tcp_both": self._both_directions()}
        yield self._loaded_round_trips()
        yield {"udp1300": self._udp_delivered(1300)}
        yield {"udp64": self._udp_delivered(64)}
        yield {"udp1300_loss": self._udp_loss(1300, "100M")}
        yield {"udp64_loss": self._udp_loss(64, str(10_000 * 64 * 8))}

    def run_with_many_peers(self) -> dict[str, float]:
        """Set a subject with many peers up and measure what they cost."""
        self.begin()
        figures = self.tcp()
        return {key: figures[key] for key in ("tcp", "rss")}

    def begin(self) -> None:
        """Set a subject up and warm it, for `tcp` alone."""
        self.subject.prepare(self.a, self.b)
        self._first_ping()
        self.iperf(seconds=min(1.0, self.seconds))

    def _first_ping(self) -> float:
        began = time.perf_counter()
        self.subject.up()
        self.a.run(["ping", "-n", "-c", "1", "-w", "10", "-i", "0.01", self.subject.target])
        return time.perf_counter() - began

    def _idle_round_trips(self) -> dict[str, float]:
        times = self._pings(count=500, interval="0.002")
        return {"rtt_p50": median(times), "rtt_p99": quantiles(times, n=100)[98]}

    def _loaded_round_trips(self) -> dict[str, float]:
        count = max(20, int(self.seconds / 0.01))
        load = self._start_iperf("-t", str(self.seconds + 1))
        times = self._pings(count=count, interval="0.01")
        load.wait(self.seconds + 30)
        return {"rtt_loaded_p50": median(times), "rtt_loaded_p99": quantiles(times, n=100)[98]}

    def _pings(self, *, count: int, interval: str) -> list[float]:
        """Round trips in microseconds."""
        command = ["ping", "-n", "-c", str(count), "-i", interval, "-W", "2"]
        printed = self.a.run(
            [*command, self.subject.target], timeout=self.seconds + 60, check=False
        ).stdout
        times = [float(text) * 1000 for text in _PING_TIME.findall(printed)]
        if len(times) < 2:
            raise LabError(f"{self.subject.name}: no answer to pings:\n{printed}")
        return times

    def tcp(self) -> dict[str, float]:
        """One stream: its throughput, and what it cost, by metric key."""
        pids = [*self.a.pids(), *self.b.pids()]
        before = sum(map(_cpu_seconds, pids))
        result = self.iperf()
        spent = sum(map(_cpu_seconds, pids)) - before
        figures = {"tcp": gbits(result)}
        if pids:
            figures["cpu"] = spent / (result["end"]["sum_received"]["bytes"] / 1e9)
            figures["rss"] = sum(map(_rss_mib, self.a.pids()))
        return figures

    def _both_directions(self) -> float:
        end = self.iperf("--bidir")["end"]
        sums = (end["sum_received"], end["sum_received_bidir_reverse"])
        return sum(float(each["bits_per_second"]) for each in sums) / 1e9

    def _udp_delivered(self, size: int) -> float:
        """Thousands of packets a second that arrived, out of as many as could be sent."""
        end = self.iperf("-u", "-l", str(size), "-b", "0")["end"]["sum"]
        return float(end["packets"] - end["lost_packets"]) / float(end["seconds"]) / 1000

    def _udp_loss(self, size: int, rate: str) -> float:
        return float(self.iperf("-u", "-l", str(size), "-b", rate)["end"]["sum"]["lost_percent"])

    def iperf(
        self,
        *arguments: str,
        seconds: float | None = None,
        server: Host | None = None,
        port: int = IPERF_PORT,
    ) -> dict[str, Any]:
        """Run iperf3 from A to a fresh server on B, or on `server` behind it; its JSON."""
        length = self.seconds if seconds is None else seconds
        process = self._start_iperf("-J", "-t", str(length), *arguments, server=server, port=port)
        process.wait(length + 60)
        result: dict[str, Any] = json.loads(process.log())
        if "error" in result:
            raise LabError(f"{self.subject.name}: iperf3 {' '.join(arguments)}: {result['error']}")
        return result

    def _start_iperf(
        self, *arguments: str, server: Host | None = None, port: int = IPERF_PORT
    ) -> Any:
        at = ("-p", str(port))
        listening = (server or self.b).popen(["iperf3", "-s", "-1", "--forceflush", *at])
        listening.wait_for_output("Server listening")
        return self.a.popen(["iperf3", "-c", self.subject.target, *at, *arguments])


def medians(figures: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """The median over the rounds of every figure."""
    return {
        name: {key: median(values) for key, values in found.items()}
        for name, found in figures.items()
    }


def gbits(result: dict[str, Any]) -> float:
    """What arrived, in Gbit/s, of what `Bench.iperf` returned."""
    return float(result["end"]["sum_received"]["bits_per_second"]) / 1e9


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss_mib(pid: int) -> float:
    found = _RSS.search(Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0
