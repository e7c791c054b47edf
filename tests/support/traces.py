"""Traces of a running tunnel, read as JSON."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass
from typing import Any

from tunnel.lab import Host
from tunnel.lab.process import HostProcess

TRACE = [sys.executable, "-m", "tunnel", "trace"]


A, B, C = "10.77.0.1", "10.77.0.2", "10.88.0.2"


# Without the address, what IPv6 says by itself on a new interface is ICMP too.
PINGS = ["icmp", "and", "host", A]


PREFIX = "tunnel-trace-"


OUT = [
    "inner OUTPUT",
    "inner POSTROUTING",
    "tunnel TUN read",
    "tunnel allowed IPs",
    "tunnel session",
    "tunnel seal",
    "tunnel UDP send",
    "outer OUTPUT",
    "outer POSTROUTING",
]


IN = [
    "outer PREROUTING",
    "outer INPUT",
    "tunnel UDP receive",
    "tunnel open",
    "tunnel source check",
    "tunnel TUN write",
    "inner PREROUTING",
    "inner INPUT",
]


@dataclass(frozen=True)
class Net:
    """Hosts a and b with a tunnel between them, and c on b's own network."""

    a: Host
    b: Host
    c: Host


STARTED: list[HostProcess] = []


def trace_tables(host: Host) -> list[str]:
    tables = host.run(["nft", "list", "tables"]).stdout.split()
    return [word for word in tables if word.startswith(PREFIX)]


def start(host: Host, *arguments: str) -> HostProcess:
    process = host.popen([*TRACE, *arguments])
    STARTED.append(process)
    process.wait_for_output("tracing wg0")
    return process


def report(text: str) -> list[dict[str, Any]]:
    """The journeys of packets (not of handshakes) in what `--json` printed."""
    found, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
    return [journey for journey in found["journeys"] if "WireGuard hand" not in journey["packet"]]


def finish(process: HostProcess) -> list[dict[str, Any]]:
    process.signal(signal.SIGINT)
    process.wait(10)
    return report(process.log())


def places(journey: dict[str, Any]) -> list[str]:
    return [f"{step['layer']} {step['place']}" for step in journey["steps"]]
