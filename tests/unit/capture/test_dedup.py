"""Which of several sightings of a datagram is written."""

from __future__ import annotations

import pytest

from tests.support.stack import message
from tunnel.capture import dedup
from tunnel.capture.dedup import GENERATION_NS, Sightings
from tunnel.linux.packet_socket import SeenPacket

IN, OUT = False, True


def written(*seen: tuple[int, bool, str, bytes]) -> list[tuple[int, str]]:
    """Time and device of what is kept, all being taken at the end."""
    known = Sightings()
    kept = [known.add(SeenPacket(*one), one[3]) for one in seen]
    taken = [sighting.take() for sighting in kept if sighting is not None]
    return [(chosen.time_ns, chosen.device) for chosen, datagram in taken if datagram]


def test_out_the_first_device_counts_and_in_the_last() -> None:
    datagram = message(7, 1)
    assert written((1, OUT, "br0", datagram), (2, OUT, "eth0", datagram)) == [(1, "br0")]
    assert written((1, IN, "eth0", datagram), (2, IN, "br0", datagram)) == [(2, "br0")]


def test_what_came_twice_is_there_twice() -> None:
    datagram = message(7, 1)
    assert written((1, IN, "eth0", datagram), (2, IN, "eth0", datagram)) == [
        (1, "eth0"),
        (2, "eth0"),
    ]
    assert written(
        (1, IN, "eth0", datagram),
        (2, IN, "eth0", datagram),
        (3, IN, "br0", datagram),
        (4, IN, "br0", datagram),
    ) == [(3, "br0"), (4, "br0")]


def test_others_are_others() -> None:
    assert written(
        (1, OUT, "br0", message(7, 1)),
        (2, OUT, "eth0", message(7, 2)),
        (3, OUT, "eth0", message(8, 1)),
        (4, IN, "eth0", message(7, 1)),
    ) == [(1, "br0"), (2, "eth0"), (3, "eth0"), (4, "eth0")]


def test_once_written_it_stays_and_is_not_kept_in_memory() -> None:
    known = Sightings()
    datagram = message(7, 1)
    sighting = known.add(SeenPacket(1, IN, "eth0", datagram), datagram)
    assert sighting is not None
    assert sighting.take()[0].device == "eth0"
    assert known.add(SeenPacket(2, IN, "br0", datagram), datagram) is None
    assert sighting.datagram == sighting.seen.packet == b""


def test_sightings_are_forgotten_after_a_while() -> None:
    datagram = message(7, 1)
    for later, count in ((GENERATION_NS, 1), (2 * GENERATION_NS + 2, 2)):
        known = (1, OUT, "br0", datagram)
        other = (GENERATION_NS + 1, OUT, "br0", message(7, 2))
        seen = written(known, other, (1 + later, OUT, "eth0", datagram))
        assert len(seen) == count + 1


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "MAX_GENERATION", 100)
    known = Sightings()
    for number in range(1000):
        datagram = message(7, number)
        known.add(SeenPacket(1, OUT, "eth0", datagram), datagram)
    assert len(known._new) + len(known._old) <= 200
    for _ in range(50):
        assert known.add(SeenPacket(1, OUT, "eth0", datagram), datagram) is not None
    assert len(known._new[next(reversed(known._new))]) <= dedup.MAX_COPIES


def test_what_is_no_datagram_is_let_through() -> None:
    assert written((1, OUT, "eth0", b"\x45")) == [(1, "eth0")]
