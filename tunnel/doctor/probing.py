"""Echo requests through the tunnel: who answers, and up to which size."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterable
from ipaddress import ip_address

import trio

from tunnel.linux import kernel
from tunnel.packet.checksum import checksum
from tunnel.packet.headers import ICMP, ICMPV6, UDP, Headers, header_length

ECHO = {4: (8, 0), 6: (128, 129)}
"""ICMP types of request and reply, by IP version."""
HEADERS = {4: 28, 6: 48}
"""Bytes of IP and ICMP header, by IP version."""
SMALL = 84
"""Bytes of an ordinary probe: what `ping` sends, and within every MTU there is."""

UNREACHABLE = {4: 3, 6: 1}
"""ICMP type Destination Unreachable, by IP version (RFC 792, RFC 4443)."""
WORDS = {
    4: {
        0: "network unreachable",
        1: "host unreachable",
        3: "nothing listens on that port",
        13: "a firewall on the way forbids it",
    },
    6: {
        0: "no route",
        1: "a firewall on the way forbids it",
        3: "host unreachable",
        4: "nothing listens on that port",
    },
}
MAX_REFUSALS = 1000

TRIES = 4
PAUSE = 0.4
"""Seconds between two tries of one size."""


class Pinger:
    """Sends echo requests out of one interface, whatever the routes say; `opened` makes one."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self.identifier = int.from_bytes(os.urandom(2), "big")
        """The ICMP identifier of our requests, and so of their answers."""
        self._sockets: dict[int, trio.socket.SocketType] = {}
        self._ears: dict[int, trio.socket.SocketType] = {}
        self._sent: dict[int, tuple[str, int]] = {}
        self._sequence = 0
        self._answered: set[tuple[str, int]] = set()
        self._news = trio.Event()
        self.errors: dict[str, str] = {}
        """Why the kernel did not take requests to an address, the latest reason."""
        self.refusals: dict[str, str] = {}
        """What ICMP said, on any interface, of UDP datagrams to `address port`."""

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, interface: str, source: str | None = None) -> AsyncIterator[Pinger]:
        """A pinger that listens while the `with` block runs, and sends from the address `source`.

        OSError without the right to.
        """
        pinger = cls(interface)
        try:
            for version in (4, 6) if source is None else (ip_address(source).version,):
                with contextlib.suppress(OSError) if version == 6 else contextlib.nullcontext():
                    pinger._sockets[version] = _open(version, interface)
                    if source is not None:
                        await pinger._sockets[version].bind((source, 0))
                    pinger._ears[version] = _open(version, None)
            async with trio.open_nursery() as nursery:
                for version in pinger._sockets:
                    nursery.start_soon(pinger._listen, version)
                for version in pinger._ears:
                    nursery.start_soon(pinger._listen_for_refusals, version)
                yield pinger
                nursery.cancel_scope.cancel()
        finally:
            for opened in (*pinger._sockets.values(), *pinger._ears.values()):
                opened.close()

    async def _listen(self, version: int) -> None:
        while True:
            try:
                data, (source, *_) = await self._sockets[version].recvfrom(65536)
            except OSError:  # the interface was set down, or has gone
                await trio.sleep(PAUSE)
                continue
            if version == 4:
                data = data[header_length(data) :]
            if len(data) < 8 or data[0] != ECHO[version][1]:
                continue
            identifier, sequence = struct.unpack_from("!HH", data, 4)
            if identifier == self.identifier and sequence in self._sent:
                address, size = self._sent[sequence]
                if ip_address(source.partition("%")[0]) == ip_address(address):
                    self._answered.add((address, size))
                    self._news.set()
                    self._news = trio.Event()

    async def _listen_for_refusals(self, version: int) -> None:
        while True:
            try:
                data = await self._ears[version].recv(65536)
            except OSError:
                await trio.sleep(PAUSE)
                continue
            refusal = parse_refusal_untrusted(data, version)
            if refusal is not None and len(self.refusals) < MAX_REFUSALS:
                self.refusals[refusal[0]] = refusal[1]

    async def send(self, address: str, size: int = SMALL) -> None:
        """One request that is a packet of `size` bytes; a refusal goes to `errors`."""
        version = ip_address(address).version
        self._sequence = (self._sequence + 1) & 0xFFFF
        self._sent[self._sequence] = (address, size)
        # Type, code, checksum (the kernel fills in that of ICMPv6), identifier, sequence number.
        fields = (ECHO[version][0], 0, 0, self.identifier, self._sequence)
        packet = bytearray(struct.pack("!BBHHH", *fields))
        packet += bytes(max(0, size - HEADERS[version]))
        if version == 4:
            packet[2:4] = checksum(bytes(packet)).to_bytes(2, "big")
        opened = self._sockets.get(version)
        if opened is None:
            self.errors[address] = f"IPv{version} is not available"
            return
        try:
            await opened.sendto(packet, (address, 0))
        except OSError as error:
            self.errors[address] = f"sending to it: {error.strerror or error}"
        else:
            self.errors.pop(address, None)

    def has_answered(self, address: str, size: int = SMALL) -> bool:
        """Whether a request of that size was answered."""
        return (address, size) in self._answered

    async def wait_for_answer(self, address: str, size: int, seconds: float) -> bool:
        """Wait for one at most so long; whether it came."""
        with trio.move_on_after(seconds):
            while not self.has_answered(address, size):
                await self._news.wait()
        return self.has_answered(address, size)

    async def largest(self, address: str, sizes: Iterable[int]) -> int:
        """The largest of the sizes that is answered, several tries each; 0 if none is."""
        wanted = sorted(set(sizes), reverse=True)
        for _ in range(TRIES):
            for size in wanted:
                if not self.has_answered(address, size):
                    await self.send(address, size)
            if await self.wait_for_answer(address, wanted[0], PAUSE):
                return wanted[0]
        await trio.sleep(PAUSE)
        return max((size for size in wanted if self.has_answered(address, size)), default=0)

    async def find_size(self, address: str, mtu: int) -> int:
        """The largest packet that is answered, to 4 bytes; 0 if not even small ones are."""
        if await self.largest(address, [mtu]):
            return mtu
        coarse = await self.largest(address, [*range(576, mtu, 32), SMALL])
        if not coarse:
            return 0
        fine = await self.largest(address, [n for n in range(coarse, coarse + 32, 4) if n < mtu])
        return max(coarse, fine)


