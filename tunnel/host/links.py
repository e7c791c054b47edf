"""The interface itself: its MTU, up and down, its addresses, and its removal."""

import os
import socket
from contextlib import suppress
from pathlib import Path

from tunnel.host import link_messages
from tunnel.host.errors import HostError
from tunnel.host.link_messages import (
    change_link,
    find_ifindex,
    get_link,
    make_no_link_local,
    remove_link,
)
from tunnel.host.rtnetlink import Rtnetlink, absent_is_fine, inside, rtnetlink, step
from tunnel.host.state import Address, Link
from tunnel.host.sysctl import write_conf


def describe_link(interface: str, *, netns: Path | str | None = None) -> str | None:
    """What kind of interface has that name, as `ip -d link` calls it: "wireguard", "tun", "veth".

    Empty for one of no kind, such as a network card; None if there is no such interface.
    """
    with inside(netns), rtnetlink() as netlink, step("look for", interface):
        index = find_ifindex(netlink, interface)
        return None if index is None else get_link(netlink, index).kind


def is_tunnel(interface: str) -> bool:
    """Whether the interface is a TUN device, or one of the kernel's WireGuard."""
    folder = Path("/sys/class/net", interface)
    try:
        return (folder / "tun_flags").exists() or "DEVTYPE=wireguard" in (
            folder / "uevent"
        ).read_text()
    except OSError:
        return False


def move_link(interface: str, netns: Path | str, *, origin: Path | str | None = None) -> None:
    """Move the interface out of the network namespace `origin` (None: the caller's) into another.

    There it is down, has no addresses, and may have those of IPv6 even where containers get none.
    Raises HostError, and then it is where it was.
    """
    try:
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
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
            change_link(netlink, require_ifindex(netlink, interface), netns=descriptor)
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
            remove_link(netlink, index)
        return True


def require_ifindex(netlink: Rtnetlink, interface: str) -> int:
    """The number of the interface; HostError if there is none."""
    index = find_ifindex(netlink, interface)
    if index is None:
        raise HostError(
            "find link", interface, "no such interface", "create the tunnel's device first"
        )
    return index


def read_link(netlink: Rtnetlink, index: int) -> tuple[int, bool]:
    """MTU and whether the interface is set up."""
    link = get_link(netlink, index)
    return link.mtu, link.is_up


def is_enslaved(netlink: Rtnetlink, index: int) -> bool:
    """Whether the interface belongs to a VRF or a bridge."""
    return bool(get_link(netlink, index).master)


def set_link(netlink: Rtnetlink, index: int, link: Link) -> None:
    """Set MTU and up. Unless asked for, no link-local address is made up, as on the kernel's
    WireGuard devices.
    """
    with step("set", link, "an MTU is between 576 (IPv6: 1280) and 65535"):
        if not link.link_local and socket.has_ipv6 and get_link(netlink, index).has_ipv6:
            make_no_link_local(netlink, index)
        change_link(netlink, index, mtu=link.mtu, up=True)


def restore_link(netlink: Rtnetlink, index: int, mtu: int, up: bool) -> None:
    """Put back what `read_link` had found."""
    with step("restore link", f"mtu {mtu}"), absent_is_fine():
        change_link(netlink, index, mtu=mtu, up=up)


def set_up_loopback() -> None:
    """Set `lo` up, which is down in a new network namespace. Raises HostError."""
    with rtnetlink() as netlink, step("set up", "lo"):
        change_link(netlink, require_ifindex(netlink, "lo"), up=True)


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
        change_link(netlink, index, gso_max_segs=segments)


def list_addresses(netlink: Rtnetlink, index: int) -> set[Address]:
    """The addresses that the interface has now, IPv6 link-local ones included."""
    return {Address(entry.value) for entry in link_messages.list_addresses(netlink, index)}


def add_address(netlink: Rtnetlink, index: int, address: Address) -> None:
    """Add one that is not there yet."""
    with step("add", address):
        link_messages.add_address(netlink, index, address.value)


def remove_address(netlink: Rtnetlink, index: int, address: Address) -> None:
    """Remove one, if it is there."""
    with step("remove", address), absent_is_fine():
        link_messages.remove_address(netlink, index, address.value)
