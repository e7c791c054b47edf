"""Ethernet frames as EtherIP: what is in the message, and what comes out at the other end."""

from __future__ import annotations

import pytest

from tests.support.datapaths import (
    A_KEY,
    B_KEY,
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
    seal,
    tcp,
    udp,
    with_checksum,
)
from tunnel import datapath
from tunnel.datapath import DatapathDrop
from tunnel.datapath.virtio import GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VirtioNetHdr

DATA = bytes(number % 251 for number in range(3500))
MACS = bytes([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1])
KINDS = {4: b"\x08\x00", 6: b"\x86\xdd"}
TAGS = [b"", b"\x81\x00\x00\x07", b"\x88\xa8\x00\x05\x81\x00\x00\x07"]
ARP = MACS + b"\x08\x06" + bytes(range(28))
ETHERIP = b"\x30\x00"


@pytest.fixture(params=datapath.available())
def pair(request: pytest.FixtureRequest) -> Pair:
    make = datapath.load(request.param).session
    return Pair(make(A_KEY, B_KEY, 1, 2, ethernet=True), make(B_KEY, A_KEY, 2, 1, ethernet=True))


@pytest.fixture(params=datapath.available())
def mixed(request: pytest.FixtureRequest) -> Pair:
    """Frames at one end, packets at the other."""
    make = datapath.load(request.param).session
    return Pair(make(A_KEY, B_KEY, 1, 2, ethernet=True), make(B_KEY, A_KEY, 2, 1))


def on_ethernet(frame: bytes, link: bytes) -> bytes:
    """A frame of a TUN as one of a TAP."""
    flags, gso_type, hdr_len, gso_size, start, offset = VirtioNetHdr.unpack_untrusted(frame)
    start += len(link) if flags else 0
    header = VirtioNetHdr(flags, gso_type, hdr_len, gso_size, start, offset)
    return header.pack() + link + frame[10:]


def plains(pair: Pair, frame: bytes, mtu: int = 1400) -> list[bytes]:
    sealed, out = seal(pair.a, frame, mtu=mtu)
    assert sealed.drops == {}
    return [plaintext(datagram) for datagram in datagrams(sealed, out)]


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_large_frame_is_split_and_merged_again(
    pair: Pair, version: int, protocol: int, tags: bytes
) -> None:
    link = MACS + tags + KINDS[version]
    transport = (tcp if protocol == TCP else udp)(DATA)
    tcp_type = GSO_TCPV4 if version == 4 else GSO_TCPV6
    gso_type = tcp_type if protocol == TCP else GSO_UDP_L4
    frame = gso_frame(version, protocol, transport, gso_type=gso_type, gso_size=1200)
    sealed, out = seal(pair.a, on_ethernet(frame, link))
    parts = datagrams(sealed, out)
    assert len(parts) == 3
    assert all(plaintext(part).startswith(ETHERIP + link) for part in parts)
    opened, frames = open_(pair.b, *parts)
    whole = on_ethernet(frame, link)
    headers = len(link) + (20 if version == 4 else 40) + (20 if protocol == TCP else 8)
    header = VirtioNetHdr.unpack_untrusted(whole)._replace(hdr_len=headers)
    assert frames == [header.pack() + whole[10:]]
    assert opened.payload_bytes == 3500 + 3 * headers


