"""Interfaces, addresses and rules as rtnetlink messages: what is written is what is read."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from ipaddress import ip_interface
from typing import cast

import pytest

from tunnel.host import link_messages
from tunnel.host.link_messages import FIB_RULE_INVERT, AddressEntry, LinkEntry, RuleEntry
from tunnel.host.rtnetlink import Rtnetlink
from tunnel.linux.netlink import attribute, nested


class Kernel:
    """Keeps the bodies of messages, and gives them back."""

    def __init__(self, *bodies: bytes, error: int = 0) -> None:
        self.bodies = list(bodies)
        self.error = error

    def change(self, kind: int, body: bytes, flags: int = 0) -> None:
        self.bodies.append(body)

    def get(self, kind: int, body: bytes) -> bytes:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return self.bodies[0]

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        return self.bodies


def netlink(*bodies: bytes, error: int = 0) -> Rtnetlink:
    return cast(Rtnetlink, Kernel(*bodies, error=error))


@pytest.mark.parametrize(
    "rule",
    [
        RuleEntry(4, 32764, 51820, 51820, flags=FIB_RULE_INVERT),
        RuleEntry(6, 32763, 254, 51820, suppressed=0),
        RuleEntry(4, 100, 200),
        RuleEntry(6, 50, 0, 7, goto=60),
    ],
)
def test_a_rule_is_read_as_it_was_written(rule: RuleEntry) -> None:
    kernel = netlink()
    link_messages.add_rule(kernel, rule)
    link_messages.remove_rule(kernel, rule)
    assert link_messages.list_rules(kernel, rule.version) == [rule, rule]


def test_no_suppression_is_the_number_that_the_kernel_has_for_it() -> None:
    head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 0, 0, 1, 0)
    kernel = netlink(head + attribute(14, b"\xff" * 4) + attribute(6, struct.pack("=I", 32766)))
    assert link_messages.list_rules(kernel, 4) == [RuleEntry(4, 32766, 254)]


@pytest.mark.parametrize(
    ("text", "flags"), [("10.77.0.1/24", 0), ("fd77::1/64", 0), ("fd77::1/64", 0x02)]
)
def test_an_address_is_read_as_it_was_written(text: str, flags: int) -> None:
    kernel = netlink()
    link_messages.add_address(kernel, 7, ip_interface(text), flags)
    assert link_messages.list_addresses(kernel, 7) == [AddressEntry(ip_interface(text), flags, 0)]
    assert link_messages.list_addresses(kernel) == [AddressEntry(ip_interface(text), flags, 0)]
    assert link_messages.list_addresses(kernel, 8) == []


def test_our_end_of_a_point_to_point_link_is_the_local_one() -> None:
    head = struct.pack("=BBBBI", socket.AF_INET, 32, 0x80, 0, 3)
    far, near = (attribute(kind, bytes([10, 0, 0, kind])) for kind in (1, 2))
    metric = attribute(9, struct.pack("=I", 300))
    (found,) = link_messages.list_addresses(netlink(head + far + near + metric))
    assert found == AddressEntry(ip_interface("10.0.0.2/32"), 0x80, 300)


def link(name: bytes = b"br0") -> bytes:
    return (
        struct.pack("=BxHiII", 0, 1, 5, 1, 0)
        + attribute(3, name + b"\0")
        + attribute(4, struct.pack("=I", 1420))
        + attribute(10, struct.pack("=I", 9))
        + attribute(1, bytes.fromhex("02004c4f4f50"))
        + attribute(20, b"ours\0")
        + nested(18, attribute(1, b"bridge\0"))
        + nested(26, nested(10, attribute(8, b"\x01")))
    )


def test_an_interface_is_read_whole() -> None:
    entry = LinkEntry(5, "br0", 1420, True, 9, "02:00:4c:4f:4f:50", "ours", "bridge", True)
    assert link_messages.get_link(netlink(link()), 5) == entry
    assert link_messages.list_links(netlink(link())) == [entry]


def test_a_card_has_no_kind_and_may_lack_all_else() -> None:
    bare = struct.pack("=BxHiII", 0, 1, 2, 0, 0)
    assert link_messages.get_link(netlink(bare), 2) == LinkEntry(
        2, "", 0, False, 0, "", "", "", False
    )


def test_an_interface_is_found_by_its_own_name_alone() -> None:
    find = link_messages.find_ifindex
    assert find(netlink(link()), "br0") == 5
    # The kernel knows alternative names, too.
    assert find(netlink(link()), "enp3s0") is None
    assert find(netlink(error=errno.ENODEV), "br0") is None
    assert find(netlink(error=errno.EPERM), "a-name-too-long-for-one") is None
    assert find(netlink(error=errno.EPERM), "") is None
    with pytest.raises(PermissionError):
        find(netlink(error=errno.EPERM), "br0")


@pytest.mark.parametrize(("up", "flags", "mask"), [(True, 1, 1), (False, 0, 1), (None, 0, 0)])
def test_up_and_down_change_that_flag_alone(up: bool | None, flags: int, mask: int) -> None:
    kernel = Kernel()
    link_messages.change_link(cast(Rtnetlink, kernel), 5, up=up, mtu=1280)
    (body,) = kernel.bodies
    assert struct.unpack_from("=BxHiII", body) == (0, 0, 5, flags, mask)
    assert body[16:] == attribute(4, struct.pack("=I", 1280))


def test_the_kernel_answers() -> None:
    """Of this process' own namespace nothing is changed."""
    with contextlib.closing(Rtnetlink()) as opened:
        with pytest.raises(OSError, match=os.strerror(errno.ENODEV)):
            link_messages.get_link(opened, 2**30)
        number = link_messages.find_ifindex(opened, "lo")
        assert number == socket.if_nametoindex("lo")
        assert link_messages.get_link(opened, number).name == "lo"
        assert "lo" in [each.name for each in link_messages.list_links(opened)]
        assert link_messages.find_ifindex(opened, "no-such-link") is None
        assert any(rule.table == 254 for rule in link_messages.list_rules(opened, 4))
