"""The labs that `tunnel lab --topology` builds."""

from __future__ import annotations

from tunnel.lab.peers import Side
from tunnel.lab.plan import Blueprint, Box, Network, Trial

_PING = r"1 (packets )?received"
_PASSED = "passed"


def _world(*names: str) -> Network:
    """Networks of the Internet: 192.0.2.0/24 and 2001:db8::/64, hosts numbered from 1 on."""
    return Network(
        "internet",
        {
            name: (f"192.0.2.{number}/24", f"2001:db8::{number}/64")
            for number, name in enumerate(names, 1)
        },
    )


PAIR = Blueprint(
    "pair",
    "Two hosts and a cable",
    "Each knows the address of the other. All else is built on this.",
    places=(Box("A"), Box("B")),
    networks=(_world("A", "B"),),
    sides=(
        Side("A", ("10.77.0.1/24", "fd77::1/64"), ("B",), "192.0.2.1"),
        Side("B", ("10.77.0.2/24", "fd77::2/64"), ("A",), "192.0.2.2"),
    ),
    trials=(
        Trial("A", "ping -c 1 10.77.0.2", "IPv4 through the tunnel", _PING),
        Trial("A", "ping -c 1 fd77::2", "IPv6, by the same datagrams over IPv4", _PING),
        Trial(
            "A",
            "tunnel trace wg0 icmp -- ping -c 1 10.77.0.2",
            "every step of a ping on host A, and of its answer",
            _PASSED,
        ),
    ),
)

NAT = Blueprint(
    "nat",
    "Behind a home router",
    "A's address is private, so B cannot reach A until A has sent something: the router keeps an "
    "entry for the way back, and A's keepalives keep that entry alive.",
    places=(
        Box("A", "laptop", gateway="192.168.1.1"),
        Box("router", "home router, NAT", nat="internet"),
        Box("B", "server"),
    ),
    networks=(
        Network("home", {"A": ("192.168.1.2/24",), "router": ("192.168.1.1/24",)}),
        Network("internet", {"router": ("192.0.2.254/24",), "B": ("192.0.2.2/24",)}),
    ),
    sides=(
        Side("A", ("10.77.0.1/24",), ("B",), keepalive=25),
        Side("B", ("10.77.0.2/24",), ("A",), "192.0.2.2"),
    ),
    trials=(
        Trial("A", "ping -c 1 10.77.0.2", "out through the router", _PING),
        Trial("B", "ping -c 1 10.77.0.1", "and in, by the entry that the router keeps", _PING),
        Trial(
            "B",
            "tunnel show wg0",
            "B took the router's address as A's endpoint",
            r"192\.0\.2\.254:",
        ),
        Trial(
            "B",
            "ping -c 1 -W 1 192.168.1.2",
            "without the tunnel there is no way to A",
            "Network is unreachable",
            fails=True,
        ),
        Trial(
            "B",
            "tunnel trace wg0 icmp -- ping -c 1 10.77.0.1",
            "the datagrams go to the router's address",
            r"192\.0\.2\.254",
        ),
    ),
)

HUB = Blueprint(
    "hub",
    "A hub and two spokes",
    "The spokes know only the hub. What one sends to the other is opened there, routed back into "
    "the same interface, and sealed again.",
    places=(Box("hub"), Box("a", "spoke"), Box("b", "spoke")),
    networks=(_world("hub", "a", "b"),),
    sides=(
        Side(
            "hub",
            ("10.77.0.1/24", "fd77::1/64"),
            ("a", "b"),
            "192.0.2.1",
            routes=("10.77.0.0/24", "fd77::/64"),
            settings=("Forward = on",),
        ),
        Side("a", ("10.77.0.2/24", "fd77::2/64"), ("hub",), keepalive=25),
        Side("b", ("10.77.0.3/24", "fd77::3/64"), ("hub",), keepalive=25),
    ),
    trials=(
        Trial("a", "ping -c 1 10.77.0.3", "from spoke to spoke", _PING),
        Trial(
            "a",
            "ping -c 1 -t 1 10.77.0.3",
            "with one hop only, it ends at the hub",
            "From 10.77.0.1 .*Time to live exceeded",
            fails=True,
        ),
        Trial(
            "hub",
            "tunnel trace wg0 icmp -- tunnel lab --enter a -- ping -c 1 10.77.0.3",
            "one packet, in and out by the same interface",
            r"through\s+the\s+tunnel",
        ),
    ),
)

