"""One tunnel's objects on the machine: see them, add one, take one away.

This is the only place which knows how each kind of object is handled; `apply.py` decides when.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress

from tunnel.host import (
    bridges,
    dns,
    docker,
    links,
    netfilter,
    resolv_conf,
    routes,
    rules,
    sysctl,
)
from tunnel.host.errors import HostError
from tunnel.host.forwarding import FORWARDING
from tunnel.host.iproute import IPRoute
from tunnel.host.rtnetlink import find_ifindex, step
from tunnel.host.state import (
    Address,
    Bridge,
    BridgePort,
    Connected,
    Dns,
    DockerPasses,
    Firewall,
    Item,
    Link,
    Route,
    Rule,
    Sysctl,
)

Undo = Callable[[], None]
Report = Callable[[str, Item], None]
"""Called before each step: with "add" or "remove", and the object."""


def ignore_steps(verb: str, item: Item) -> None:
    """The `Report` of callers that want none."""


class Machine:
    """The calling thread's namespace, as far as the tunnel `interface` is concerned.

    `index` is the interface's number, 0 if it is gone: its addresses and routes went with it.
    `dns_backend` says how name servers are set, `sysctls` holds the values to put back, `firewall`
    is the fingerprint of the table that we set last, and `servers` are those of resolv.conf after
    we set ours. With `fail_closed`, what stays of a firewall until `tunnel down` is not removed.
    With a `bridge`, the addresses are that one's.
    """

    def __init__(
        self,
        netlink: IPRoute,
        interface: str,
        index: int,
        sysctls: dict[str, str],
        dns_backend: str,
        firewall: str,
        servers: str = "",
        report: Report = ignore_steps,
        fail_closed: bool = False,
        bridge: str = "",
    ) -> None:
        self.firewall = firewall
        self.servers = servers
        self._netlink = netlink
        self._interface = interface
        self._index = index
        self._sysctls = sysctls
        self.dns_backend = dns_backend
        self._report = report
        self._fail_closed = fail_closed
        self._bridge = bridge

    @property
    def _addressed(self) -> int:
        """The number of the interface that has the addresses, 0 if it is gone, or not made yet."""
        if not self._bridge:
            return self._index
        return find_ifindex(self._netlink, self._bridge) or 0

    def present(self, wanted: Iterable[Item], known: Iterable[Item]) -> set[Item]:
        """Those of `wanted` that are there.

        DNS counts as there when it is among the `known`, which is what we did before, and nothing
        shows that another program has changed it since.
        """
        wanted = tuple(wanted)
        seen: set[Item] = set(rules.list_rules(self._netlink))
        if self._index:
            mtu, up = links.read_link(self._netlink, self._index)
            if up:
                seen |= {Link(mtu), Link(mtu, link_local=True)}
            seen |= self._present_addresses(wanted, up)
        before = set(known)
        return {item for item in wanted if item in seen or self._still(item, before)}

    def _present_addresses(self, wanted: Iterable[Item], up: bool) -> set[Item]:
        """The addresses and the routes, and those of `wanted` that the kernel adds with them."""
        kernels = {item for item in wanted if isinstance(item, Connected)}
        addressed = self._addressed
        if not addressed:
            return set()
        seen: set[Item] = set(links.list_addresses(self._netlink, addressed))
        seen |= routes.list_routes(addressed)
        if not up:
            return seen | kernels  # a link that is down has none: they come with it
        return seen | routes.standing_connected(self._netlink, addressed, kernels, seen)

    def _still(self, item: Item, before: set[Item]) -> bool:
        match item:
            case Bridge():
                return bridges.stands(self._netlink, item.name)
            case BridgePort():
                return bool(self._index) and bridges.is_port(
                    self._netlink, self._index, item.bridge
                )
            case Firewall():
                now = netfilter.fingerprint(self._interface)
                return item in before and now != "" and now == self.firewall
            case DockerPasses():
                name = self._bridge or self._interface
                return docker.lets_pass(name, self._interface, between_ports=item.between_ports)
            case Sysctl():
                return not sysctl.has_sysctl(item.name) or (
                    sysctl.read_sysctl(item.name) == item.value
                )
            case Dns() if item.file:
                return resolv_conf.stands(self._interface, item)
            case Dns():
                return item in before and dns.still_stands(
                    item, self._index, self.dns_backend, self.servers
                )
            case _:
                return False

    def add(self, item: Item) -> None:
        """Put one there that is not; a firewall, link or DNS setting replaces the one before."""
        self._report("add", item)
        with step("add", item):
            self._add(item)

    def _add(self, item: Item) -> None:
        match item:
            case Bridge():
                # Of its own, it would change whenever a port with a lower one joins.
                address = bridges.address_of(self._netlink, self._index)
                bridges.add_bridge(self._netlink, item.name, address)
            case BridgePort():
                bridges.join(self._netlink, self._index, item.bridge)
            case Address():
                links.add_address(self._netlink, self._addressed, item)
            case Link():
                links.set_link(self._netlink, self._index, item)
                # Else the kernel drops all of a network's addresses with the first of them.
                with suppress(HostError):
                    sysctl.write_conf(self._interface, "promote_secondaries", "1")
                with suppress(HostError):
                    sysctl.write_conf(self._interface, "send_redirects", "0")
            case Route():
                routes.add_route(self._netlink, self._index, item)
            case Connected():
                routes.add_connected(self._netlink, self._addressed, item)
            case Rule():
                rules.add_rule(self._netlink, item)
            case Sysctl():
                sysctl.write_sysctl(item.name, item.value)
            case Firewall():
                netfilter.set_firewall(self._interface, item)
                self.firewall = netfilter.fingerprint(self._interface)
            case DockerPasses():
                name = self._bridge or self._interface
                docker.let_pass(name, self._interface, between_ports=item.between_ports)
            case Dns() if item.file:
                resolv_conf.set_servers(self._interface, item)
            case Dns():
                again = not dns.is_in_resolv_conf(item, self.servers)
                name = self._bridge or self._interface
                dns.set_dns(name, self._addressed, item, self.dns_backend, again=again)
                if self.dns_backend == dns.RESOLVCONF:
                    self.servers = " ".join(dns.read_servers())

    def remove(self, item: Item) -> None:
        """Take one away; no error if it is gone."""
        gone = not self._index and isinstance(item, BridgePort | Link | Route)
        if not gone and (self._addressed or not isinstance(item, Address | Connected)):
            self._report("remove", item)
        with step("remove", item):
            self._remove(item)

    def _remove(self, item: Item) -> None:
        addressed = self._addressed
        match item:
            case Bridge():
                bridges.remove_bridge(self._netlink, item.name)
            case BridgePort() if self._index:
                bridges.leave(self._netlink, self._index, item.bridge)
            case Address() if addressed:
                links.remove_address(self._netlink, addressed, item)
            case Link() if self._index:
                mtu, up = links.read_link(self._netlink, self._index)
                if up:
                    links.restore_link(self._netlink, self._index, mtu, up=False)
            case Route() if self._index:
                routes.remove_route(self._index, item)
            case Connected() if addressed:
                routes.remove_connected(addressed, item)
            case Rule():
                rules.remove_rule(self._netlink, item)
            case Sysctl():
                self._put_back(item)
            case Firewall():
                self._remove_firewall(item)
            case DockerPasses():
                docker.stop_passing(self._bridge or self._interface, self._interface)
            case Dns() if item.file:
                resolv_conf.unset_servers(self._interface, item)
            case Dns():
                dns.unset_dns(self._bridge or self._interface, addressed, self.dns_backend)
            case _:
                pass

    def prepare(self, item: Item, replaced: Item | None) -> Undo:
        """Before `item` is added in the place of `replaced` (or nothing): what takes it back."""
        if isinstance(item, Link):
            mtu, up = links.read_link(self._netlink, self._index)
            return lambda: links.restore_link(self._netlink, self._index, mtu, up)
        if replaced is not None:
            return lambda: self.add(replaced)
        return lambda: self.remove(item)

    def _remove_firewall(self, item: Firewall) -> None:
        closed = item.closed() if self._fail_closed else None
        if closed is not None:
            netfilter.set_firewall(self._interface, closed)
        else:
            netfilter.remove_firewall(self._interface)

    def _put_back(self, item: Sysctl) -> None:
        old = self._sysctls.get(item.name)
        if old is None or old == item.value or not sysctl.has_sysctl(item.name):
            return
        if item.name in FORWARDING.values():
            # Docker relies on it, and does not look again.
            needed = docker.is_here()
        else:
            # Another full tunnel of IPv4 may need it, not ours perhaps: its rule is the sign.
            found = rules.list_rules(self._netlink)
            needed = any(rule.invert and rule.version == 4 for rule in found)
        if not needed:
            sysctl.write_sysctl(item.name, old)


def current_index(netlink: IPRoute, interface: str, index: int) -> int:
    """`index` if the interface of that name still has it, else 0: it is a later one."""
    return index if find_ifindex(netlink, interface) == index else 0


def replaces(item: Item) -> object:
    """What identifies the place an item takes: two items of one place replace each other."""
    if isinstance(item, Link | Firewall | DockerPasses | Dns):
        return type(item)
    if isinstance(item, Sysctl):
        return item.name
    return item
