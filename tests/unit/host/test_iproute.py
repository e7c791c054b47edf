"""rtnetlink's answers: in parts, interrupted, and errors."""

from __future__ import annotations

import errno
import struct
from collections import deque
from typing import Any

import pytest

from tunnel.host.iproute import IPRoute
from tunnel.host.rtnetlink import find_ifindex

MULTI, INTERRUPTED = 0x2, 0x10
NEWADDR, ERROR, DONE = 20, 2, 3


def message(kind: int, body: bytes, flags: int = MULTI) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body


def address(index: int, flags: int = MULTI) -> bytes:
    """An address of the interface `index`: struct ifaddrmsg and IFA_ADDRESS."""
    attribute = struct.pack("=HH4s", 8, 1, bytes([10, 0, 0, index]))
    return message(NEWADDR, struct.pack("=BBBBI", 2, 24, 0, 0, index) + attribute, flags)


def number(error: int) -> bytes:
    return struct.pack("=i", -error)


class FakeSocket:
    """A kernel that gives these datagrams, and counts the requests."""

    def __init__(self, *datagrams: bytes) -> None:
        self.datagrams = deque(datagrams)
        self.requests: list[bytes] = []

    def send(self, data: bytes) -> int:
        self.requests.append(bytes(data))
        return len(data)

    def recv(self, _size: int) -> bytes:
        return self.datagrams.popleft()

    def close(self) -> None:
        """Nothing to close."""


def opened(fake: FakeSocket) -> IPRoute:
    netlink: Any = IPRoute()
    netlink._socket.close()
    netlink._socket = fake
    return netlink  # type: ignore[no-any-return]


def test_a_list_comes_in_parts_and_is_that_of_one_interface_if_asked_for() -> None:
    fake = FakeSocket(address(1) + address(2), address(2), message(DONE, number(0)))
    with opened(fake) as netlink:
        found = netlink.addr("dump", index=2)
    assert [each["index"] for each in found] == [2, 2]
    assert [each.get_attr("IFA_ADDRESS") for each in found] == ["10.0.0.2"] * 2
    assert not fake.datagrams


def test_a_list_that_changed_meanwhile_is_asked_for_again() -> None:
    done = message(DONE, number(0))
    fake = FakeSocket(address(1), address(3, MULTI | INTERRUPTED) + done, address(1) + done)
    with opened(fake) as netlink:
        assert [each["index"] for each in netlink.addr("dump")] == [1]
    assert len(fake.requests) == 2


@pytest.mark.parametrize("kind", [ERROR, DONE])
def test_what_the_kernel_refuses_is_an_oserror(kind: int) -> None:
    refusal = FakeSocket(message(kind, number(errno.EPERM), 0))
    with opened(refusal) as netlink, pytest.raises(PermissionError):
        netlink.link("dump")
    with opened(FakeSocket(message(ERROR, number(errno.ENODEV), 0))) as netlink:
        assert find_ifindex(netlink, "none") is None


def test_requests_are_those_of_pyroute2() -> None:
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    acknowledged = message(ERROR, number(0), 0)
    fake = FakeSocket(acknowledged)
    with opened(fake) as netlink:
        netlink.link("set", index=7, mtu=1400, state="up")
    (data,) = fake.requests
    sent = ifinfmsg(data)
    sent.decode()
    assert (sent["index"], sent["flags"] & 1, sent["change"] & 1) == (7, 1, 1)
    assert sent.get_attr("IFLA_MTU") == 1400
    # RTM_NEWLINK; NLM_F_REQUEST and NLM_F_ACK
    assert (sent["header"]["type"], sent["header"]["flags"]) == (16, 0x5)
