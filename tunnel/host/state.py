"""The desired state of the machine around one tunnel, and the rules which compute it.

A state is a value: computing, comparing and printing it touches nothing. `apply.py` makes the
machine equal to it. The rules are those of wg-quick(8) with two differences, both so that several
full tunnels can stand side by side and be taken down in any order:

- the suppress rule carries our mark too, so that it is ours alone and can be deleted alone;
- our own UDP (fwmark M) skips the rules of the tunnels that came later, by a rule with goto, and
  begins at our own. So it takes the way that it had before they came: by table main, or through a
  full tunnel that was there already. Tunnels nest, newest innermost, and none catches its own.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Literal

from tunnel.host.gateway import Gate
from tunnel.linux.kernel import IPV6_MIN_MTU
from tunnel.linux.networks import is_inside

Network = IPv4Network | IPv6Network
InterfaceAddress = IPv4Interface | IPv6Interface
IpAddress = IPv4Address | IPv6Address
Table = Literal["auto", "off"] | int

MAIN_TABLE = 254
DEFAULT_MTU = 1420
FIRST_MARK = 51820
"""wg-quick's first choice for mark and table of a full tunnel."""

BYPASS_PRIORITY = 32500
"""Below (asked before) every pair of rules that a full tunnel adds."""
MARK_PRIORITY = 32765
"""Just before table main (32766); the suppress rule goes one before it."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address with its prefix length on the interface."""

    value: InterfaceAddress

    def __str__(self) -> str:
        return f"address {self.value}"


@dataclass(frozen=True, slots=True)
class Bridge:
    """The Linux bridge of that name is there and up; made if it was not."""

    name: str

    def __str__(self) -> str:
        return f"bridge {self.name}"


@dataclass(frozen=True, slots=True)
class BridgePort:
    """The interface is a port of that bridge."""

    bridge: str

    def __str__(self) -> str:
        return f"port of bridge {self.bridge}"


@dataclass(frozen=True, slots=True)
class Link:
    """The interface is up with this MTU, in bytes of inner packet.

    With `link_local` the kernel gives it an IPv6 address of its own, as an Ethernet card has one.
    """

    mtu: int
    link_local: bool = False

    def __str__(self) -> str:
        return f"link up mtu {self.mtu}"


@dataclass(frozen=True, slots=True)
class Route:
    """A route to `destination` through the interface, in a routing table."""

    destination: Network
    table: int = MAIN_TABLE

    def __str__(self) -> str:
        return f"route {self.destination}" + (
            "" if self.table == MAIN_TABLE else f" table {self.table}"
        )


@dataclass(frozen=True, slots=True)
class Connected:
    """The kernel's own route to the `network` of an address; it comes and goes with the address."""

    network: Network

    def __str__(self) -> str:
        return f"connected route {self.network}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy routing rule for packets that carry `mark`, or with `invert` that do not.

    They look into `table`, where with `suppress_default` routes of prefix length 0 are passed over;
    or go on at the rule of the priority `goto`, and `table` is 0.
    """

    version: Literal[4, 6]
    priority: int
    mark: int
    table: int
    invert: bool = False
    suppress_default: bool = False
    goto: int = 0

    def __str__(self) -> str:
        table = "main" if self.table == MAIN_TABLE else self.table
        return (
            f"rule ipv{self.version} {self.priority}: {'not ' if self.invert else ''}"
            f"fwmark {self.mark:#x} {f'goto {self.goto}' if self.goto else f'lookup {table}'}"
            + (" suppress_prefixlength 0" if self.suppress_default else "")
        )


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A kernel setting; the value found before is put back at the end."""

    name: str
    value: str

    def __str__(self) -> str:
        return f"sysctl {self.name} = {self.value}"


@dataclass(frozen=True, slots=True)
class Firewall:
    """The one netfilter table of a tunnel.

    It is there for a full tunnel, in the IP `versions` that have a default route: `addresses` are
    the tunnel's own, and packets to them from elsewhere are spoofed; `mark` is that of our UDP,
    kept in conntrack so that replies are routed as their requests were. And it is there for what
    the conf wants of a gateway, the `gates`.
    """

    versions: tuple[Literal[4, 6], ...] = ()
    mark: int = 0
    addresses: tuple[IpAddress, ...] = ()
    gates: tuple[Gate, ...] = ()

    def parts(self) -> list[str]:
        """What it is made of, each in words."""
        families = "+".join(f"ipv{version}" for version in self.versions)
        guarded = ", ".join(map(str, self.addresses)) or "no address"
        full = f"firewall {families} mark {self.mark:#x} guarding {guarded}"
        return [*([full] if self.versions else []), *(f"firewall {gate}" for gate in self.gates)]

    def closed(self) -> "Firewall | None":
        """What stays of it until `tunnel down`, without a daemon; None if nothing does."""
        gates = tuple(gate for gate in self.gates if gate.stays)
        return Firewall(gates=gates) if gates else None

    def __str__(self) -> str:
        return "; ".join(self.parts())


