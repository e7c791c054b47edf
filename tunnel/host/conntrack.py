"""Where a datagram was sent to before its destination was translated, from connection tracking."""

from __future__ import annotations

import socket

_UDP = socket.IPPROTO_UDP


def original_destination(source: tuple[str, int], here: tuple[str, int]) -> tuple[str, int] | None:
    """Where a UDP datagram from `source` (IPv4 address, port) went that has reached us at `here`.

    None if the kernel does not know, or cannot be asked. Blocks, for some microseconds.
    """
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

    reply = NFCTAttrTuple(
        saddr=here[0], daddr=source[0], proto=_UDP, sport=here[1], dport=source[1]
    )
    try:
        with NFCTSocket() as netlink:
            answers = netlink.entry("get", tuple_reply=reply)
    except (NetlinkError, OSError):
        return None
    for answer in answers:  # the last one acknowledges the request
        original = answer.get_attr("CTA_TUPLE_ORIG")
        if original is not None:
            address = original.get_attr("CTA_TUPLE_IP").get_attr("CTA_IP_V4_DST")
            port = original.get_attr("CTA_TUPLE_PROTO").get_attr("CTA_PROTO_DST_PORT")
            return str(address), int(port)
    return None
