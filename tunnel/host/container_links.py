"""The bridge of a network of containers, and the veth pairs of its containers.

All functions block, work in the caller's network namespace, and raise HostError.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Interface

from tunnel.host import bridges, route_messages
from tunnel.host.errors import HostError
from tunnel.host.iproute import IPRoute
from tunnel.host.links import is_enslaved, list_addresses, require_ifindex
from tunnel.host.rtnetlink import VERSIONS, find_ifindex, rtnetlink, step
from tunnel.host.state import MAIN_TABLE, InterfaceAddress, Network
from tunnel.host.sysctl import has_sysctl, write_conf, write_sysctl

LINK_LOCAL = IPv6Interface("fe80::1/64")
"""An address that a bridge with IPv6 has to have besides its gateways: what comes from elsewhere is
forwarded to a container only if the kernel can ask for it from a link-local address.
"""


def make_bridge(name: str, mac: str, *, ipv6: bool) -> bool:
    """Make a bridge that answers ARP for what lies elsewhere; False if it was there already.

    `mac` stays its own: containers know their gateway by it.
    """
    with rtnetlink() as netlink, step("make bridge", name):
        is_new = bridges.add_bridge(netlink, name, mac)
    write_conf(name, "proxy_arp", "1")
    # Else the kernel waits up to 0.8 s before it answers for another.
    write_sysctl(f"net/ipv4/neigh/{name}/proxy_delay", "0")
    if ipv6:
        # The gateway's address is other bridges' too; and no container should have to wait for it.
        write_sysctl(f"net/ipv6/conf/{name}/accept_dad", "0")
    elif has_sysctl(f"net/ipv6/conf/{name}/disable_ipv6"):
        write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1")
    return is_new


def share_bridge(name: str, mac: str) -> None:
    """Make a bridge, if there is none of that name, and set it up; it may be others' too."""
    with rtnetlink() as netlink, step("make bridge", name):
        bridges.add_bridge(netlink, name, mac)


def leave_bridge(name: str) -> None:
    """Remove a bridge that is shared if we made it, and it has no port."""
    with rtnetlink() as netlink, step("remove bridge", name):
        bridges.remove_bridge(netlink, name)


def bridge_addresses(name: str) -> list[InterfaceAddress]:
    """The addresses of a bridge; none if it is not there. Raises HostError if it is no bridge."""
    with rtnetlink() as netlink, step("look at", name):
        bridges.check_bridge(netlink, name)
        index = find_ifindex(netlink, name)
        found = list_addresses(netlink, index) if index is not None else ()
        return [address.value for address in found]


def let_loopback_out(name: str, *, allowed: bool) -> None:
    """Whether packets from 127.0.0.1 may leave by the bridge, and others come in to it."""
    write_conf(name, "route_localnet", "1" if allowed else "0")


def make_pair(inner: str, outer: str, bridge: str, mtu: int, segments: int) -> None:
    """Make a veth pair: `outer` is up in the bridge, `inner` is to be moved.

    A frame of `inner` has at most so many TCP segments. Interfaces of these names that are there
    are replaced.
    """
    with rtnetlink() as netlink, step("make", f"{outer} in {bridge}"):
        for name in (outer, inner):
            old = find_ifindex(netlink, name)
            if old is not None:
                netlink.link("del", index=old)
        netlink.link("add", ifname=outer, kind="veth", peer={"ifname": inner})
        index = require_ifindex(netlink, outer)
        netlink.link("set", index=index, mtu=mtu)
        # On a host that forwards, the tunnel's own interface has no limit. Only where frames begin
        # can there be one; and not for those that come out of the tunnel, which have more.
        netlink.link("set", index=require_ifindex(netlink, inner), mtu=mtu, gso_max_segs=segments)
        _put_in(netlink, index, bridge)


def plug_in(outer: str, bridge: str) -> bool:
    """Add an interface to the bridge, if it is in none; False if there is no such interface."""
    with rtnetlink() as netlink, step("plug in", outer):
        index = find_ifindex(netlink, outer)
        if index is None:
            return False
        if not is_enslaved(netlink, index):
            _put_in(netlink, index, bridge)
        return True


def _put_in(netlink: IPRoute, index: int, bridge: str) -> None:
    bridges.join(netlink, index, bridge)
    # Else a container would not reach itself by a port of this host, where the bridge translates.
    netlink.link("set", index=index, kind="bridge_slave", mode=1)
    netlink.link("set", index=index, state="up")


def has_link(name: str) -> bool:
    """Whether there is an interface of that name."""
    with rtnetlink() as netlink, step("look for", name):
        return find_ifindex(netlink, name) is not None


def overlapping_routes(network: Network, but: Iterable[str] = ()) -> list[str]:
    """Routes of table main that lead to a part of `network` or to more than it, as text.

    Default routes do not count, nor those through the interfaces `but`.
    """
    found = []
    with rtnetlink() as netlink, step("look at routes to", network):
        passed = {find_ifindex(netlink, name) for name in but}
        for version in VERSIONS:
            if version != network.version:
                continue
            for entry in route_messages.dump(version, table=MAIN_TABLE):
                other = entry.network
                if not entry.bits or not other.overlaps(network) or set(entry.devices) & passed:
                    continue
                names = " and ".join(_names(netlink, entry.devices)) or "no interface"
                found.append(f"{other} dev {names}")
    return found


def _names(netlink: IPRoute, indices: Iterable[int]) -> list[str]:
    return [str(netlink.link("get", index=index)[0].get_attr("IFLA_IFNAME")) for index in indices]


def require_free(name: str) -> None:
    """Raise HostError if there is an interface of that name."""
    if has_link(name):
        raise HostError(
            "make bridge",
            name,
            "another interface has this name",
            f"see whose it is: ip -d link show {name}; if it is not needed: ip link delete {name}",
        )
