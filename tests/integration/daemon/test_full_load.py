"""How soon the sockets answer while as many packets as possible go through the tunnel."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from statistics import median

import pytest

from tests.support.daemons import status
from tests.support.pairs import Pair
from tunnel.lab import Host

pytestmark = [pytest.mark.root, pytest.mark.foreign("iperf3")]

LIMIT = 0.05
"""Seconds until the answer is there, of half of all requests: a machine that is busy with other
things delays single ones of any program."""

REQUESTS = 150


def ask(host: Host, path: str, request: bytes, is_whole: Callable[[bytes], bool]) -> float:
    """Connect, ask and read the answer, as `wg` does each time; how many seconds that took."""
    begun = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(f"/proc/{host.pid}/root{path}")
        connection.sendall(request)
        answer = b""
        while not is_whole(answer):
            part = connection.recv(65536)
            assert part, answer
            answer += part
    return time.perf_counter() - begun


def ask_wg(host: Host) -> float:
    path = "/run/wireguard/wg0.sock"
    return ask(host, path, b"get=1\n\n", lambda answer: answer.endswith(b"errno=0\n\n"))


def ask_control(host: Host) -> float:
    request = b'{"v": 1, "method": "status"}\n'
    return ask(host, "/run/tunnel/wg0.sock", request, lambda answer: answer.endswith(b"}\n"))


def carried(pair: Pair) -> tuple[int, int]:
    """Bytes received and sent so far."""
    (peer,) = status(pair.a)["peers"]
    return peer["rx_bytes"], peer["tx_bytes"]


def test_both_sockets_answer_at_full_load_in_both_directions(pair: Pair) -> None:
    a, b = pair.hosts
    a.ping(pair.b.node.address())
    b.popen(["iperf3", "-s", "-1", "--forceflush"]).wait_for_output("Server listening")
    # To be ended when all is asked: no rate is set, so it takes what the machine gives.
    load = a.popen(["iperf3", "-c", pair.b.node.address(), "--bidir", "-t", "100"])
    a.wait_for(lambda: min(carried(pair)) > 1 << 24, 20, "traffic in both directions")
    before = carried(pair)
    took: dict[str, list[float]] = {"wg": [], "control": []}
    for _ in range(REQUESTS):
        took["wg"].append(ask_wg(a))
        took["control"].append(ask_control(a))
        time.sleep(0.02)
    assert load.running
    assert all(now - then > 1 << 24 for then, now in zip(before, carried(pair), strict=True))
    load.stop()
    medians = {name: median(times) for name, times in took.items()}
    assert max(medians.values()) < LIMIT, medians
