"""Control messages of UDP sockets: what the kernel says of a datagram, and what we ask.

Sources: ip(7), ipv6(7), udp(7); for UDP_GRO and UDP_SEGMENT linux/udp.h.
"""

import socket
import struct
import sys
from collections.abc import Iterable
from typing import NamedTuple

from tunnel.io.endpoint import IN6_PKTINFO, IN_PKTINFO, ControlMessage, Source
from tunnel.linux import kernel

RECEIVE_SIZE = (
    socket.CMSG_SPACE(max(IN_PKTINFO.size, IN6_PKTINFO.size))
    + socket.CMSG_SPACE(4)  # TOS or TCLASS
    + socket.CMSG_SPACE(4)  # UDP_GRO
    + socket.CMSG_SPACE(64)  # to spare
)

_INT = struct.Struct("=i")
_UINT16 = struct.Struct("=H")


class ReceiveInfo(NamedTuple):
    """What came with one receive: our side of it, the GRO stride or 0, and the ECN bits."""

    source: Source | None
    stride: int
    ecn: int


def parse(messages: Iterable[ControlMessage]) -> ReceiveInfo:
    """Read all control messages of one receive; those that we did not ask for are skipped."""
    source: Source | None = None
    stride = tos = 0
    for level, kind, data in messages:
        match level, kind:
            case socket.IPPROTO_IP, kernel.IP_PKTINFO if len(data) >= IN_PKTINFO.size:
                # spec_dst, not the header's destination: that may be a broadcast address. With the
                # interface Linux would take a destination without a route there for a neighbour.
                _, address, _ = IN_PKTINFO.unpack_from(data)
                source = Source(address, 0)
            case socket.IPPROTO_IPV6, kernel.IPV6_PKTINFO if len(data) >= IN6_PKTINFO.size:
                address, ifindex = IN6_PKTINFO.unpack_from(data)
                # Nothing can be sent from a multicast address.
                if address[0] != 0xFF:
                    source = Source(address, ifindex if is_link_local(address) else 0)
            case kernel.SOL_UDP, kernel.UDP_GRO if len(data) >= 2:
                # The kernel sends an int; two bytes are what the API once promised.
                stride = _number(data)
            case (socket.IPPROTO_IP, kernel.IP_TOS) | (
                socket.IPPROTO_IPV6,
                kernel.IPV6_TCLASS,
            ) if data:
                # One byte from IPv4, an int from IPv6.
                tos = _number(data)
            case _:
                pass
    return ReceiveInfo(source, stride, tos & 0b11)


def is_link_local(address: bytes) -> bool:
    """Whether the packed IPv6 address is in fe80::/10."""
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80


def _number(data: bytes) -> int:
    return int.from_bytes(data[:4], sys.byteorder)


def tos_messages(family: socket.AddressFamily) -> list[tuple[ControlMessage, ...]]:
    """Return, for every TOS or TCLASS byte, the control messages that ask for it."""
    level, kind = (
        (socket.IPPROTO_IP, kernel.IP_TOS)
        if family == socket.AF_INET
        else (socket.IPPROTO_IPV6, kernel.IPV6_TCLASS)
    )
    asked: list[tuple[ControlMessage, ...]] = [((level, kind, _INT.pack(n)),) for n in range(256)]
    asked[0] = ()
    return asked


def segment_message(stride: int) -> ControlMessage:
    """Return the control message that asks the kernel to cut a send into `stride` bytes each."""
    return (kernel.SOL_UDP, kernel.UDP_SEGMENT, _UINT16.pack(stride))
