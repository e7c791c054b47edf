"""Datagrams and inner packets: what the peer reads and writes."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_address

EXPERIMENT = 253
"""The protocol of inner packets (RFC 3692): no stack answers it and no offload joins it."""


class Kind(IntEnum):
    """The four types of messages; OTHER is anything else."""

    OTHER = 0
    INITIATION = 1
    RESPONSE = 2
    COOKIE_REPLY = 3
    DATA = 4

    @property
    def title(self) -> str:
        return self.name.lower().replace("_", " ")


LENGTHS = {Kind.INITIATION: 148, Kind.RESPONSE: 92, Kind.COOKIE_REPLY: 64}
KEEPALIVE = 32
"""Bytes of a keepalive."""


@dataclass(frozen=True)
class Arrival:
    """A datagram of the subject: when it came, and with which TOS byte."""

    at: float
    data: bytes
    tos: int = 0

    @property
    def kind(self) -> Kind:
        """What its first four bytes and its length make it."""
        first = int.from_bytes(self.data[:4], "little")
        if first == Kind.DATA and len(self.data) >= KEEPALIVE:
            return Kind.DATA
        known = {kind for kind, length in LENGTHS.items() if len(self.data) == length}
        return Kind(first) if first in known else Kind.OTHER

    @property
    def is_keepalive(self) -> bool:
        return self.kind is Kind.DATA and len(self.data) == KEEPALIVE

    @property
    def sender(self) -> int:
        """The sender's index, in the two handshake messages."""
        return int.from_bytes(self.data[4:8], "little")

    @property
    def receiver(self) -> int:
        """The receiver's index."""
        at = 8 if self.kind is Kind.RESPONSE else 4
        return int.from_bytes(self.data[at : at + 4], "little")

    @property
    def counter(self) -> int:
        """The counter of a transport message."""
        return int.from_bytes(self.data[8:16], "little")

    @property
    def title(self) -> str:
        return "keepalive" if self.is_keepalive else f"{self.kind.title} of {len(self.data)} B"


class Stamps:
    """TAI64N timestamps, each later than the one before it by 2^24 ns at least."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> bytes:
        step = 1 << 24
        self._last = max(time.time_ns() // step * step, self._last + step)
        return self.encode(self._last)

    @staticmethod
    def encode(unix_ns: int) -> bytes:
        seconds, nanoseconds = divmod(unix_ns, 1_000_000_000)
        return (seconds + (1 << 62) + 10).to_bytes(8, "big") + nanoseconds.to_bytes(4, "big")


def packet(source: str, destination: str, serial: int = 0, *, size: int = 0, ecn: int = 0) -> bytes:
    """An inner packet of `size` bytes (at least 8 after its header) that carries `serial`."""
    src, dst = ip_address(source), ip_address(destination)
    head = 20 if src.version == 4 else 40
    length = max(size, head + 8)
    payload = serial.to_bytes(8, "big") + bytes(length - head - 8)
    if src.version == 6:
        first = (6 << 28 | ecn << 20).to_bytes(4, "big")
        rest = len(payload).to_bytes(2, "big") + bytes([EXPERIMENT, 64])
        return first + rest + src.packed + dst.packed + payload
    header = bytes([0x45, ecn]) + length.to_bytes(2, "big") + bytes([0, 0, 0, 0, 64, EXPERIMENT])
    header += bytes(2) + src.packed + dst.packed
    check = checksum(header)
    return header[:10] + check.to_bytes(2, "big") + header[12:] + payload


def checksum(data: bytes) -> int:
    """The Internet checksum of an even number of bytes (RFC 1071)."""
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def serial_of(inner: bytes) -> int | None:
    """The serial of a packet of ours; None for another one."""
    head = {4: 20, 6: 40}.get(inner[0] >> 4 if inner else 0)
    if head is None or len(inner) < head + 8:
        return None
    protocol = inner[9] if head == 20 else inner[6]
    return int.from_bytes(inner[head : head + 8], "big") if protocol == EXPERIMENT else None


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
