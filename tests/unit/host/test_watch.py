"""The parser of link messages, on messages built here."""

import errno
import socket
import struct

from tunnel.host.watch import LinkEvent, LinkGone, LinkStatus, parse_link_messages


def message(
    kind: int, index: int = 7, flags: int = 1, family: int = socket.AF_UNSPEC, **attributes: bytes
) -> bytes:
    numbers = {"name": 3, "mtu": 4, "netns": 45, "other": 200}
    body = struct.pack("=BxHiII", family, 0, index, flags, 0)
    for name, value in attributes.items():
        body += struct.pack("=HH", 4 + len(value), numbers[name]) + value
        body += bytes(-len(value) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def events(data: bytes) -> list[LinkEvent]:
    return list(parse_link_messages(data, 7))


NEW = message(16, name=b"tun0\0", other=b"xyz", mtu=struct.pack("=I", 1420))


def test_messages_of_our_interface() -> None:
    assert events(NEW) == [LinkStatus("tun0", 1420, up=True)]
    down = message(16, flags=0, name=b"wg-1\0", mtu=struct.pack("=I", 1280))
    assert events(NEW + down + message(17)) == [
        LinkStatus("tun0", 1420, up=True),
        LinkStatus("wg-1", 1280, up=False),
        LinkGone(moved=False),
    ]
    assert events(message(17, netns=struct.pack("=i", 0))) == [LinkGone(moved=True)]


def test_others_are_passed_over() -> None:
    assert events(message(17, index=8) + message(17, family=socket.AF_BRIDGE) + message(24)) == []


def test_answer_that_there_is_none() -> None:
    for code, expected in ((errno.ENODEV, [LinkGone(moved=False)]), (0, [])):
        data = struct.pack("=IHHIIi", 20, 2, 0, 0, 0, -code)
        assert events(data) == expected


def test_cut_short() -> None:
    for length in range(len(NEW)):
        assert events(NEW[:length]) == []
    assert events(struct.pack("=IHHII", 3, 16, 0, 0, 0)) == []
