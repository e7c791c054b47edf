"""What leaves a host by an interface, frame by frame, and what of it is none of a tunnel's."""

from __future__ import annotations

import ipaddress
import socket
import struct
from types import TracebackType
from typing import Self

from tunnel.lab import Host

_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_RCVBUFFORCE = 33
_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_ICMPV6_NEIGHBOUR = range(133, 138)
_MULTICAST_LISTENER = b"\x3a\x00\x05\x02\x00\x00"
"""A hop-by-hop header with a router alert: reports of the groups that ND itself listens to."""


class Outgoing:
    """Every frame that `host` sends by `interface` during the `with`.

    `tunnelled` counts the bytes that go to the endpoints, `strangers` has all that has no business
    there, in hexadecimal.
    """

    def __init__(self, host: Host, interface: str = "eth0") -> None:
        self._socket = host.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        # A test's traffic is some megabytes at most; nothing may be missed.
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        self._socket.bind((interface, _ETH_P_ALL))
        self._socket.setblocking(False)
        self.tunnelled = 0
        self.strangers: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def read(self, *endpoints: tuple[str, int]) -> None:
        """Sort what has been sent so far: to one of these addresses and ports by UDP, or not."""
        places = {(ipaddress.ip_address(address).packed, port) for address, port in endpoints}
        while True:
            try:
                frame, sender = self._socket.recvfrom(70_000)
            except BlockingIOError:
                break
            if sender[2] != socket.PACKET_OUTGOING:
                continue
            if _is_to(frame, places):
                self.tunnelled += len(frame)
            elif not _is_neighbour_business(frame):
                self.strangers.append(frame[:80].hex(" "))
        statistics = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        _, missed = struct.unpack("=II", statistics)
        assert missed == 0, "the capture has a gap"


def _is_to(frame: bytes, places: set[tuple[bytes, int]]) -> bool:
    (kind,) = struct.unpack_from(">H", frame, 12)
    if kind == _IPV4:
        protocol, address, ports = frame[23], frame[30:34], 14 + (frame[14] & 15) * 4
        fragment = int.from_bytes(frame[20:22], "big") & 0x1FFF
        if fragment:
            return protocol == socket.IPPROTO_UDP and address in {place[0] for place in places}
    elif kind == _IPV6:
        protocol, address, ports = frame[20], frame[38:54], 54
    else:
        return False
    port = int.from_bytes(frame[ports + 2 : ports + 4], "big")
    return protocol == socket.IPPROTO_UDP and (address, port) in places


def _is_neighbour_business(frame: bytes) -> bool:
    (kind,) = struct.unpack_from(">H", frame, 12)
    if kind == _ARP:
        return True
    if kind != _IPV6:
        return False
    if frame[20] == socket.IPPROTO_ICMPV6:
        return frame[54] in _ICMPV6_NEIGHBOUR
    return frame[20] == 0 and frame[54:60] == _MULTICAST_LISTENER
