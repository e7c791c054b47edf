"""Linux bridges: join one as a port, leave it; make one, and remove it when it is empty.

One that we made says so in its alias (`ip link show`), whichever tunnel it was: the last tunnel
that leaves removes it, unless something else is a port of it still. Others are left as they are.
"""

from typing import Any

from tunnel.host.errors import HostError
from tunnel.host.iproute import IPRoute
from tunnel.host.rtnetlink import absent_is_fine, find_ifindex

ALIAS = "made by tunnel"
"""Of a bridge that we made. Whoever changes it keeps the bridge."""

_IFF_UP = 1
_KIND = "bridge"


def stands(netlink: IPRoute, bridge: str) -> bool:
    """Whether there is a bridge of that name, and it is up."""
    index = find_ifindex(netlink, bridge)
    if index is None:
        return False
    link = _link(netlink, index)
    return _kind(link) == _KIND and bool(link["flags"] & _IFF_UP)


def add_bridge(netlink: IPRoute, bridge: str, address: str) -> bool:
    """Make the bridge and set it up; False if it was there already.

    A new one has no spanning tree protocol, and keeps the MAC address `address`, whatever is
    plugged in. Raises HostError for an interface of another kind.
    """
    index = find_ifindex(netlink, bridge)
    is_new = index is None
    if is_new:
        netlink.link("add", ifname=bridge, kind=_KIND, br_stp_state=0, address=address)
        index = find_ifindex(netlink, bridge)
        netlink.link("set", index=index, ifalias=ALIAS)
    check_bridge(netlink, bridge)
    netlink.link("set", index=index, state="up")
    return is_new


def check_bridge(netlink: IPRoute, bridge: str) -> None:
    """Raise HostError if an interface of another kind has that name."""
    index = find_ifindex(netlink, bridge)
    if index is not None and _kind(_link(netlink, index)) != _KIND:
        raise HostError(
            "join",
            f"bridge {bridge}",
            "another kind of interface has this name",
            "name another one in Bridge, as br0",
        )


def remove_bridge(netlink: IPRoute, bridge: str) -> None:
    """Remove the bridge if we made it and it has no port."""
    index = find_ifindex(netlink, bridge)
    if index is None or _link(netlink, index).get_attr("IFLA_IFALIAS") != ALIAS:
        return
    if any(link.get_attr("IFLA_MASTER") == index for link in netlink.link("dump")):
        return
    with absent_is_fine():
        netlink.link("del", index=index)


def address_of(netlink: IPRoute, index: int) -> str:
    """The MAC address of an interface."""
    return str(_link(netlink, index).get_attr("IFLA_ADDRESS"))


def is_port(netlink: IPRoute, index: int, bridge: str) -> bool:
    """Whether the interface `index` is a port of the bridge."""
    master = _link(netlink, index).get_attr("IFLA_MASTER")
    return master is not None and master == find_ifindex(netlink, bridge)


def join(netlink: IPRoute, index: int, bridge: str) -> None:
    """Make the interface `index` a port of the bridge; HostError if it is that of another."""
    master = _link(netlink, index).get_attr("IFLA_MASTER")
    wanted = find_ifindex(netlink, bridge)
    if master and master != wanted:
        name = _link(netlink, index).get_attr("IFLA_IFNAME")
        raise HostError(
            "join",
            f"bridge {bridge}",
            "the interface is a port of another bridge",
            f"take it out of that one: ip link set {name} nomaster",
        )
    netlink.link("set", index=index, master=wanted)


def leave(netlink: IPRoute, index: int, bridge: str) -> None:
    """Make the interface `index` no port of the bridge, if it is one."""
    with absent_is_fine():
        if is_port(netlink, index, bridge):
            netlink.link("set", index=index, master=0)


def _link(netlink: IPRoute, index: int) -> Any:
    return netlink.link("get", index=index)[0]


def _kind(link: Any) -> str:
    information = link.get_attr("IFLA_LINKINFO")
    return str(information.get_attr("IFLA_INFO_KIND")) if information is not None else ""
