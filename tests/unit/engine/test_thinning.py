"""What is kept out of the socket's queue in a flood: never data, and no more than it takes."""

from __future__ import annotations

import socket
from typing import cast

import pytest
import trio

from tests.support.engines import FakeUdp, Side, Sides, run, until
from tunnel.engine.thinning import FLOOD, LEAST, Thinning, program
from tunnel.io.endpoint import Endpoint
from tunnel.io.udp import Udp
from tunnel.linux import bpf

MESSAGES = {
    "bare": b"\1\0\0\0" + bytes(144),
    "last byte of mac2": b"\1\0\0\0" + bytes(143) + b"\1",
    "first byte of mac2": b"\1\0\0\0" + bytes(128) + b"\1" + bytes(15),
    "response": b"\2\0\0\0" + bytes(88),
    "cookie": b"\3\0\0\0" + bytes(60),
    "junk": bytes(148),
    "too long": b"\1\0\0\0" + bytes(145),
    "data": b"\4\0\0\0" + bytes(144),
    "keepalive": b"\4\0\0\0" + bytes(28),
}
DATA = {"data", "keepalive"}


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize(
    ("bare", "rest", "let_in"),
    [
        (0.0, 1.0, set(MESSAGES) - {"bare"}),
        (1.0, 1.0, set(MESSAGES)),
        (1.0, 0.0, DATA | {"bare"}),
        (0.0, 0.0, DATA),
    ],
)
def test_the_filter_lets_in_what_it_says(
    family: socket.AddressFamily, bare: float, rest: float, let_in: set[str]
) -> None:
    address = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.socket(family, socket.SOCK_DGRAM) as receiver:
        try:
            receiver.bind((address, 0))
        except OSError:
            pytest.skip("this machine has no such loopback")
        bpf.attach(receiver, program(bare, rest))
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            for message in MESSAGES.values():
                sender.sendto(message, receiver.getsockname())
        # Loopback delivers within the call.
        receiver.setblocking(False)
        found = set()
        for _ in let_in:
            data = receiver.recv(200)
            found |= {name for name, message in MESSAGES.items() if message == data}
        assert found == let_in
        with pytest.raises(BlockingIOError):
            receiver.recv(200)


def test_a_part_is_a_part() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        bpf.attach(receiver, program(0.25, 1.0))
        found = 0
        for _ in range(2000):
            sender.sendto(MESSAGES["bare"], receiver.getsockname())
            try:
                receiver.recv(200)
            except BlockingIOError:
                continue
            found += 1
        # Six standard deviations.
        assert abs(found - 500) < 120


def make_thinning() -> tuple[FakeUdp, Thinning]:
    udp = FakeUdp(Endpoint(bytes([192, 0, 2, 1]), 9))
    return udp, Thinning(cast(Udp, udp))


@pytest.mark.parametrize(("flood", "other"), [("bare", "rest"), ("rest", "bare")])
def test_the_kind_that_the_flood_is_of_is_kept_out_and_comes_back(flood: str, other: str) -> None:
    udp, thinning = make_thinning()
    udp.full = 1.0
    came = {flood: FLOOD, other: FLOOD // 2}
    thinning.adjust(**came)
    assert 0 < getattr(thinning, flood) < getattr(thinning, other) == 1.0
    for _ in range(100):
        thinning.adjust(**came)
    assert getattr(thinning, flood) == LEAST, "something of all is always let in"
    assert getattr(thinning, other) == 1.0
    udp.full = 0.0
    for _ in range(100):
        thinning.adjust(0, 0)
    assert not thinning.is_on
    assert udp.filters[-1] == []


def test_a_long_queue_of_data_alone_keeps_no_handshake_out() -> None:
    udp, thinning = make_thinning()
    udp.full = 1.0
    thinning.adjust(FLOOD // 2 - 1, FLOOD // 2)
    assert not thinning.is_on
    assert udp.filters == []


def test_the_filter_goes_when_the_flood_is_over_though_nothing_arrives(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        a.udp.full = 1.0
        for kind in ("bare", "junk"):
            count = len(a.udp.filters)
            while len(a.udp.filters) < count + 10:
                a.udp.feed(MESSAGES[kind] * FLOOD, 148, b.udp.own)
                await trio.sleep(0.005)
        a.udp.full = 0.0
        await until(lambda: a.udp.filters[-1] == [])
        count = len(a.udp.filters)
        await trio.sleep(60.0)
        assert len(a.udp.filters) == count
        assert not b.udp.filters

    run(sides, scenario)