@pytest.mark.parametrize("size", [1, 7, 46, 60, 1400])
def test_what_is_no_packet_arrives_as_it_was(pair: Pair, size: int) -> None:
    """No length is in it: a byte more or less would be another frame."""
    frame = MACS + b"\x88\xe5" + bytes(range(1, 256))[: size % 255 or 1] * (size // 255 + 1)
    (plain,) = plains(pair, plain_frame(frame))
    assert plain == ETHERIP + frame
    sealed, out = seal(pair.a, plain_frame(frame))
    _, frames = open_(pair.b, *datagrams(sealed, out))
    assert frames == [plain_frame(frame)]


def test_a_packet_is_padded_and_trimmed(pair: Pair) -> None:
    packet = ip_packet(4, UDP, with_checksum(4, UDP, udp(b"abc")))
    frame = MACS + KINDS[4] + packet
    (plain,) = plains(pair, plain_frame(frame + b"trailer"))
    assert plain == (ETHERIP + frame).ljust(48, b"\0")
    sealed, out = seal(pair.a, plain_frame(frame))
    _, frames = open_(pair.b, *datagrams(sealed, out))
    assert frames == [plain_frame(frame)]


def test_a_full_packet_with_a_tag_is_as_long_as_a_packet_of_a_tun(pair: Pair) -> None:
    """An MTU of 1400 is one of 1420 less 2 bytes of EtherIP, 14 of Ethernet and 4 of a tag."""
    packet = ip_packet(6, UDP, with_checksum(6, UDP, udp(bytes(1400 - 48))))
    (tagged,) = plains(pair, plain_frame(MACS + TAGS[1] + KINDS[6] + packet))
    (plain,) = plains(pair, plain_frame(MACS + KINDS[6] + packet))
    assert (len(plain), len(tagged)) == (1420, 1420)


def test_frames_with_other_headers_are_not_merged(pair: Pair) -> None:
    parts = [
        with_checksum(4, TCP, tcp(DATA[at : at + 1000], sequence=at)) for at in (0, 1000, 2000)
    ]
    other = bytes([2, 0, 0, 0, 0, 3]) + MACS[6:]
    sent = [
        macs + KINDS[4] + ip_packet(4, TCP, part, identification=number)
        for number, (macs, part) in enumerate(zip((MACS, MACS, other), parts, strict=True))
    ]
    sealed, out = seal(pair.a, *map(plain_frame, sent))
    _, frames = open_(pair.b, *datagrams(sealed, out))
    assert [len(frame) for frame in frames] == [10 + 14 + 40 + 2000, 10 + 14 + 40 + 1000]
    assert frames[1] == plain_frame(sent[2])


def test_the_checksum_of_any_frame_is_completed(pair: Pair) -> None:
    """As of a packet in PPPoE, which is none that is split."""
    frame = bytearray(MACS + b"\x88\x64" + bytes(8) + udp(b"abcd"))
    start = len(frame) - 12
    header = VirtioNetHdr(NEEDS_CSUM, 0, 0, 0, start, 6)
    (plain,) = plains(pair, header.pack() + frame)
    assert plain[2 + start + 6 : 2 + start + 8] != b"\0\0"
    assert plain[: 2 + start + 6] == ETHERIP + frame[: start + 6]


def test_ecn_of_the_way_reaches_the_packet(pair: Pair) -> None:
    packet = ip_packet(6, UDP, with_checksum(6, UDP, udp(b"abc")), tos=2)
    sealed, out = seal(pair.a, plain_frame(MACS + KINDS[6] + packet), plain_frame(ARP))
    assert [batch.ecn for batch in sealed.batches] == [2, 0]
    _, frames = open_(pair.b, datagrams(sealed, out)[0], outer_ecn=3)
    assert frames[0][10 + 14 + 1] >> 4 & 3 == 3
    _, frames = open_(pair.b, datagrams(sealed, out)[1], outer_ecn=3)
    assert frames == [plain_frame(ARP)]


@pytest.mark.parametrize(
    ("frame", "drop"),
    [
        (bytes(10) + ARP[:13], DatapathDrop.TRUNCATED),
        (bytes([0, 1]) + bytes(8) + ARP, DatapathDrop.GSO_TYPE),
        (VirtioNetHdr(NEEDS_CSUM, 0, 0, 0, 13, 6).pack() + ARP, DatapathDrop.CHECKSUM_OFFSET),
        (VirtioNetHdr(NEEDS_CSUM, 0, 0, 0, 14, 27).pack() + ARP, DatapathDrop.CHECKSUM_OFFSET),
        (bytes(10) + ARP + bytes(65_500), DatapathDrop.TOO_LONG),
        (
            on_ethernet(
                gso_frame(4, TCP, tcp(DATA), gso_type=GSO_TCPV4, gso_size=1200), MACS + KINDS[4]
            )[:6]
            + b"\x21\0"
            + on_ethernet(
                gso_frame(4, TCP, tcp(DATA), gso_type=GSO_TCPV4, gso_size=1200), MACS + KINDS[4]
            )[8:],
            DatapathDrop.CHECKSUM_OFFSET,
        ),
    ],
)
def test_frames_that_cannot_be_sent(pair: Pair, frame: bytes, drop: DatapathDrop) -> None:
    sealed, _ = seal(pair.a, frame)
    assert (sealed.drops, sealed.packets) == ({drop: 1}, 0)


@pytest.mark.parametrize(
    ("plain", "drop"),
    [
        (ip_packet(4, UDP, udp(b"abc")), DatapathDrop.NOT_ETHERNET),
        (b"\x30\x01" + ARP, DatapathDrop.NOT_ETHERNET),
        (b"\x3f\x00" + ARP, DatapathDrop.NOT_ETHERNET),
    ],
)
def test_messages_without_a_frame(pair: Pair, plain: bytes, drop: DatapathDrop) -> None:
    opened, frames = open_(pair.b, message(plain, 0))
    assert (opened.drops, frames, opened.packets) == ({drop: 1}, [], 1)


def test_a_tunnel_of_packets_takes_no_frame(mixed: Pair) -> None:
    sealed, out = seal(mixed.a, plain_frame(ARP))
    opened, frames = open_(mixed.b, *datagrams(sealed, out))
    assert (opened.drops, frames) == ({DatapathDrop.ETHERNET: 1}, [])


def test_a_tunnel_of_frames_takes_no_packet(mixed: Pair) -> None:
    sealed, out = seal(mixed.b, plain_frame(ip_packet(4, UDP, udp(b"abc"))))
    opened, frames = open_(mixed.a, *datagrams(sealed, out))
    assert (opened.drops, frames) == ({DatapathDrop.NOT_ETHERNET: 1}, [])
