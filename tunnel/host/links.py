"""The interface itself: its MTU, up and down, away with it."""

import socket
from pathlib import Path
from typing import Any

from tunnel.host.errors import HostError
from tunnel.host.rtnetlink import absent_is_fine, find_ifindex, inside, rtnetlink, step
from tunnel.host.state import Link

_IFF_UP = 1
_ADDR_GEN_MODE_NONE = 1


def link_exists(interface: str, *, netns: Path | str | None = None) -> bool:
    """Whether there is an interface of that name."""
    with inside(netns), rtnetlink() as netlink:
        return find_ifindex(netlink, interface) is not None


def delete_link(interface: str, *, netns: Path | str | None = None) -> bool:
    """Delete the interface; False if there was none."""
    with inside(netns), rtnetlink() as netlink, step("delete link", interface):
        index = find_ifindex(netlink, interface)
        if index is None:
            return False
        with absent_is_fine():
            netlink.link("del", index=index)
        return True


def require_ifindex(netlink: Any, interface: str) -> int:
    """The number of the interface; HostError if there is none."""
    index = find_ifindex(netlink, interface)
    if index is None:
        raise HostError(
            "find link", interface, "no such interface", "create the tunnel's device first"
        )
    return index


def read_link(netlink: Any, index: int) -> tuple[int, bool]:
    """MTU and whether the interface is set up."""
    message = netlink.get_links(index)[0]
    return int(message.get_attr("IFLA_MTU")), bool(message["flags"] & _IFF_UP)


def is_enslaved(netlink: Any, index: int) -> bool:
    """Whether the interface belongs to a VRF or a bridge."""
    return bool(netlink.get_links(index)[0].get_attr("IFLA_MASTER"))


def set_link(netlink: Any, index: int, link: Link) -> None:
    """Set MTU and up. No link-local address is made up, as on the kernel's WireGuard devices."""
    with step("set", link, "an MTU is between 576 (IPv6: 1280) and 65535"):
        inet6 = ["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE]]}]
        if _has_ipv6(netlink, index):
            netlink.link("set", index=index, IFLA_AF_SPEC={"attrs": [inet6]})
        netlink.link("set", index=index, mtu=link.mtu, state="up")


def restore_link(netlink: Any, index: int, mtu: int, up: bool) -> None:
    """Put back what `read_link` had found."""
    with step("restore link", f"mtu {mtu}"), absent_is_fine():
        netlink.link("set", index=index, mtu=mtu, state="up" if up else "down")


UNLIMITED_SEGMENTS = 65535
"""What a TUN has by itself (GSO_MAX_SEGS of the kernel)."""

_FORWARDING = ("/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf")


def forwards() -> bool:
    """Whether this network namespace passes packets on from any of its interfaces."""
    return any(
        path.read_text().strip() != "0"
        for folder in _FORWARDING
        for path in Path(folder).glob("*/forwarding")
    )


def limit_segments(index: int, segments: int) -> None:
    """Have the kernel hand over frames of at most so many TCP segments. Raises HostError."""
    with rtnetlink() as netlink, step("set gso_max_segs", segments), absent_is_fine():
        netlink.link("set", index=index, gso_max_segs=segments)


def _has_ipv6(netlink: Any, index: int) -> bool:
    if not socket.has_ipv6:
        return False
    families = netlink.get_links(index)[0].get_attr("IFLA_AF_SPEC")
    return families is not None and families.get_attr("AF_INET6") is not None
