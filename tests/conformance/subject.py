"""What the judge asks of an implementation: its UAPI, its interface, and datagrams to its port."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import trio

from .wire import Arrival


class SubjectError(Exception):
    """The implementation cannot be asked: it did not start, ended, or its UAPI does not answer."""


@dataclass(frozen=True)
class PeerState:
    """A peer as `get` shows it. Values as text, by their UAPI keys; `allowed_ips` by themselves."""

    values: dict[str, str]
    allowed_ips: tuple[str, ...]

    def number(self, key: str) -> int:
        return int(self.values.get(key, "0"))


@dataclass(frozen=True)
class DeviceState:
    """The answer to a `get`. Peers by their public keys."""

    values: dict[str, str] = field(default_factory=dict)
    peers: dict[bytes, PeerState] = field(default_factory=dict)

    @classmethod
    def parse(cls, answer: str) -> DeviceState:
        values: dict[str, str] = {}
        device = values
        peers: dict[bytes, dict[str, str]] = {}
        allowed: dict[bytes, list[str]] = {}
        key = b""
        for line in answer.splitlines():
            name, _, value = line.partition("=")
            if name == "public_key":
                key = bytes.fromhex(value)
                values = peers.setdefault(key, {})
                allowed[key] = []
            elif name == "allowed_ip":
                allowed[key].append(value)
            elif name != "errno":
                values[name] = value
        found = {key: PeerState(peers[key], tuple(allowed[key])) for key in peers}
        return cls(device, found)


class Wire(Protocol):
    """A UDP socket that sends to the subject's port."""

    address: str
    port: int

    async def send(self, data: bytes, *, tos: int = 0) -> None:
        """Send one datagram."""

    async def send_many(self, data: bytes, count: int) -> None:
        """Send the same datagram `count` times at once, as fast as it goes."""

    async def receive(self) -> list[Arrival]:
        """The next datagrams of the subject, at least one."""

    def close(self) -> None:
        """Close the socket."""


class Subject(Protocol):
    """An implementation with one interface, which is up, and no peers."""

    delivered: trio.MemoryReceiveChannel[tuple[float, bytes]]
    """What it hands to the machine: when, and the inner packet."""

    async def uapi(self, request: str) -> str:
        """One operation of the UAPI; the answer. Raises SubjectError."""

    async def inject(self, inner: bytes) -> None:
        """Let an application send this packet through the interface."""

    async def set_link(self, *, up: bool) -> None:
        """Set the interface up or down."""

    async def open_wire(self, address: str, port: int = 0) -> Wire:
        """A socket bound to that address of the machine."""

    def check(self) -> None:
        """Raise SubjectError if it has ended."""
