"""Two of our ends with Mode = tap."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

from tests.support.daemons import rewrite
from tests.support.hosts import TwoHosts
from tests.support.pairs import OUTER
from tunnel.lab import Host
from tunnel.lab.peers import Node, OurEnd, mesh

VLAN = 7
PACKET_AUXDATA = 8
AUXDATA = struct.Struct("=IIIHHHH")
"""struct tpacket_auxdata of linux/if_packet.h; the last two are the tag and its type."""


def make_ends(two: TwoHosts, *settings: str, routes: str = "") -> tuple[OurEnd, OurEnd]:
    """Two ends with Mode = tap and `settings`, not up; b is reachable for `routes`, too."""
    a = Node(two.a, ("10.77.0.1/24", "fd77::1/64"), OUTER[4][0])
    more = (routes,) if routes else ()
    b = Node(two.b, ("10.77.0.2/24", "fd77::2/64"), OUTER[4][1], routes=more)
    ends = list(mesh([a, b]).values())
    for end in ends:
        assert isinstance(end, OurEnd)
        rewrite(end, "[Peer]\n", "\n".join(("[Tunnel]", "Mode = tap", *settings, "", "[Peer]", "")))
    one, other = ends
    assert isinstance(one, OurEnd)
    assert isinstance(other, OurEnd)
    return one, other


def check_tagged(sender: Host, receiver: Host, size: int) -> None:
    """A frame with a VLAN tag and a packet of `size` bytes crosses as it is.

    From socket to socket: there may be no VLAN devices in this kernel.
    """
    links = [host.ip_json(["link", "show", "wg0"])[0] for host in (sender, receiver)]
    source, target = (bytes.fromhex(link["address"].replace(":", "")) for link in links)
    ours, theirs = (ip_address(f"10.77.0.{each}").packed for each in (1, 2))
    addresses = ours + theirs if sender.name == "a" else theirs + ours
    packet = b"\x45\0" + size.to_bytes(2, "big") + bytes(4) + b"\x40\xfd\0\0" + addresses
    packet = packet.ljust(size, b"x")
    tag = b"\x81\0" + VLAN.to_bytes(2, "big")
    raw = socket.AF_PACKET, socket.SOCK_RAW
    with sender.socket(*raw, 0) as out, receiver.socket(*raw, 0) as back:
        back.setsockopt(263, PACKET_AUXDATA, 1)
        back.bind(("wg0", 3))
        back.settimeout(10)
        out.bind(("wg0", 0))
        out.send(target + source + tag + b"\x08\0" + packet)
        while True:
            data, ancillary, *_ = back.recvmsg(2000, 100)
            if data[14:] == packet:
                break
        # The kernel keeps the tag beside the frame.
        assert data[:14] == target + source + b"\x08\0"
        assert AUXDATA.unpack(ancillary[0][2])[5:] == (VLAN, 0x8100)