MESH = Blueprint(
    "mesh",
    "Three hosts, each a peer of each",
    "No host is in the middle: each pair has a session of its own.",
    places=(Box("a"), Box("b"), Box("c")),
    networks=(_world("a", "b", "c"),),
    sides=tuple(
        Side(
            name,
            (f"10.77.0.{number}/24", f"fd77::{number}/64"),
            tuple(other for other in "abc" if other != name),
            f"192.0.2.{number}",
        )
        for number, name in enumerate("abc", 1)
    ),
    trials=(
        Trial("a", "ping -c 1 10.77.0.2", "from a to b", _PING),
        Trial("b", "ping -c 1 fd77::3", "from b to c", _PING),
        Trial("c", "ping -c 1 10.77.0.1", "from c to a", _PING),
        Trial("a", "tunnel show wg0", "two peers, each with a handshake", "(?s)b.*c"),
        Trial(
            "a", "tunnel trace wg0 icmp -- ping -c 1 10.77.0.3", "straight to c", r"192\.0\.2\.3"
        ),
    ),
)

BRIDGE = Blueprint(
    "bridge",
    "Containers behind bridges",
    "What a container engine builds: a bridge in the host, and for each container a namespace and "
    "a veth pair. The tunnel joins the networks of two hosts.",
    places=(
        Box("A"),
        Box("B"),
        Box("a1", "container", gateway="10.1.1.1"),
        Box("a2", "container", gateway="10.1.1.1"),
        Box("b1", "container", gateway="10.1.2.1", serves=80),
    ),
    networks=(
        _world("A", "B"),
        Network(
            "lan-a",
            {"A": ("10.1.1.1/24",), "a1": ("10.1.1.2/24",), "a2": ("10.1.1.3/24",)},
            bridge="A",
        ),
        Network("lan-b", {"B": ("10.1.2.1/24",), "b1": ("10.1.2.2/24",)}, bridge="B"),
    ),
    sides=(
        Side(
            "A",
            ("10.77.0.1/24",),
            ("B",),
            "192.0.2.1",
            routes=("10.1.1.0/24",),
            settings=("Forward = on",),
        ),
        Side(
            "B",
            ("10.77.0.2/24",),
            ("A",),
            "192.0.2.2",
            routes=("10.1.2.0/24",),
            settings=("Forward = on",),
        ),
    ),
    trials=(
        Trial("a1", "ping -c 1 10.1.1.3", "on the same bridge: no tunnel is needed", _PING),
        Trial("a1", "ping -c 1 10.1.2.2", "a container of the other host, by the tunnel", _PING),
        Trial(
            "A",
            "bridge fdb show br lan-a dynamic",
            "which MAC address is behind which port",
            "master lan-a",
        ),
        Trial(
            "A", "ip route get 10.1.2.2", "the route to a container of the other host", "dev wg0"
        ),
        Trial("a1", "curl -s http://10.1.2.2/", "a server in that container", "hello from b1"),
        Trial(
            "A",
            "tunnel trace wg0 icmp -- tunnel lab --enter a1 -- ping -c 1 10.1.2.2",
            "it is forwarded from the bridge into the tunnel",
            "FORWARD",
        ),
    ),
)

TAP = Blueprint(
    "tap",
    "One Ethernet network on two hosts",
    "With Mode = tap the tunnel carries Ethernet frames, and with Bridge its interface is a port "
    "of a bridge, here the bridge of the containers. The containers of both hosts are in one "
    "network: they find each other by ARP, and no router is between them.",
    places=(
        Box("A"),
        Box("B"),
        Box("a1", "container", gateway="10.1.1.1"),
        Box("b1", "container", gateway="10.1.1.1", serves=80),
    ),
    networks=(
        _world("A", "B"),
        Network("lan-a", {"A": ("10.1.1.1/24",), "a1": ("10.1.1.2/24",)}, bridge="A"),
        Network("lan-b", {"B": ("10.1.1.3/24",), "b1": ("10.1.1.4/24",)}, bridge="B"),
    ),
    sides=(
        Side(
            "A",
            ("10.1.1.1/24",),
            ("B",),
            "192.0.2.1",
            routes=("10.1.1.2/32",),
            settings=("Mode = tap", "Bridge = lan-a"),
        ),
        Side(
            "B",
            ("10.1.1.3/24",),
            ("A",),
            "192.0.2.2",
            routes=("10.1.1.4/32",),
            settings=("Mode = tap", "Bridge = lan-b"),
        ),
    ),
    trials=(
        Trial("a1", "ping -c 1 -t 1 10.1.1.4", "one hop is enough: no router is between", _PING),
        Trial("a1", "ip neigh show 10.1.1.4", "ARP has crossed the tunnel", "lladdr"),
        Trial(
            "A",
            "bridge fdb show br lan-a dynamic",
            "the MAC address of b1 is behind the port wg0",
            "dev wg0 master lan-a",
        ),
        Trial(
            "A",
            "tunnel show wg0",
            "how many MAC addresses were learned from the peer",
            "mac addresses: [1-9]",
        ),
        Trial("a1", "curl -s http://10.1.1.4/", "a server in that container", "hello from b1"),
        Trial(
            "A",
            "tunnel trace wg0 icmp",
            "frames do not cross the IP stack: the error names what to use",
            r"use\s+tunnel\s+capture",
            fails=True,
        ),
    ),
)

