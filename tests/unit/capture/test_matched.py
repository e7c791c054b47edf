"""Which datagrams a filtered capture keeps, by what the daemon told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.stack import echo, message
from tunnel.capture.matched import Carriers


def over_ipv6(index: int, counter: int) -> bytes:
    datagram = message(index, counter)[20:]
    return bytes([0x60, 0, 0, 0, 0, len(datagram), 17, 64]) + bytes(32) + datagram


@pytest.mark.parametrize("make", [message, over_ipv6])
def test_only_what_carried_a_packet_is_wanted(make: Callable[[int, int], bytes]) -> None:
    carriers = Carriers()
    carriers.add(7, 10, 3)
    carriers.add(9, 1 << 40, 1)
    wanted = [(7, 10), (7, 11), (7, 12), (9, 1 << 40)]
    others = [(7, 9), (7, 13), (8, 10), (9, 0), (9, (1 << 40) + 1)]
    for index, counter in wanted:
        assert carriers.wanted(make(index, counter))
    for index, counter in others:
        assert not carriers.wanted(make(index, counter))


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_handshakes_are_always_wanted(kind: int) -> None:
    assert Carriers().wanted(message(1, 1, kind))


@pytest.mark.parametrize("packet", [b"", b"\x45", bytes(40), echo(1)])
def test_what_is_no_datagram_is_not_wanted(packet: bytes) -> None:
    assert not Carriers().wanted(packet)


def test_cut_short_is_not_wanted() -> None:
    assert not Carriers().wanted(message(1, 1)[:40])


def test_records_are_forgotten_after_two_turns() -> None:
    carriers = Carriers()
    carriers.add(7, 10, 1)
    carriers.turn()
    assert carriers.wanted(message(7, 10))
    carriers.turn()
    assert not carriers.wanted(message(7, 10))