@dataclass(frozen=True, slots=True)
class DockerPasses:
    """Docker's chain for the user, where there is one, lets packets of the interface pass.

    With `between_ports` only those from port to port of a bridge: docker has the kernel show them
    to its firewall, too (br_netfilter).
    """

    between_ports: bool = False

    def __str__(self) -> str:
        return "docker lets the tunnel's packets pass"


@dataclass(frozen=True, slots=True)
class Dns:
    """Name servers and search domains of the interface; in another network namespace, in `file`."""

    servers: tuple[IpAddress, ...]
    search: tuple[str, ...] = ()
    file: str = ""

    def __str__(self) -> str:
        text = "dns " + " ".join(map(str, self.servers))
        text += f" search {' '.join(self.search)}" if self.search else ""
        return f"{text} in {self.file}" if self.file else text


Item = (
    Bridge
    | BridgePort
    | Address
    | Link
    | Route
    | Connected
    | Rule
    | Sysctl
    | Firewall
    | DockerPasses
    | Dns
)


@dataclass(frozen=True, slots=True)
class DefaultRouteSlot:
    """What a full tunnel takes for itself: a mark (= table) and the priority of its mark rule.

    `slots.find_default_route_slot` finds a free one on the machine.
    """

    mark: int = FIRST_MARK
    priority: int = MARK_PRIORITY


@dataclass(frozen=True, slots=True)
class DesiredState:
    """Everything that the machine should have around the tunnel named `interface`.

    `mark` is the fwmark which the UDP sockets must carry (0 = none): the configured one or, for a
    full tunnel without one, the number of its routing table. `slot` is the slot chosen for that, to
    be claimed; None if there was no choice. `connected` are the routes which the kernel adds with
    the addresses: we add only those that another program removed. There are none if the conf
    chooses the routing table. With a `bridge`, the interface is a port of it, and the addresses are
    the bridge's. `link_local` is as in `Link`. With `shared`, the interface is
    others' too: it is up already, and has addresses of theirs.
    """

    interface: str
    addresses: tuple[InterfaceAddress, ...] = ()
    mtu: int = DEFAULT_MTU
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    sysctls: tuple[Sysctl, ...] = ()
    firewall: Firewall | None = None
    docker: DockerPasses | None = None
    dns: Dns | None = None
    mark: int = 0
    slot: DefaultRouteSlot | None = field(default=None, compare=False)
    connected: tuple[Connected, ...] = ()
    bridge: str = ""
    link_local: bool = False
    shared: bool = False

    @property
    def addressed(self) -> str:
        """The name of the interface that has the addresses."""
        return self.bridge or self.interface

    def items(self) -> tuple[Item, ...]:
        """Every object of the state, in the order in which wg-quick sets them up.

        The firewall comes before the routes, so that nothing is routed unguarded; the rules come
        last, so that no packet is sent to a table that is still empty.
        """
        ports = (Bridge(self.bridge), BridgePort(self.bridge)) if self.bridge else ()
        return (
            *ports,
            *map(Address, self.addresses),
            *(() if self.shared else (Link(self.mtu, self.link_local),)),
            *((self.dns,) if self.dns else ()),
            *self.sysctls,
            *((self.firewall,) if self.firewall else ()),
            *((self.docker,) if self.docker else ()),
            *self.routes,
            *self.rules,
        )

    def without(self, gone: Container[Item]) -> "DesiredState":
        """The state without those of its objects that are `gone`; the link stays."""
        return replace(
            self,
            addresses=tuple(a for a in self.addresses if Address(a) not in gone),
            routes=tuple(route for route in self.routes if route not in gone),
            rules=tuple(rule for rule in self.rules if rule not in gone),
            sysctls=tuple(sysctl for sysctl in self.sysctls if sysctl not in gone),
            firewall=None if self.firewall in gone else self.firewall,
            docker=None if self.docker in gone else self.docker,
            dns=None if self.dns in gone else self.dns,
            connected=tuple(route for route in self.connected if route not in gone),
        )


def has_default_route(allowed_ips: Iterable[Network], table: Table = "auto") -> bool:
    """Whether the tunnel will carry everything of a family, and so needs a slot."""
    return table == "auto" and any(network.prefixlen == 0 for network in allowed_ips)


