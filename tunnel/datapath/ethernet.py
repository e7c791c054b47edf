"""Where in an Ethernet frame there is an IP packet that can be split, trimmed and coalesced."""

from typing import NamedTuple

from tunnel.datapath import ip
from tunnel.datapath.drops import DatapathDrop
from tunnel.datapath.errors import PacketRefusedError
from tunnel.packet.ethernet import (
    ETHERIP,
    HEADER_LENGTH,
    IPV4,
    IPV6,
    ethertype_untrusted,
)

_VERSIONS = {IPV4: 4, IPV6: 6}


class EthernetFrame(NamedTuple):
    """`link` is the Ethernet header with its VLAN tags, `packet` an IP packet as long as it says.

    Where the frame holds none, `link` is the whole frame, and `packet` is empty.
    """

    link: bytes
    packet: bytes


def parse_untrusted(frame: bytes) -> EthernetFrame:
    """Take a frame apart. Raises PacketRefusedError (truncated) without a whole header."""
    if len(frame) < HEADER_LENGTH:
        raise PacketRefusedError(DatapathDrop.TRUNCATED)
    kind, place = ethertype_untrusted(frame)
    version = _VERSIONS.get(kind)
    if version is None or place >= len(frame) or frame[place] >> 4 != version:
        return EthernetFrame(frame, b"")
    packet = frame[place:]
    try:
        return EthernetFrame(frame[:place], packet[: ip.length_untrusted(packet)])
    except PacketRefusedError:
        return EthernetFrame(frame, b"")


def decapsulated_untrusted(plain: bytes) -> EthernetFrame:
    """Take apart the frame that a message holds.

    Raises PacketRefusedError: not_ethernet if it holds no EtherIP, truncated.
    """
    if not plain.startswith(ETHERIP):
        raise PacketRefusedError(DatapathDrop.NOT_ETHERNET)
    return parse_untrusted(plain[len(ETHERIP) :])
