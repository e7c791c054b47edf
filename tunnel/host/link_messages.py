"""Interfaces, their addresses, and routing rules, as rtnetlink has them.

Numbers are those of linux/if_link.h, if_addr.h, fib_rules.h, if_bridge.h and veth.h. Every function
may raise OSError.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Final, Literal, NamedTuple

from tunnel.host.rtnetlink import Rtnetlink, family
from tunnel.linux.netlink import attribute, attributes, nested

IFA_F_NODAD: Final = 0x02
FIB_RULE_INVERT: Final = 0x2
FR_ACT_TO_TBL, FR_ACT_GOTO = 1, 2

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWRULE, _RTM_DELRULE, _RTM_GETRULE = 32, 33, 34
_CREATE = 0x400 | 0x200  # NLM_F_CREATE | NLM_F_EXCL

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_PROTINFO, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_AF_SPEC = 12, 18, 20, 26
_IFLA_NET_NS_FD, _IFLA_GSO_MAX_SEGS = 28, 40
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_IFLA_BR_STP_STATE, _VETH_INFO_PEER, _IFLA_BRPORT_MODE = 5, 1, 4
_IFLA_INET6_ADDR_GEN_MODE, _GEN_MODE_NONE = 8, 1
_IFF_UP = 1

_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS, _IFA_RT_PRIORITY = 1, 2, 8, 9

_FRA_GOTO, _FRA_PRIORITY, _FRA_FWMARK = 4, 6, 10
_FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_FWMASK = 14, 15, 16

_IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_IFADDR = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
# struct fib_rule_hdr: family, lengths of destination and source, TOS, table, -, -, action, flags
_RULE = struct.Struct("=BBBBBBBBI")
_INT = struct.Struct("=I")
_NAME_BYTES = 15


class LinkEntry(NamedTuple):
    """An interface. `kind` is what `ip -d link` calls it, empty for a card; `master` its bridge or
    VRF, or 0. `address` is the MAC address as text.
    """

    number: int
    name: str
    mtu: int
    is_up: bool
    master: int
    address: str
    alias: str
    kind: str
    has_ipv6: bool


class AddressEntry(NamedTuple):
    """An address of an interface: ours, also on a point-to-point link. `metric` is 0 if unset."""

    value: IPv4Interface | IPv6Interface
    flags: int
    metric: int


class RuleEntry(NamedTuple):
    """A rule. `mark` and `suppressed` (a prefix length) are None where it has none."""

    version: Literal[4, 6]
    priority: int
    table: int
    mark: int | None = None
    mask: int = 0xFFFFFFFF
    flags: int = 0
    suppressed: int | None = None
    goto: int = 0


def list_links(netlink: Rtnetlink) -> list[LinkEntry]:
    """All interfaces."""
    return [_link(body) for body in netlink.dump(_RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0))]


def get_link(netlink: Rtnetlink, index: int) -> LinkEntry:
    """The interface of that number; ENODEV if there is none."""
    return _link(netlink.get(_RTM_GETLINK, _IFINFO.pack(0, 0, index, 0, 0)))


def find_ifindex(netlink: Rtnetlink, interface: str) -> int | None:
    """The number of the interface of that name, None if there is none."""
    name = interface.encode()
    if not 0 < len(name) <= _NAME_BYTES:
        return None
    try:
        body = _IFINFO.pack(0, 0, 0, 0, 0) + _text(_IFLA_IFNAME, interface)
        found = _link(netlink.get(_RTM_GETLINK, body))
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EINVAL):
            return None
        raise
    # The kernel looks at alternative names, too, which are not ours to follow.
    return found.number if found.name == interface else None


def change_link(
    netlink: Rtnetlink,
    index: int,
    *,
    up: bool | None = None,
    mtu: int | None = None,
    name: str | None = None,
    alias: str | None = None,
    master: int | None = None,
    netns: int | None = None,
    gso_max_segs: int | None = None,
) -> None:
    """Change what is given. `master` 0 takes it out of its bridge; `netns` is a descriptor."""
    flags = _IFF_UP if up else 0
    body = _IFINFO.pack(0, 0, index, flags, 0 if up is None else _IFF_UP)
    for kind, number in (
        (_IFLA_MTU, mtu),
        (_IFLA_MASTER, master),
        (_IFLA_NET_NS_FD, netns),
        (_IFLA_GSO_MAX_SEGS, gso_max_segs),
    ):
        if number is not None:
            body += attribute(kind, _INT.pack(number))
    for kind, text in ((_IFLA_IFNAME, name), (_IFLA_IFALIAS, alias)):
        if text is not None:
            body += _text(kind, text)
    netlink.change(_RTM_NEWLINK, body)


def make_no_link_local(netlink: Rtnetlink, index: int) -> None:
    """Let the kernel make no link-local address of IPv6 for it."""
    mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_GEN_MODE_NONE]))
    body = nested(_IFLA_AF_SPEC, nested(socket.AF_INET6, mode))
    netlink.change(_RTM_NEWLINK, _IFINFO.pack(0, 0, index, 0, 0) + body)


def let_hairpin(netlink: Rtnetlink, index: int) -> None:
    """Let its bridge send frames back by the port that they came from."""
    body = nested(_IFLA_PROTINFO, attribute(_IFLA_BRPORT_MODE, b"\x01"))
    netlink.change(_RTM_SETLINK, _IFINFO.pack(socket.AF_BRIDGE, 0, index, 0, 0) + body)


def create_bridge(netlink: Rtnetlink, name: str, address: str) -> None:
    """Make a bridge with that MAC address, without the spanning tree protocol."""
    data = nested(_IFLA_INFO_DATA, attribute(_IFLA_BR_STP_STATE, _INT.pack(0)))
    hardware = attribute(_IFLA_ADDRESS, bytes.fromhex(address.replace(":", "")))
    _make_link(netlink, name, "bridge", data, hardware)


def create_veth(netlink: Rtnetlink, name: str, peer: str) -> None:
    """Make a pair of interfaces joined by a cable."""
    other = _IFINFO.pack(0, 0, 0, 0, 0) + _text(_IFLA_IFNAME, peer)
    _make_link(netlink, name, "veth", nested(_IFLA_INFO_DATA, nested(_VETH_INFO_PEER, other)))


def _make_link(netlink: Rtnetlink, name: str, kind: str, data: bytes, more: bytes = b"") -> None:
    info = nested(_IFLA_LINKINFO, _text(_IFLA_INFO_KIND, kind), data)
    body = _IFINFO.pack(0, 0, 0, 0, 0) + _text(_IFLA_IFNAME, name) + more + info
    netlink.change(_RTM_NEWLINK, body, _CREATE)


def remove_link(netlink: Rtnetlink, index: int) -> None:
    """Remove the interface of that number."""
    netlink.change(_RTM_DELLINK, _IFINFO.pack(0, 0, index, 0, 0))


def list_addresses(netlink: Rtnetlink, index: int = 0) -> list[AddressEntry]:
    """The addresses of the interface of that number, or of all."""
    found = []
    for body in netlink.dump(_RTM_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0)):
        _, bits, flags, _, device = _IFADDR.unpack_from(body)
        held = dict(attributes(body[_IFADDR.size :]))
        # IFA_LOCAL is ours on a point-to-point link; IPv6 has only IFA_ADDRESS there.
        packed = held.get(_IFA_LOCAL) or held.get(_IFA_ADDRESS)
        if packed is not None and index in (0, device):
            flags = _number(held, _IFA_FLAGS) or flags
            value = ip_interface((packed, bits))
            found.append(AddressEntry(value, flags, _number(held, _IFA_RT_PRIORITY)))
    return found


def add_address(
    netlink: Rtnetlink, index: int, value: IPv4Interface | IPv6Interface, flags: int = 0
) -> None:
    """Give the interface an address that it does not have."""
    body = _address(index, value)
    if flags:
        body += attribute(_IFA_FLAGS, _INT.pack(flags))
    netlink.change(_RTM_NEWADDR, body, _CREATE)


def remove_address(netlink: Rtnetlink, index: int, value: IPv4Interface | IPv6Interface) -> None:
    """Take an address from the interface."""
    netlink.change(_RTM_DELADDR, _address(index, value))


def _address(index: int, value: IPv4Interface | IPv6Interface) -> bytes:
    packed, bits = value.ip.packed, value.network.prefixlen
    head = _IFADDR.pack(family(4 if value.version == 4 else 6), bits, 0, 0, index)
    return head + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)


def list_rules(netlink: Rtnetlink, version: Literal[4, 6]) -> list[RuleEntry]:
    """All rules of an IP version."""
    found = []
    asked = _RULE.pack(family(version), 0, 0, 0, 0, 0, 0, 0, 0)
    for body in netlink.dump(_RTM_GETRULE, asked):
        _, _, _, _, table, _, _, _, flags = _RULE.unpack_from(body)
        held = dict(attributes(body[_RULE.size :]))
        suppressed = _number(held, _FRA_SUPPRESS_PREFIXLEN, -1)
        entry = RuleEntry(
            version,
            _number(held, _FRA_PRIORITY),
            _number(held, _FRA_TABLE) or table,
            _number(held, _FRA_FWMARK) if _FRA_FWMARK in held else None,
            _number(held, _FRA_FWMASK, 0xFFFFFFFF),
            flags,
            None if suppressed in (-1, 0xFFFFFFFF) else suppressed,
            _number(held, _FRA_GOTO),
        )
        found.append(entry)
    return found


def add_rule(netlink: Rtnetlink, rule: RuleEntry) -> None:
    """Add a rule that is not there."""
    netlink.change(_RTM_NEWRULE, _rule(rule), _CREATE)


def remove_rule(netlink: Rtnetlink, rule: RuleEntry) -> None:
    """Remove the first rule that has all this."""
    netlink.change(_RTM_DELRULE, _rule(rule))


def _rule(rule: RuleEntry) -> bytes:
    action = FR_ACT_GOTO if rule.goto else FR_ACT_TO_TBL
    # A table above 255 stands in the attribute alone.
    table = rule.table if rule.table < 256 and not rule.goto else 0
    body = _RULE.pack(family(rule.version), 0, 0, 0, table, 0, 0, action, rule.flags)
    for kind, number in (
        (_FRA_PRIORITY, rule.priority),
        (_FRA_FWMARK, rule.mark),
        (_FRA_SUPPRESS_PREFIXLEN, rule.suppressed),
        (_FRA_GOTO, rule.goto or None),
        (_FRA_TABLE, None if rule.goto else rule.table),
    ):
        if number is not None:
            body += attribute(kind, _INT.pack(number))
    return body


def _link(body: bytes) -> LinkEntry:
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    held = dict(attributes(body[_IFINFO.size :]))
    info = dict(attributes(held.get(_IFLA_LINKINFO, b"")))
    families = dict(attributes(held.get(_IFLA_AF_SPEC, b"")))
    return LinkEntry(
        index,
        _string(held, _IFLA_IFNAME),
        _number(held, _IFLA_MTU),
        bool(flags & _IFF_UP),
        _number(held, _IFLA_MASTER),
        held.get(_IFLA_ADDRESS, b"").hex(":"),
        _string(held, _IFLA_IFALIAS),
        _string(info, _IFLA_INFO_KIND),
        int(socket.AF_INET6) in families,
    )


def _text(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def _string(held: dict[int, bytes], kind: int) -> str:
    return held.get(kind, b"").rstrip(b"\0").decode(errors="replace")


def _number(held: dict[int, bytes], kind: int, default: int = 0) -> int:
    return int.from_bytes(held[kind], sys.byteorder) if kind in held else default