def desired_state(
    interface: str,
    addresses: Sequence[InterfaceAddress],
    allowed_ips: Iterable[Network],
    *,
    mtu: int,
    table: Table = "auto",
    fwmark: int = 0,
    slot: DefaultRouteSlot | None = None,
    dns: Sequence[IpAddress] = (),
    dns_search: Sequence[str] = (),
    dns_file: str = "",
    firewall: bool = True,
) -> DesiredState:
    """The state wg-quick(8) would set up for these values.

    `table` "off" adds no routes; a number puts all of them into that table, without rules; "auto"
    adds what the addresses do not cover already and sends a /0 the default-route way. A `fwmark`
    that is not 0 decides mark and table of the default route; else `slot` does. With an `mtu` too
    small for IPv6 its addresses are left out, and the networks that they cover.
    """
    own = tuple(dict.fromkeys(addresses))
    if mtu < IPV6_MIN_MTU:
        covers = [address.network for address in own if address.version == 6]
        allowed_ips = [net for net in allowed_ips if not _covered(net, covers)]
        own = tuple(address for address in own if address.version == 4)
    # As in wg-quick, search domains without a server change nothing.
    servers, search = tuple(dict.fromkeys(dns)), tuple(dict.fromkeys(dns_search))
    names = Dns(servers, search, dns_file) if dns else None
    if table == "off":
        return DesiredState(interface, own, mtu, dns=names, mark=fwmark)
    networks = longest_prefix_first(allowed_ips)
    if table != "auto":
        routes = tuple(Route(network, table) for network in networks)
        return DesiredState(interface, own, mtu, routes, dns=names, mark=fwmark)

    connected = connected_networks(own)
    specific = [net for net in networks if net.prefixlen and not _covered(net, connected)]
    versions = tuple(_version(net) for net in networks if net.prefixlen == 0)
    # One of length 0 would be a default route, which no address is meant to bring; one to the
    # address itself is not needed.
    kernels = tuple(
        Connected(net)
        for net in dict.fromkeys(connected)
        if net.prefixlen and net.num_addresses > 1
    )
    if not versions:
        routes = tuple(map(Route, specific))
        return DesiredState(interface, own, mtu, routes, dns=names, mark=fwmark, connected=kernels)

    place = slot or DefaultRouteSlot()
    mark = fwmark or place.mark
    defaults = tuple(Route(net, mark) for net in networks if net.prefixlen == 0)
    guarded = tuple(address.ip for address in own if _version(address) in versions)
    return DesiredState(
        interface,
        own,
        mtu,
        routes=(*map(Route, specific), *defaults),
        rules=tuple(rule for v in versions for rule in _rules(v, mark, place.priority)),
        sysctls=(Sysctl("net.ipv4.conf.all.src_valid_mark", "1"),) if 4 in versions else (),
        firewall=Firewall(versions, mark, guarded) if firewall else None,
        dns=names,
        mark=mark,
        slot=None if fwmark else place,
        connected=kernels,
    )


def with_gateway(
    state: DesiredState, gates: Sequence[Gate], sysctls: Sequence[Sysctl], *, forwards: bool
) -> DesiredState:
    """The state with what the conf wants of a gateway."""
    if gates:
        firewall = replace(state.firewall or Firewall(), gates=tuple(gates))
        state = replace(state, firewall=firewall)
    docker = DockerPasses() if forwards else None
    if state.bridge and not forwards:
        docker = DockerPasses(between_ports=True)
    return replace(state, sysctls=(*state.sysctls, *sysctls), docker=docker)


def longest_prefix_first(networks: Iterable[Network]) -> list[Network]:
    """Without duplicates, longest prefix first; otherwise in the order given (IPv4 and IPv6)."""
    return sorted(dict.fromkeys(networks), key=lambda network: -network.prefixlen)


def connected_networks(addresses: Iterable[InterfaceAddress]) -> list[Network]:
    """The networks to which the kernel adds a route by itself when an address is added.

    An IPv4 /32 gets none in table main; an IPv6 /128 does.
    """
    return [
        address.network
        for address in addresses
        if address.version == 6 or address.network.prefixlen < 32
    ]


def describe(state: DesiredState) -> str:
    """The state as text, one object a line, stable: for golden tests and `tunnel diff`."""
    head = f"interface {state.interface}" + (f" fwmark {state.mark:#x}" if state.mark else "")
    return "\n".join([head, *(f"  {item}" for item in state.items()), ""])


def difference(old: DesiredState, new: DesiredState) -> list[str]:
    """What turns `old` into `new`: lines "- object" and "+ object", removals first."""
    before, after = set(old.items()), set(new.items())
    return [
        *(f"- {item}" for item in old.items() if item not in after),
        *(f"+ {item}" for item in new.items() if item not in before),
    ]


def _covered(network: Network, connected: Iterable[Network]) -> bool:
    return any(is_inside(network, other) for other in connected)


def _version(value: Network | InterfaceAddress) -> Literal[4, 6]:
    return 4 if value.version == 4 else 6


def _rules(version: Literal[4, 6], mark: int, priority: int) -> tuple[Rule, Rule, Rule]:
    return (
        Rule(version, BYPASS_PRIORITY, mark, 0, goto=priority - 1),
        Rule(version, priority - 1, mark, MAIN_TABLE, invert=True, suppress_default=True),
        Rule(version, priority, mark, mark, invert=True),
    )
