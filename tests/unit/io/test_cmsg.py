import socket
import struct

from tunnel.io import cmsg
from tunnel.io.endpoint import Source
from tunnel.linux import kernel

IP, IPV6, UDP = socket.IPPROTO_IP, socket.IPPROTO_IPV6, kernel.SOL_UDP
PKTINFO = struct.pack("=I4s4s", 7, bytes([192, 0, 2, 1]), bytes([255] * 4))


def test_no_control_messages() -> None:
    assert cmsg.parse([]) == cmsg.ReceiveInfo(None, 0, 0)


def test_all_messages_are_walked_whatever_their_order() -> None:
    messages = [
        (99, 99, b"whatever"),
        (IP, kernel.IP_TOS, b"\x8b"),
        (UDP, kernel.UDP_GRO, struct.pack("=i", 1452)),
        (IP, kernel.IP_PKTINFO, PKTINFO),
    ]
    expected = cmsg.ReceiveInfo(Source(bytes([192, 0, 2, 1]), 0), 1452, 0b11)
    assert cmsg.parse(messages) == expected
    assert cmsg.parse(reversed(messages)) == expected


def test_ipv6() -> None:
    ours = socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    messages = [
        (IPV6, kernel.IPV6_PKTINFO, ours + struct.pack("=I", 3)),
        (IPV6, kernel.IPV6_TCLASS, struct.pack("=i", 0x89)),
    ]
    assert cmsg.parse(messages) == cmsg.ReceiveInfo(Source(ours, 0), 0, 1)


def test_only_a_link_local_source_keeps_its_interface() -> None:
    """The route decides by which interface a reply leaves; fe80::1 means nothing without one."""
    for text, ifindex in (("fe80::1", 3), ("febf::1", 3), ("fec0::1", 0), ("fd00::1", 0)):
        ours = socket.inet_pton(socket.AF_INET6, text)
        messages = [(IPV6, kernel.IPV6_PKTINFO, ours + struct.pack("=I", 3))]
        assert cmsg.parse(messages).source == Source(ours, ifindex)


def test_multicast_is_no_source() -> None:
    group = socket.inet_pton(socket.AF_INET6, "ff02::1")
    messages = [(IPV6, kernel.IPV6_PKTINFO, group + struct.pack("=I", 3))]
    assert cmsg.parse(messages).source is None


def test_short_messages_are_skipped() -> None:
    messages = [
        (IP, kernel.IP_PKTINFO, b"\0" * 11),
        (IPV6, kernel.IPV6_PKTINFO, b"\0" * 19),
        (UDP, kernel.UDP_GRO, b"\0"),
        (IP, kernel.IP_TOS, b""),
    ]
    assert cmsg.parse(messages) == cmsg.ReceiveInfo(None, 0, 0)


def test_no_tos_costs_no_message() -> None:
    assert cmsg.tos_messages(socket.AF_INET)[0] == ()
    assert cmsg.tos_messages(socket.AF_INET6)[0x88] == (
        (IPV6, kernel.IPV6_TCLASS, struct.pack("=i", 0x88)),
    )
