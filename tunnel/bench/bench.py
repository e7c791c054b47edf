"""Measurements of what joins two hosts of a lab: throughput, packets, round trips, cost."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from tunnel.bench.subjects import A_OUTER, B_OUTER, Subject
from tunnel.bench.usage import Cpu, rss_mib
from tunnel.lab.errors import LabError
from tunnel.lab.host import Host
from tunnel.lab.peers import PORT
from tunnel.lab.process import HostProcess
from tunnel.lab.topology import Lab

IPERF_PORT = 5201
PINGS = 500
PING_INTERVAL = 0.003
"""Seconds: long enough for both ends to fall asleep in between."""
JUNK_RATE = 100_000
"""Datagrams a second."""

_PING_TIME = re.compile(r"time=([0-9.]+) ms")


@dataclass
class Bench:
    """Two hosts and one subject between them. `seconds` is the length of each load."""

    a: Host
    b: Host
    subject: Subject
    seconds: float = 3.0

    def begin(self) -> float:
        """Set the subject up and warm it; the seconds from A's `up` to the first answered ping."""
        first_ping = self.first_ping()
        self.iperf(seconds=min(1.0, self.seconds))
        return first_ping

    def first_ping(self) -> float:
        """Set the subject up; the seconds from A's `up` to the first answered ping."""
        self.subject.prepare(self.a, self.b)
        began = time.perf_counter()
        self.subject.up()
        self.a.run(["ping", "-n", "-c", "1", "-w", "10", "-i", "0.01", self.subject.target])
        return time.perf_counter() - began

    # Rows of the table: figures by metric key

    def idle(self) -> dict[str, float]:
        """Round trips of single packets, and what they cost."""
        before = self._cpu()
        times = self._pings(count=PINGS, interval=PING_INTERVAL)
        spent = before.seconds_since()
        figures = {"rtt_p50": median(times), "rtt_p99": quantiles(times, n=100)[98]}
        if before.pids:
            figures["cpu_ping"] = spent / len(times) * 1e6
        return figures

    def tcp(self) -> dict[str, float]:
        """One stream: its throughput, and what it cost."""
        before = self._cpu()
        result = self.iperf()
        spent = before.seconds_since()
        figures = {"tcp": gbits(result)}
        if before.pids:
            figures["cpu"] = spent / (result["end"]["sum_received"]["bytes"] / 1e9)
        return figures

    def eight(self) -> dict[str, float]:
        """Eight streams."""
        return {"tcp8": gbits(self.iperf("-P", "8"))}

    def both(self) -> dict[str, float]:
        """A stream in each direction."""
        end = self.iperf("--bidir")["end"]
        sums = (end["sum_received"], end["sum_received_bidir_reverse"])
        return {"tcp_both": sum(float(each["bits_per_second"]) for each in sums) / 1e9}

    def loaded(self) -> dict[str, float]:
        """Round trips beside a TCP stream."""
        load = self._start_iperf("-t", str(self.seconds + 1))
        times = self._pings(count=max(20, int(self.seconds / 0.01)), interval=0.01)
        load.wait(self.seconds + 30)
        return {"rtt_loaded_p50": median(times), "rtt_loaded_p99": quantiles(times, n=100)[98]}

    def flood(self, size: int) -> dict[str, float]:
        """Thousands of packets a second that arrive, out of as many as can be sent."""
        end = self.iperf("-u", "-l", str(size), "-b", "0")["end"]["sum"]
        delivered = float(end["packets"] - end["lost_packets"]) / float(end["seconds"])
        return {f"udp{size}": delivered / 1000}

    def steady(self, size: int, rate: int) -> dict[str, float]:
        """What a packet costs at a fixed rate that every subject can carry, and what is lost."""
        before = self._cpu()
        end = self.iperf("-u", "-l", str(size), "-b", str(rate * size * 8))["end"]["sum"]
        spent = before.seconds_since()
        figures = {f"loss{size}": float(end["lost_percent"])}
        delivered = end["packets"] - end["lost_packets"]
        if before.pids and delivered > 0:
            figures[f"cpu{size}"] = spent / delivered * 1e6
        return figures

    def junk(self) -> dict[str, float]:
        """What one TCP stream keeps while B's port is flooded."""
        alone = gbits(self.iperf())
        words = (B_OUTER, PORT, JUNK_RATE, self.seconds + 30)
        flood = self.a.popen([sys.executable, "-m", "tunnel.bench.junk", *map(str, words)])
        try:
            flood.wait_for_output("begins")
            flooded = gbits(self.iperf())
        finally:
            flood.stop()
        return {"tcp_junk": flooded, "tcp_junk_kept": flooded / alone}

    def memory(self) -> dict[str, float]:
        """Of A, after all the loads so far."""
        pids = self.a.pids()
        return {"rss": rss_mib(pids)} if pids else {}

    # How they are measured

    def _cpu(self) -> Cpu:
        return Cpu.of([*self.a.pids(), *self.b.pids()])

    def _pings(self, *, count: int, interval: float) -> list[float]:
        """Round trips in microseconds."""
        command = ["ping", "-n", "-c", str(count), "-i", str(interval), "-W", "2"]
        printed = self.a.run(
            [*command, self.subject.target], timeout=count * interval + 60, check=False
        ).stdout
        times = [float(text) * 1000 for text in _PING_TIME.findall(printed)]
        if len(times) < 2:
            raise LabError(f"{self.subject.name}: no answer to pings:\n{printed}")
        return times

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
    ) -> HostProcess:
        at = ("-p", str(port))
        listening = (server or self.b).popen(["iperf3", "-s", "-1", "--forceflush", *at])
        listening.wait_for_output("Server listening")
        return self.a.popen(["iperf3", "-c", self.subject.target, *at, *arguments])


def cabled(lab: Lab, subject: Subject, seconds: float) -> Bench:
    """Two hosts of `lab` with a cable between them, for `subject`, which is not set up."""
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, [f"{A_OUTER}/24"], [f"{B_OUTER}/24"])
    return Bench(a, b, subject, seconds)


@contextmanager
def joined(subject: Subject, seconds: float) -> Iterator[Bench]:
    """The same in a lab of their own, for as long as the context lasts."""
    with Lab() as lab:
        yield cabled(lab, subject, seconds)


def gbits(result: dict[str, Any]) -> float:
    """What arrived, in Gbit/s, of what `Bench.iperf` returned."""
    return float(result["end"]["sum_received"]["bits_per_second"]) / 1e9
