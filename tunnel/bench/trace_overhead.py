"""What a trace leaves behind: a tunnel that was traced beside one that never was, load by load."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from statistics import median

from tunnel.bench.bench import Bench, joined
from tunnel.bench.subjects import Ours
from tunnel.lab.errors import LabError

PAIRS = 4
"""Loads of each, in turn: what else the machine does meets both alike."""

_TRACE = [sys.executable, "-m", "tunnel", "trace", "icmp", "--json"]
_TRACE_SECONDS = 30.0


def measure(subject: Ours, seconds: float, pairs: int = PAIRS) -> dict[str, float]:
    """Figures by metric key: the ratio of two tunnels alike, and that after one was traced.

    The first is 1 but for the noise of the machine, so it says what the second is worth.
    """
    with joined(replace(subject), seconds) as never, joined(replace(subject), seconds) as traced:
        never.begin()
        traced.begin()
        figures = _compare("untraced", traced, never, pairs)
        _trace(traced)
        return figures | _compare("traced", traced, never, pairs)


def _compare(key: str, one: Bench, other: Bench, pairs: int) -> dict[str, float]:
    """The middle of the ratios of `one` to the `other`."""
    tcp, cpu = [], []
    for _ in range(pairs):
        dividend, divisor = one.tcp(), other.tcp()
        tcp.append(dividend["tcp"] / divisor["tcp"])
        cpu.append(dividend["cpu"] / divisor["cpu"])
    return {key: median(tcp), f"{key}_cpu": median(cpu)}


def _trace(bench: Bench) -> None:
    """Trace packets of both ways on both hosts, to the end. Raises LabError."""
    far = bench.b.popen([*_TRACE, "--seconds", str(_TRACE_SECONDS)])
    far.wait_for_output("tracing ")
    ping = ["ping", "-n", "-c", "3", "-i", "0.2", bench.subject.target]
    bench.a.run([*_TRACE, "--", *ping], timeout=_TRACE_SECONDS)
    far.signal(signal.SIGINT)
    if far.wait(_TRACE_SECONDS) != 0:
        raise LabError(f"{bench.subject.name}: nothing was traced: {far.log()}")
