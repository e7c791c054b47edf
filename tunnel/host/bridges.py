"""Linux bridges: join one as a port, leave it; make one, and remove it when it is empty.

One that we made says so in its alias (`ip link show`), whichever tunnel it was: the last tunnel
that leaves removes it, unless something else is a port of it still. Others are left as they are.
"""

from tunnel.host.errors import HostError
from tunnel.host.link_messages import (
    change_link,
    create_bridge,
    find_ifindex,
    get_link,
    list_links,
    remove_link,
)
from tunnel.host.links import require_ifindex
from tunnel.host.rtnetlink import Rtnetlink, absent_is_fine

ALIAS = "made by tunnel"
"""Of a bridge that we made. Whoever changes it keeps the bridge."""

_KIND = "bridge"


def stands(netlink: Rtnetlink, bridge: str) -> bool:
    """Whether there is a bridge of that name, and it is up."""
    index = find_ifindex(netlink, bridge)
    if index is None:
        return False
    link = get_link(netlink, index)
    return link.kind == _KIND and link.is_up


def add_bridge(netlink: Rtnetlink, bridge: str, address: str) -> bool:
    """Make the bridge and set it up; False if it was there already.

    A new one has no spanning tree protocol, and keeps the MAC address `address`, whatever is
    plugged in. Raises HostError for an interface of another kind.
    """
    index = find_ifindex(netlink, bridge)
    is_new = index is None
    if index is None:
        create_bridge(netlink, bridge, address)
        index = require_ifindex(netlink, bridge)
        change_link(netlink, index, alias=ALIAS)
    check_bridge(netlink, bridge)
    change_link(netlink, index, up=True)
    return is_new


def check_bridge(netlink: Rtnetlink, bridge: str) -> None:
    """Raise HostError if an interface of another kind has that name."""
    index = find_ifindex(netlink, bridge)
    if index is not None and get_link(netlink, index).kind != _KIND:
        raise HostError(
            "join",
            f"bridge {bridge}",
            "another kind of interface has this name",
            "name another one in Bridge, as br0",
        )


def remove_bridge(netlink: Rtnetlink, bridge: str) -> None:
    """Remove the bridge if we made it and it has no port."""
    index = find_ifindex(netlink, bridge)
    if index is None or get_link(netlink, index).alias != ALIAS:
        return
    if any(link.master == index for link in list_links(netlink)):
        return
    with absent_is_fine():
        remove_link(netlink, index)


def address_of(netlink: Rtnetlink, index: int) -> str:
    """The MAC address of an interface."""
    return get_link(netlink, index).address


def is_port(netlink: Rtnetlink, index: int, bridge: str) -> bool:
    """Whether the interface `index` is a port of the bridge."""
    master = get_link(netlink, index).master
    return bool(master) and master == find_ifindex(netlink, bridge)


def join(netlink: Rtnetlink, index: int, bridge: str) -> None:
    """Make the interface `index` a port of the bridge; HostError if it is that of another."""
    link = get_link(netlink, index)
    wanted = require_ifindex(netlink, bridge)
    if link.master not in (0, wanted):
        raise HostError(
            "join",
            f"bridge {bridge}",
            "the interface is a port of another bridge",
            f"take it out of that one: ip link set {link.name} nomaster",
        )
    change_link(netlink, index, master=wanted)


def leave(netlink: Rtnetlink, index: int, bridge: str) -> None:
    """Make the interface `index` no port of the bridge, if it is one."""
    with absent_is_fine():
        if is_port(netlink, index, bridge):
            change_link(netlink, index, master=0)
