"""Split and coalesce, seen from outside: what goes in as one frame comes out as one frame."""

from __future__ import annotations

import pytest

from tests.support.datapaths import (
    ACK,
    CWR,
    FIN,
    PSH,
    SYN,
    TCP,
    UDP,
    Pair,
    datagrams,
    gso_frame,
    ip_packet,
    message,
    open_,
    plain_frame,
    plaintext,
    pseudo_sum,
    seal,
    tcp,
    udp,
    with_checksum,
)
from tests.support.packets import ones_sum
from tunnel.datapath import DatapathDrop, Offload
from tunnel.datapath.virtio import GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VirtioNetHdr

DATA = bytes(number % 251 for number in range(3500))
GSO = {(4, TCP): GSO_TCPV4, (6, TCP): GSO_TCPV6, (4, UDP): GSO_UDP_L4, (6, UDP): GSO_UDP_L4}


def segments(pair: Pair, frame: bytes) -> list[bytes]:
    """The packets a frame is cut into, padding included."""
    sealed, out = seal(pair.a, frame)
    assert sealed.drops == {}
    return [plaintext(datagram) for datagram in datagrams(sealed, out)]


@pytest.mark.parametrize("version", [4, 6])
def test_tcp_is_split_as_the_kernel_would(pair: Pair, version: int) -> None:
    options = b"\1\1\x08\x0a" + b"timestmp"
    flags = ACK | PSH | FIN | CWR
    whole = tcp(DATA, flags=flags, options=options, sequence=2**32 - 1000)
    frame = gso_frame(version, TCP, whole, gso_type=GSO[version, TCP] | 0x80, gso_size=1000)
    expected = []
    for number, at in enumerate(range(0, 3500, 1000)):
        now = ACK
        now |= CWR if number == 0 else 0
        now |= PSH | FIN if number == 3 else 0
        part = tcp(
            DATA[at : at + 1000],
            flags=now,
            options=options,
            sequence=(2**32 - 1000 + at) % 2**32,
        )
        part = with_checksum(version, TCP, part)
        expected.append(ip_packet(version, TCP, part, identification=7 + number))
    found = segments(pair, frame)
    assert [each[: len(want)] for each, want in zip(found, expected, strict=True)] == expected


@pytest.mark.parametrize("version", [4, 6])
def test_udp_is_split_as_the_kernel_would(pair: Pair, version: int) -> None:
    frame = gso_frame(version, UDP, udp(DATA), gso_type=GSO_UDP_L4, gso_size=1200)
    expected = [
        ip_packet(
            version,
            UDP,
            with_checksum(version, UDP, udp(DATA[at : at + 1200])),
            identification=7 + number,
        )
        for number, at in enumerate(range(0, 3500, 1200))
    ]
    found = segments(pair, frame)
    assert [each[: len(want)] for each, want in zip(found, expected, strict=True)] == expected


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_what_was_split_is_one_frame_again(pair: Pair, version: int, protocol: int) -> None:
    whole = tcp(DATA, flags=ACK | PSH) if protocol == TCP else udp(DATA)
    frame = gso_frame(version, protocol, whole, gso_type=GSO[version, protocol], gso_size=1000)
    sealed, out = seal(pair.a, frame)
    opened, frames = open_(pair.b, *datagrams(sealed, out))
    assert len(frames) == 1
    header = VirtioNetHdr.unpack_untrusted(frames[0])
    start, headers = (20, 40) if version == 4 else (40, 60)
    at = 16 if protocol == TCP else 6
    headers -= 12 if protocol == UDP else 0
    assert header == VirtioNetHdr(1, GSO[version, protocol], headers, 1000, start, at)
    # Everything but hdr_len is as it came; that one the kernel had wrong, and ours is right.
    assert frames[0][10:] == frame[10:]
    assert (opened.packets, opened.payload_bytes) == (4, 3500 + 4 * headers)


@pytest.mark.parametrize("kind", [Offload.TCP4, Offload.TCP6, Offload.UDP4, Offload.UDP6])
def test_only_what_the_tun_takes_is_merged(pair: Pair, kind: Offload) -> None:
    version = 4 if kind in (Offload.TCP4, Offload.UDP4) else 6
    protocol = TCP if kind in (Offload.TCP4, Offload.TCP6) else UDP
    whole = tcp(DATA) if protocol == TCP else udp(DATA)
    frame = gso_frame(version, protocol, whole, gso_type=GSO[version, protocol], gso_size=1000)
    for coalesce, count in ((kind, 1), (Offload.ALL & ~kind, 4)):
        sealed, out = seal(pair.a, frame)
        _, frames = open_(pair.b, *datagrams(sealed, out), coalesce=coalesce)
        assert len(frames) == count


