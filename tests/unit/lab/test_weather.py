"""What a bad wire does to frames, in virtual time."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.lab.weather import Faults, Rebinding, Spoiler, udp_header
from tunnel.packet.checksum import folded

IPV4 = IPv4Address("192.0.2.1").packed, IPv4Address("192.0.2.2").packed
IPV6 = IPv6Address("2001:db8::1").packed, IPv6Address("2001:db8::2").packed


def datagram(payload: bytes, *, version: int = 4, ports: tuple[int, int] = (51820, 6000)) -> bytes:
    """An Ethernet frame with a UDP datagram whose checksum is right."""
    addresses = IPV4 if version == 4 else IPV6
    size = 8 + len(payload)
    head = b"".join(port.to_bytes(2, "big") for port in ports) + size.to_bytes(2, "big")
    pseudo = b"".join(addresses) + b"\0\x11" + size.to_bytes(2, "big")
    checksum = (folded(pseudo + head + b"\0\0" + payload) ^ 0xFFFF) or 0xFFFF
    udp = head + checksum.to_bytes(2, "big") + payload
    if version == 4:
        ip = b"\x45\0" + (20 + size).to_bytes(2, "big") + bytes(4) + b"\x40\x11\0\0"
    else:
        ip = b"\x60\0\0\0" + size.to_bytes(2, "big") + b"\x11\x40"
    kind = b"\x08\0" if version == 4 else b"\x86\xdd"
    return bytes(12) + kind + ip + b"".join(addresses) + udp


def is_right(frame: bytes, version: int) -> bool:
    """Whether the checksum of its datagram is."""
    addresses = IPV4 if version == 4 else IPV6
    start = udp_header(frame)
    assert start is not None
    udp = frame[start:]
    return folded(b"".join(addresses) + b"\0\x11" + len(udp).to_bytes(2, "big") + udp) == 0xFFFF


def carry(faults: Faults, count: int, *, seed: str = "1") -> tuple[list[bytes], Counter[str]]:
    """Datagrams with numbers, a millisecond apart, in the order of their arrival."""
    counts: Counter[str] = Counter()
    spoiler = Spoiler(seed, counts)
    arrived = []
    for number in range(count):
        frame = datagram(number.to_bytes(4, "big"))
        arrived += spoiler.spoil(frame, faults, number / 1000)
    return [frame[-4:] for _, frame in sorted(arrived, key=lambda pair: pair[0])], counts


def test_a_good_wire_changes_nothing() -> None:
    arrived, counts = carry(Faults(), 100)
    assert arrived == [number.to_bytes(4, "big") for number in range(100)]
    assert not counts


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_shares_are_of_the_size_asked_for(share: float) -> None:
    arrived, counts = carry(Faults(loss=share), 4000)
    assert len(arrived) == 4000 - counts["lost"]
    assert counts["lost"] == pytest.approx(4000 * share, rel=0.2)
    arrived, counts = carry(Faults(duplicate=share), 4000)
    assert len(arrived) == 4000 + counts["duplicated"]
    assert counts["duplicated"] == pytest.approx(4000 * share, rel=0.2)


def test_jitter_keeps_the_order_and_reordering_does_not() -> None:
    arrived, _ = carry(Faults(delay=0.04, jitter=0.03), 500)
    assert arrived == sorted(arrived)
    arrived, counts = carry(Faults(delay=0.04, reorder=0.1), 500)
    assert len(arrived) == 500
    assert arrived != sorted(arrived)
    assert 20 < counts["reordered"] < 100


def test_delay_is_between_its_bounds() -> None:
    spoiler = Spoiler("1", Counter())
    faults = Faults(delay=0.04, jitter=0.005)
    delays = []
    for second in range(100):
        ((late, _),) = spoiler.spoil(datagram(b"x"), faults, float(second))
        delays.append(late - second)
    assert 0.04 <= min(delays) < 0.041
    assert 0.044 < max(delays) <= 0.0451


def test_the_same_seed_has_the_same_chances() -> None:
    faults = Faults(loss=0.2, duplicate=0.2, corrupt=0.2, reorder=0.2, jitter=0.01)
    assert carry(faults, 200) == carry(faults, 200)
    assert carry(faults, 200) != carry(faults, 200, seed="2")


@given(
    payload=st.binary(min_size=1, max_size=60),
    version=st.sampled_from([4, 6]),
    seed=st.integers(0, 1000),
)
def test_damage_is_one_bit_and_passes_the_checksum(payload: bytes, version: int, seed: int) -> None:
    frame = datagram(payload, version=version)
    assert is_right(frame, version)
    ((_, damaged),) = Spoiler(str(seed), Counter()).spoil(frame, Faults(corrupt=1), 0.0)
    changed = bytes(a ^ b for a, b in zip(frame, damaged, strict=True))[-len(payload) :]
    assert sum(byte.bit_count() for byte in changed) == 1
    assert is_right(damaged, version)


@pytest.mark.parametrize(
    "frame",
    [
        bytes(12) + b"\x08\x06" + bytes(28),
        bytes(12)
        + b"\x86\xdd"
        + b"\x60"
        + bytes(5)
        + b"\x3a\xff"
        + bytes(32)
        + b"\x87"
        + bytes(23),
    ],
    ids=["arp", "neighbour-solicitation"],
)
def test_what_finds_neighbours_is_only_late(frame: bytes) -> None:
    worst = Faults(delay=0.04, loss=1, duplicate=1, corrupt=1, reorder=1)
    assert Spoiler("1", Counter()).spoil(frame, worst, 1.0) == [(1.04, frame)]


@pytest.mark.parametrize("frame", [b"", bytes(14), bytes(12) + b"\x08\0\x45", datagram(b"")[:30]])
def test_what_is_no_whole_packet_breaks_nothing(frame: bytes) -> None:
    worst = Faults(duplicate=1, corrupt=1, reorder=1)
    Spoiler("1", Counter()).spoil(frame, worst, 0.0)
    rebinding = Rebinding("1")
    assert rebinding.outward(frame, 30, 0) == frame
    assert rebinding.inward(frame, 30, 0) == frame


@pytest.mark.parametrize("version", [4, 6])
def test_a_port_is_changed_and_after_the_interval_again(version: int) -> None:
    rebinding = Rebinding("1")

    def port_of(frame: bytes, place: int) -> int:
        start = udp_header(frame)
        assert start is not None
        return int.from_bytes(frame[start + place : start + place + 2], "big")

    def answer(port: int) -> bytes:
        return datagram(b"back", version=version, ports=(6000, port))

    assert rebinding.inward(answer(51820), 30, 0.0) == answer(51820)
    ports = []
    for now in (1.0, 29.9, 30.0, 61.0):
        out = rebinding.outward(datagram(b"out", version=version), 30, now)
        assert is_right(out, version)
        ports.append(port_of(out, 0))
        back = rebinding.inward(answer(ports[-1]), 30, now)
        assert back == answer(51820)
    assert ports[0] == ports[1]
    assert len({*ports, 51820}) == 4
    # What is sent to the port of before is lost, as in a NAT that has forgotten it.
    assert rebinding.inward(answer(ports[2]), 30, 61.0) is None
