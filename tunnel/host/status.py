"""How an interface stands on the machine now: for `SaveConfig`, `show` and `doctor`."""

from dataclasses import dataclass
from pathlib import Path

from tunnel.host.links import list_addresses, read_link
from tunnel.host.record import Record
from tunnel.host.routes import list_routes
from tunnel.host.rtnetlink import find_ifindex, inside, rtnetlink, step
from tunnel.host.state import InterfaceAddress, Route


@dataclass(frozen=True, slots=True)
class InterfaceStatus:
    """What the kernel says: `mtu` in bytes, link-local addresses left out, all tables' routes."""

    index: int
    mtu: int
    up: bool
    addresses: tuple[InterfaceAddress, ...]
    routes: tuple[Route, ...]


def interface_status(interface: str, *, netns: Path | str | None = None) -> InterfaceStatus | None:
    """The interface of that name as it is, None if there is none. Blocks."""
    with inside(netns), rtnetlink() as netlink, step("read", interface):
        index = find_ifindex(netlink, interface)
        if index is None:
            return None
        mtu, up = read_link(netlink, index)
        addresses = [address.value for address in list_addresses(netlink, index)]
        return InterfaceStatus(
            index,
            mtu,
            up,
            tuple(sorted((a for a in addresses if not a.is_link_local), key=_order)),
            tuple(sorted(list_routes(index), key=str)),
        )


def is_standing(record: Record) -> bool:
    """Whether the interface that was set up is there still, and not a later one of its name.

    False in another network namespace than the one it was set up in. Blocks.
    """
    if not record.is_here():
        return False
    with inside(record.place or None), rtnetlink() as netlink, step("look at", record.interface):
        return find_ifindex(netlink, record.interface) == record.ifindex


def _order(address: InterfaceAddress) -> tuple[int, int]:
    return address.version, int(address.ip)