def merged(pair: Pair, *packets: bytes) -> list[int]:
    """How many bytes the frames have that come of equally long packets."""
    _, frames = open_(pair.b, *(message(each, n) for n, each in enumerate(packets)))
    return [len(frame) - 10 for frame in frames]


def part(
    number: int,
    *,
    flags: int = ACK,
    size: int = 100,
    sequence: int | None = None,
    tos: int = 0,
    identification: int | None = None,
    options: bytes = b"",
) -> bytes:
    """The n-th segment of a TCP stream over IPv4."""
    sequence = 1000 + 100 * number if sequence is None else sequence
    segment = tcp(bytes([number]) * size, sequence=sequence, flags=flags, options=options)
    identification = 7 + number if identification is None else identification
    return ip_packet(4, TCP, with_checksum(4, TCP, segment), identification=identification, tos=tos)


def test_a_run_is_merged_whole(pair: Pair) -> None:
    assert merged(pair, part(0), part(1), part(2)) == [340]


@pytest.mark.parametrize(
    "second",
    [
        part(1, sequence=1101),
        part(1, flags=ACK | FIN),
        part(1, flags=SYN),
        part(1, tos=4),
        part(1, identification=99),
    ],
    ids=["gap", "fin", "syn", "tos", "identification"],
)
def test_what_differs_is_not_merged(pair: Pair, second: bytes) -> None:
    assert merged(pair, part(0), second) == [140, 140]


def test_psh_ends_a_run(pair: Pair) -> None:
    assert merged(pair, part(0), part(1, flags=ACK | PSH), part(2), part(3)) == [240, 240]


def test_a_shorter_packet_ends_a_run(pair: Pair) -> None:
    packets = [message(part(0), 0), message(part(1), 1), message(part(2, size=90), 2)]
    _, frames = open_(pair.b, *packets)
    assert [len(frame) - 10 for frame in frames] == [330]
    longer = [message(part(3, size=90, sequence=5000), 3), message(part(4, sequence=5090), 4)]
    padded = [each for each in longer if len(each) == len(longer[0])]
    _, frames = open_(pair.b, *padded)
    assert len(frames) == len(padded)


def test_a_corrupt_segment_never_becomes_valid(pair: Pair) -> None:
    broken = bytearray(part(1))
    broken[-1] ^= 0xFF
    opened, frames = open_(
        pair.b, message(part(0), 0), message(bytes(broken), 1), message(part(2), 2)
    )
    assert opened.drops == {}
    # It goes on as it is, wrong checksum and all: the host will refuse it.
    assert plain_frame(bytes(broken)) in frames
    for frame in frames:
        packet = frame[10:]
        if packet != bytes(broken) and frame[0] == 0:
            transport = packet[20:]
            total = ones_sum(transport) + pseudo_sum(4, TCP, len(transport))
            assert total % 0xFFFF == 0


def test_flows_are_merged_apart_and_each_keeps_its_order(pair: Pair) -> None:
    def other(number: int) -> bytes:
        segment = bytearray(tcp(bytes([number]) * 100, sequence=9000 + 100 * number))
        segment[0:2] = b"\x99\x99"
        checked = with_checksum(4, TCP, bytes(segment))
        return ip_packet(4, TCP, checked, identification=7 + number)

    assert merged(pair, part(0), other(0), part(1), other(1)) == [240, 240]


def test_frames_too_large_for_any_datagram_are_dropped(pair: Pair) -> None:
    frame = gso_frame(4, TCP, tcp(bytes(65_000)), gso_type=GSO_TCPV4, gso_size=10)
    sealed, _ = seal(pair.a, frame)
    assert sealed.drops == {DatapathDrop.TOO_MANY_SEGMENTS: 1}
    assert sealed.packets == 0


def test_64_kib_become_batches_that_one_call_can_send(pair: Pair) -> None:
    frame = gso_frame(4, TCP, tcp(bytes(65_000)), gso_type=GSO_TCPV4, gso_size=1380)
    sealed, _ = seal(pair.a, frame)
    assert sealed.packets == 48
    for batch in sealed.batches:
        assert batch.end - batch.start <= 65_507
        assert (batch.end - batch.start - 1) // batch.stride < 64