def parse_refusal_untrusted(data: bytes, version: int) -> tuple[str, str] | None:
    """`address port` of a UDP datagram that could not be delivered, and why; else None.

    `data` is what a raw socket gives: for IPv4 it begins with the IP header.
    """
    outer = header_length(data) if version == 4 and data else 0
    error, inner = data[outer : outer + 8], Headers.parse(data[outer + 8 :])
    if len(error) < 8 or error[0] != UNREACHABLE[version]:
        return None
    if inner is None or inner.protocol != UDP or inner.ports is None:
        return None
    words = WORDS[version].get(error[1], f"destination unreachable, code {error[1]}")
    return f"{ip_address(inner.destination)} {inner.ports[1]}", words


def _open(version: int, interface: str | None) -> trio.socket.SocketType:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    opened = trio.socket.socket(family, socket.SOCK_RAW, ICMP if version == 4 else ICMPV6)
    if interface is not None:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    # Never fragment, and do not believe what was learnt of the path before.
    if version == 4:
        opened.setsockopt(socket.IPPROTO_IP, kernel.IP_MTU_DISCOVER, kernel.IP_PMTUDISC_PROBE)
    else:
        opened.setsockopt(socket.IPPROTO_IPV6, kernel.IPV6_MTU_DISCOVER, kernel.IPV6_PMTUDISC_PROBE)
    return opened
