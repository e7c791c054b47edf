"""Frames of the TUN that go to no peer: without an allowed IP, or our own datagrams come back."""

from __future__ import annotations

from contextlib import suppress

from tunnel.datapath import VIRTIO_NET_HDR_LEN
from tunnel.datapath.virtio import NO_OFFLOAD, VirtioNetHdr
from tunnel.io.errors import TunWriteDropped
from tunnel.linux.kernel import IPV6_MIN_MTU
from tunnel.packet.headers import HEADER_ROOM, UDP, Headers
from tunnel.packet.icmp import unreachable
from tunnel.protocol import ProtocolDrop
from tunnel.protocol.budget import Budget

from .shared import Shared

ICMP_RATE = 1000.0
ICMP_BURST = 50.0
"""ICMP errors in a second, and at once: net.ipv4.icmp_msgs_per_sec and icmp_msgs_burst of Linux."""

_LONGEST_QUOTE = IPV6_MIN_MTU
_FRAGMENT = 44  # next header of RFC 8200, section 4.5


class NoWay:
    """What becomes of such frames. Each is counted."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._errors = Budget(ICMP_RATE, ICMP_BURST)

    def is_loop(self, frame: memoryview, link: int = 0) -> bool:
        """Whether `frame`, to the address of a peer's endpoint, holds datagrams of ours to it.

        Then they are counted: the route to the endpoint leads into the tunnel. Carried, they would
        come back for ever. They are recognised by the session that they belong to, since another
        WireGuard behind us may use our very port. `link` bytes of Ethernet are before the packet.
        """
        packet = bytes(frame[VIRTIO_NET_HDR_LEN + link :][:HEADER_ROOM])
        headers = Headers.parse(_without_fragment_header(packet))
        if headers is None or headers.protocol != UDP or headers.ports is None:
            return False
        message, port = headers.wireguard, headers.ports[1]
        if message is None:
            return False
        for peer in self._shared.interface.peers_at.get(headers.destination, ()):
            endpoint = peer.endpoint
            if endpoint is None or endpoint.port != port or not peer.has_sent(*message[:2]):
                continue
            peer.handle_loop(endpoint, _datagrams(frame))
            return True
        return False

    def handle_no_peer(self, frame: memoryview, destination: bytes) -> ProtocolDrop:
        """Count `frame`, and answer as a router does; the kernel's WireGuard does so, too. The
        reason of the drop.
        """
        if _is_for_link(destination):
            self._shared.interface.count_drop(ProtocolDrop.LINK_MULTICAST)
            return ProtocolDrop.LINK_MULTICAST
        self._shared.interface.count_drop(ProtocolDrop.NO_PEER)
        self._answer(frame)
        return ProtocolDrop.NO_PEER

    def _answer(self, frame: memoryview) -> None:
        now = self._shared.clock()
        if not self._errors.has_room(now):
            return
        answer = unreachable(bytes(frame[VIRTIO_NET_HDR_LEN:][:_LONGEST_QUOTE]))
        if answer is not None:
            self._errors.take(now)
            # An answer that finds no room, or no interface, is missed by no one.
            with suppress(TunWriteDropped):
                self._shared.tun.write(NO_OFFLOAD + answer)


def _is_for_link(destination: bytes) -> bool:
    """Whether it is a group of 224.0.0.0/24 or ff02::/16: no router forwards what is sent there."""
    if len(destination) == 4:
        return destination[:3] == b"\xe0\0\0"
    return destination[0] == 0xFF and destination[1] & 0xF == 2


def _without_fragment_header(packet: bytes) -> bytes:
    """The first fragment of a datagram over IPv6 as if it were whole.

    In a loop the datagrams grow past the MTU. (Over IPv4 nothing is in between.)
    """
    if (
        packet[0] >> 4 != 6
        or packet[6] != _FRAGMENT
        or len(packet) < 48
        or packet[42]
        or packet[43] & 0xF8
    ):
        return packet
    return packet[:6] + packet[40:41] + packet[7:40] + packet[48:]


def _datagrams(frame: memoryview) -> int:
    """How many datagrams one frame of UDP holds."""
    header = VirtioNetHdr.unpack_untrusted(frame)
    if not header.gso_size:
        return 1
    payload = len(frame) - VIRTIO_NET_HDR_LEN - header.hdr_len
    return max(1, -(-payload // header.gso_size))
