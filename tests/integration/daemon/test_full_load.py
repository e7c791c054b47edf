"""How soon the sockets answer while as many packets as possible go through the tunnel."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from statistics import median

import pytest

from tests.integration.daemon.conftest import Pair, pair, status
from tunnel.lab import Host

__all__ = ["pair"]

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


def test_both_sockets_answer_at_full_load_in_both_directions(pair: Pair) -> None:
    a, b = pair.hosts
    a.ping(pair.b.node.address())
    b.popen(["iperf3", "-s", "-1", "--forceflush"]).wait_for_output("Server listening")
    load = a.popen(["iperf3", "-c", pair.b.node.address(), "--bidir", "-t", "20", "-J"])
    a.wait_for(lambda: status(pair.a)["peers"][0]["rx_bytes"] > 1 << 24, 10, "traffic")
    took: dict[str, list[float]] = {"wg": [], "control": []}
    for _ in range(REQUESTS):
        took["wg"].append(ask_wg(a))
        took["control"].append(ask_control(a))
        time.sleep(0.02)
    assert load.running, "the requests outlasted the traffic"
    medians = {name: median(times) for name, times in took.items()}
    assert max(medians.values()) < LIMIT, medians
    assert load.wait(60) == 0
    end = json.loads(load.log())["end"]
    for way in ("sum_received", "sum_received_bidir_reverse"):
        assert end[way]["bytes"] > 1 << 24