GATEWAY = Blueprint(
    "gateway",
    "A gateway with NAT, a published port and rules for each peer",
    "laptop and guest reach the network behind gw under the address of gw, the Internet reaches a "
    "server on laptop by a port of gw, and guest may reach only what gw allows.",
    places=(
        Box("gw", "gateway"),
        Box("laptop", "peer", serves=80),
        Box("guest", "peer"),
        Box("out", "anyone"),
        Box("server", "behind gw", serves=80),
    ),
    networks=(
        _world("gw", "laptop", "guest", "out"),
        Network("office", {"gw": ("192.168.1.1/24",), "server": ("192.168.1.10/24",)}),
    ),
    sides=(
        Side(
            "gw",
            ("10.77.0.1/24",),
            ("laptop", "guest"),
            "192.0.2.1",
            routes=("10.77.0.0/24", "192.168.1.0/24"),
            settings=(
                "Forward = on",
                "Masquerade = auto",
                "Publish = 8080:10.77.0.2:80",
                "Isolate = on",
                "Allow = guest -> 192.168.1.10:80/tcp",
            ),
        ),
        Side("laptop", ("10.77.0.2/24",), ("gw",), keepalive=25),
        Side("guest", ("10.77.0.3/24",), ("gw",), keepalive=25),
    ),
    trials=(
        Trial(
            "laptop",
            "ping -c 1 192.168.1.10",
            "Masquerade: the server sees the address of gw",
            _PING,
        ),
        Trial(
            "out",
            "curl -s http://192.0.2.1:8080/",
            "Publish: laptop answers on a port of gw",
            "hello from laptop",
        ),
        Trial(
            "guest",
            "curl -s http://192.168.1.10/",
            "Allow: guest may reach this port",
            "hello from server",
        ),
        Trial(
            "guest",
            "ping -c 1 -W 1 192.168.1.10",
            "and nothing else",
            "Packet filtered",
            fails=True,
        ),
        Trial(
            "laptop",
            "ping -c 1 -W 1 10.77.0.3",
            "Isolate: no way between peers",
            "Packet filtered",
            fails=True,
        ),
        Trial(
            "gw",
            "tunnel trace wg0 icmp -- tunnel lab --enter laptop -- ping -c 1 -W 1 10.77.0.3",
            "the trace names the rule",
            "Isolate",
            fails=True,
        ),
        Trial("gw", "tunnel firewall wg0", "all its rules, and what they have counted", "Publish"),
    ),
)

DOCKER = Blueprint(
    "docker",
    "One network for the containers of two Docker hosts",
    "A network of the tunnel's Docker driver is on both hosts, each of which gives a part of its "
    "addresses. Containers reach each other by name, as if they were on one host.",
    places=(
        Box("A", "Docker host"),
        Box("B", "Docker host"),
        Box("client"),
        Box("web", serves=80, publish="8080:80"),
    ),
    networks=(
        _world("A", "B"),
        Network(
            "net", {"A": ("10.90.0.1/24",), "client": ("10.90.0.2/24",)}, bridge="A", docker=True
        ),
        Network(
            "net", {"B": ("10.90.0.1/24",), "web": ("10.90.0.128/24",)}, bridge="B", docker=True
        ),
    ),
    sides=(
        Side("A", ("10.77.0.1/24",), ("B",), "192.0.2.1", routes=("10.90.0.0/25",)),
        Side("B", ("10.77.0.2/24",), ("A",), "192.0.2.2", routes=("10.90.0.128/25",)),
    ),
    trials=(
        Trial("A", "docker exec client ping -c 1 web", "by name, to the other host", _PING),
        Trial("A", "docker exec client wget -qO- http://web/", "its server", "hello from web"),
        Trial("A", "curl -s http://192.0.2.2:8080/", "the port that B publishes", "hello from web"),
        Trial(
            "A",
            "docker exec client ip neigh",
            "B's container seems a neighbour: A's bridge answers for it",
            "10.90.0.128 dev eth0",
        ),
        Trial("A", "ip route get 10.90.0.128", "and this is its way", "dev wg0"),
        Trial(
            "A",
            "tunnel trace wg0 icmp -- docker exec client ping -c 1 web",
            "out of the bridge, into the tunnel",
            "FORWARD",
        ),
    ),
)

PLANS = {plan.name: plan for plan in (PAIR, NAT, HUB, MESH, BRIDGE, TAP, GATEWAY, DOCKER)}
"""All of them, by name."""
