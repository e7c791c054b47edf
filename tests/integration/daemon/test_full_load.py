"""How soon the sockets answer while as many packets as possible go through the tunnel."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from itertools import pairwise
from statistics import median

import pytest

from tests.support.daemons import status
from tests.support.pairs import Pair
from tunnel.lab import Host

pytestmark = [pytest.mark.root, pytest.mark.foreign("iperf3")]

LIMIT = 32 << 20
"""Bytes that the tunnel may carry from one answer to the next, of half of all requests: traffic is
the clock, so that a slow machine has as long as it needs."""

REQUESTS = 150


def ask(host: Host, path: str, request: bytes, is_whole: Callable[[bytes], bool]) -> bytes:
    """Connect, ask and read the answer, as `wg` does each time."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(f"/proc/{host.pid}/root{path}")
        connection.sendall(request)
        answer = b""
        while not is_whole(answer):
            part = connection.recv(65536)
            assert part, answer
            answer += part
    return answer


def ask_wg(host: Host) -> int:
    """Bytes carried so far, as the UAPI has it."""
    path = "/run/wireguard/wg0.sock"
    answer = ask(host, path, b"get=1\n\n", lambda answer: answer.endswith(b"errno=0\n\n"))
    return sum(int(number) for number in re.findall(rb"[rt]x_bytes=(\d+)", answer))


def ask_control(host: Host) -> int:
    """Bytes carried so far, as the control socket has it."""
    request = b'{"v": 1, "method": "status"}\n'
    answer = ask(host, "/run/tunnel/wg0.sock", request, lambda answer: answer.endswith(b"}\n"))
    (peer,) = json.loads(answer)["result"]["peers"]
    total = peer["rx_bytes"] + peer["tx_bytes"]
    assert isinstance(total, int)
    return total


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
    totals = [ask(a) for _ in range(REQUESTS) for ask in (ask_wg, ask_control)]
    a.wait_for(
        lambda: all(now - then > 1 << 24 for then, now in zip(before, carried(pair), strict=True)),
        20,
        "traffic to go on in both directions",
    )
    assert load.running
    load.stop()
    steps = [now - then for then, now in pairwise(totals)]
    medians = {"control": median(steps[::2]), "wg": median(steps[1::2])}
    assert max(medians.values()) < LIMIT, medians
