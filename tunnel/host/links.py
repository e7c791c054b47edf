"""The interface itself: its MTU, up and down, its addresses, and its removal."""

import os
import socket
from contextlib import suppress
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from tunnel.host.errors import HostError
from tunnel.host.iproute import IPRoute
from tunnel.host.rtnetlink import absent_is_fine, family, find_ifindex, inside, rtnetlink, step
from tunnel.host.state import Address, Link
from tunnel.host.sysctl import write_conf
from tunnel.linux.netns import open_namespace

_IFF_UP = 1
_ADDR_GEN_MODE_NONE = 1
_ARPHRD_NONE = 0xFFFE


def describe_link(interface: str, *, netns: Path | str | None = None) -> str | None:
    """What kind of interface has that name, as `ip -d link` calls it: "wireguard", "tun", "veth".

    Empty for one of no kind, such as a network card; None if there is no such interface.
    """
    with inside(netns), rtnetlink() as netlink, step("look for", interface):
        index = find_ifindex(netlink, interface)
        if index is None:
            return None
        return _kind(netlink.link("get", index=index)[0])


def is_tunnel(interface: str) -> bool:
    """Whether the interface is a TUN device, or one of the kernel's WireGuard."""
    folder = Path("/sys/class/net", interface)
    try:
        return (folder / "tun_flags").exists() or "DEVTYPE=wireguard" in (
            folder / "uevent"
        ).read_text()
    except OSError:
        return False


def packet_tunnels() -> set[str]:
    """The interfaces of the caller's namespace without a link layer that are a TUN device, or one
    of the kernel's WireGuard. Raises HostError.
    """
    with rtnetlink() as netlink, step("list", "interfaces"):
        return {
            str(link.get_attr("IFLA_IFNAME"))
            for link in netlink.link("dump")
            if link["ifi_type"] == _ARPHRD_NONE and _kind(link) in ("tun", "wireguard")
        }


def _kind(link: Any) -> str:
    information = link.get_attr("IFLA_LINKINFO")
    return str((information and information.get_attr("IFLA_INFO_KIND")) or "")


def move_link(interface: str, netns: Path | str, *, origin: Path | str | None = None) -> None:
    """Move the interface out of the network namespace `origin` (None: the caller's) into another.

    There it is down, has no addresses, and may have those of IPv6 even where containers get none.
    Raises HostError, and then it is where it was.
    """
    try:
        descriptor = open_namespace(netns)
    except OSError as error:
        raise HostError.from_errno(
            "open namespace", str(netns), error.errno or 0, "see which there are: ip netns list"
        ) from error
    try:
        with (
            inside(origin),
            rtnetlink() as netlink,
            step("move", f"{interface} into {netns}", _NAME_TAKEN.format(interface)),
        ):
            netlink.link("set", index=require_ifindex(netlink, interface), net_ns_fd=descriptor)
        with inside(f"/proc/self/fd/{descriptor}"), suppress(HostError):
            write_conf(interface, "disable_ipv6", "0", family="ipv6")
    finally:
        os.close(descriptor)


_NAME_TAKEN = "if an interface {} is there already, give the conf another name"


def delete_link(interface: str, *, netns: Path | str | None = None) -> bool:
    """Delete the interface; False if there was none."""
    with inside(netns), rtnetlink() as netlink, step("delete link", interface):
        index = find_ifindex(netlink, interface)
        if index is None:
            return False
        with absent_is_fine():
            netlink.link("del", index=index)
        return True


def require_ifindex(netlink: IPRoute, interface: str) -> int:
    """The number of the interface; HostError if there is none."""
    index = find_ifindex(netlink, interface)
    if index is None:
        raise HostError(
            "find link", interface, "no such interface", "create the tunnel's device first"
        )
    return index


def read_link(netlink: IPRoute, index: int) -> tuple[int, bool]:
    """MTU and whether the interface is set up."""
    message = netlink.link("get", index=index)[0]
    return int(message.get_attr("IFLA_MTU")), bool(message["flags"] & _IFF_UP)


def is_enslaved(netlink: IPRoute, index: int) -> bool:
    """Whether the interface belongs to a VRF or a bridge."""
    return bool(netlink.link("get", index=index)[0].get_attr("IFLA_MASTER"))


def set_link(netlink: IPRoute, index: int, link: Link) -> None:
    """Set MTU and up. Unless asked for, no link-local address is made up, as on the kernel's
    WireGuard devices.
    """
    with step("set", link, "an MTU is between 576 (IPv6: 1280) and 65535"):
        inet6 = ["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE]]}]
        if not link.link_local and _has_ipv6(netlink, index):
            netlink.link("set", index=index, IFLA_AF_SPEC={"attrs": [inet6]})
        netlink.link("set", index=index, mtu=link.mtu, state="up")


def restore_link(netlink: IPRoute, index: int, mtu: int, up: bool) -> None:
    """Put back what `read_link` had found."""
    with step("restore link", f"mtu {mtu}"), absent_is_fine():
        netlink.link("set", index=index, mtu=mtu, state="up" if up else "down")


def set_up_loopback() -> None:
    """Set `lo` up, which is down in a new network namespace. Raises HostError."""
    with rtnetlink() as netlink, step("set up", "lo"):
        netlink.link("set", index=require_ifindex(netlink, "lo"), state="up")


UNLIMITED_SEGMENTS = 65535
"""What a TUN has by itself (GSO_MAX_SEGS of the kernel)."""

_FORWARDING = ("/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf")


def forwards(index: int) -> bool:
    """Whether this network namespace passes packets on from any of its interfaces, or frames from
    the interface `index` to another port of a bridge.
    """
    try:
        name = socket.if_indextoname(index)
    except OSError:
        return False
    return Path("/sys/class/net", name, "brport").exists() or any(
        path.read_text().strip() != "0"
        for folder in _FORWARDING
        for path in Path(folder).glob("*/forwarding")
    )


def limit_segments(index: int, segments: int) -> None:
    """Have the kernel hand over frames of at most so many TCP segments. Raises HostError."""
    with rtnetlink() as netlink, step("set gso_max_segs", segments), absent_is_fine():
        netlink.link("set", index=index, gso_max_segs=segments)


def _has_ipv6(netlink: IPRoute, index: int) -> bool:
    if not socket.has_ipv6:
        return False
    families = netlink.link("get", index=index)[0].get_attr("IFLA_AF_SPEC")
    return families is not None and families.get_attr("AF_INET6") is not None


def list_addresses(netlink: IPRoute, index: int) -> set[Address]:
    """The addresses that the interface has now, IPv6 link-local ones included."""
    found = set()
    for message in netlink.addr("dump", index=index):
        # IFA_LOCAL is ours on a point-to-point link; IPv6 has only IFA_ADDRESS there.
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        found.add(Address(ip_interface(f"{text}/{message['prefixlen']}")))
    return found


def add_address(netlink: IPRoute, index: int, address: Address) -> None:
    """Add one that is not there yet."""
    with step("add", address):
        netlink.addr("add", **_address_fields(index, address))


def remove_address(netlink: IPRoute, index: int, address: Address) -> None:
    """Remove one, if it is there."""
    with step("remove", address), absent_is_fine():
        netlink.addr("del", **_address_fields(index, address))


def _address_fields(index: int, address: Address) -> dict[str, Any]:
    value = address.value
    return {
        "index": index,
        "family": family(4 if value.version == 4 else 6),
        "address": str(value.ip),
        "prefixlen": value.network.prefixlen,
    }
