"""Packets, frames and datagrams for the tests of the datapaths."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tests.support.packets import ones_sum
from tunnel import datapath
from tunnel.datapath import OPEN_OUT_SIZE, SEAL_OUT_SIZE, Opened, Sealed, Session
from tunnel.datapath.virtio import GSO_NONE, NEEDS_CSUM, VirtioNetHdr

A_KEY, B_KEY = b"a" * 32, b"b" * 32


TCP, UDP = 6, 17


SYN, PSH, ACK, FIN, CWR = 0x02, 0x08, 0x10, 0x01, 0x80


def every_datapath() -> list[tuple[str, str | None]]:
    """Name and cipher of each datapath that can be used here, for `datapath.load`."""
    found: list[tuple[str, str | None]] = []
    for name in datapath.available():
        for cipher in datapath.CIPHERS if name == "native" else (None,):
            with contextlib.suppress(datapath.UnknownDatapathError):
                datapath.load(name, cipher)
                found.append((name, cipher))
    return found


MakePair: TypeAlias = Callable[..., "Pair"]


class Pair(NamedTuple):
    """Two ends of one session."""

    a: Session
    b: Session


def seal(session: Session, *frames: bytes, mtu: int = 1420) -> tuple[Sealed, bytearray]:
    """Seal frames that lie back to back in one buffer."""
    buffer, spans = b"".join(frames), []
    start = 0
    for frame in frames:
        spans.append((start, start + len(frame)))
        start += len(frame)
    out = bytearray(SEAL_OUT_SIZE)
    return session.seal(buffer, spans, mtu, out), out


def datagrams(sealed: Sealed, out: bytearray) -> list[bytes]:
    """Every datagram by itself."""
    return [
        bytes(out[at : min(at + batch.stride, batch.end)])
        for batch in sealed.batches
        for at in range(batch.start, batch.end, batch.stride)
    ]


def plaintext(datagram: bytes, key: bytes = A_KEY) -> bytes:
    """What is in a datagram, by the library alone."""
    return ChaCha20Poly1305(key).decrypt(bytes(4) + datagram[8:16], datagram[16:], None)


def message(packet: bytes, counter: int, *, key: bytes = A_KEY, receiver: int = 2) -> bytes:
    """A datagram made by the library alone, with `packet` padded to 16 bytes."""
    padded = packet + bytes(-len(packet) % 16)
    head = b"\4\0\0\0" + receiver.to_bytes(4, "little") + counter.to_bytes(8, "little")
    return head + ChaCha20Poly1305(key).encrypt(bytes(4) + head[8:], padded, None)


def open_(
    session: Session, *messages: bytes, outer_ecn: int = 0, **options: datapath.Offload
) -> tuple[Opened, list[bytes]]:
    """Open datagrams of one length (the last may be shorter); the frames by themselves."""
    data = bytearray(b"".join(messages))
    out = bytearray(max(OPEN_OUT_SIZE, len(data)))
    opened = session.open(data, 0, len(data), len(messages[0]), out, outer_ecn=outer_ecn, **options)
    return opened, [bytes(out[start:end]) for start, end in opened.frames]


def ip_packet(
    version: int, protocol: int, transport: bytes, *, identification: int = 7, tos: int = 0
) -> bytes:
    """An IP packet with a right header checksum and DF clear; addresses are fixed."""
    if version == 6:
        head = (6 << 28 | tos << 20).to_bytes(4, "big") + len(transport).to_bytes(2, "big")
        return head + bytes([protocol, 64]) + addresses(6) + transport
    total = 20 + len(transport)
    head = bytes([0x45, tos]) + total.to_bytes(2, "big") + identification.to_bytes(2, "big")
    head += bytes([0, 0, 64, protocol])
    check = 0xFFFF - ones_sum(head + bytes(2) + addresses(4))
    return head + check.to_bytes(2, "big") + addresses(4) + transport


def addresses(version: int) -> bytes:
    """Source and destination."""
    if version == 4:
        return bytes([10, 0, 0, 1, 10, 0, 0, 2])
    return bytes(15) + b"\1" + bytes(15) + b"\2"


def pseudo_sum(version: int, protocol: int, length: int) -> int:
    return ones_sum(addresses(version) + protocol.to_bytes(2, "big") + length.to_bytes(2, "big"))


def tcp(payload: bytes, *, sequence: int = 1000, flags: int = ACK, options: bytes = b"") -> bytes:
    """A TCP segment whose checksum field is zero."""
    offset = (20 + len(options)) // 4
    return (
        b"\x04\xd2\x00\x50"
        + sequence.to_bytes(4, "big")
        + (77).to_bytes(4, "big")
        + bytes([offset << 4, flags])
        + b"\x01\x00\0\0\0\0"
        + options
        + payload
    )


def udp(payload: bytes) -> bytes:
    """A UDP datagram whose checksum field is zero."""
    return b"\x04\xd2\x00\x35" + (8 + len(payload)).to_bytes(2, "big") + b"\0\0" + payload


def with_checksum(version: int, protocol: int, transport: bytes) -> bytes:
    """The transport packet with its checksum, computed the slow way."""
    at = 16 if protocol == TCP else 6
    total = ones_sum(transport) + pseudo_sum(version, protocol, len(transport))
    check = 0xFFFF - (total % 0xFFFF or 0xFFFF) or 0xFFFF
    return transport[:at] + check.to_bytes(2, "big") + transport[at + 2 :]


def gso_frame(
    version: int, protocol: int, transport: bytes, *, gso_type: int, gso_size: int, tos: int = 0
) -> bytes:
    """A frame as the kernel gives it: pseudo-header sum in place of the checksum."""
    at = 16 if protocol == TCP else 6
    check = pseudo_sum(version, protocol, len(transport))
    transport = transport[:at] + check.to_bytes(2, "big") + transport[at + 2 :]
    header = VirtioNetHdr(NEEDS_CSUM, gso_type, 9999, gso_size, 20 if version == 4 else 40, at)
    return header.pack() + ip_packet(version, protocol, transport, tos=tos)


def plain_frame(packet: bytes) -> bytes:
    """A frame with nothing left to do."""
    return VirtioNetHdr(0, GSO_NONE).pack() + packet
