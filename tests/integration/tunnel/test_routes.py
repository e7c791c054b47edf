"""The route to the peer is not the way it came, or moves: the very next packet goes through."""

from __future__ import annotations

import pytest

from tests.support.pairs import drops, status
from tests.support.uplinks import BITS, MOVES, UNRELATED, TwoUplinks
from tunnel.datapath import available
from tunnel.lab import Host, Lab
from tunnel.lab.peers import Node, OurEnd, mesh

pytestmark = pytest.mark.root


@pytest.fixture
def net(lab: Lab, request: pytest.FixtureRequest) -> TwoUplinks:
    return TwoUplinks.make(lab, request.param)


both = pytest.mark.parametrize("net", [4, 6], indirect=True)


def bring_up(net: TwoUplinks, place: str | None) -> tuple[OurEnd, OurEnd]:
    """Ends on a and b; `place` is where b finds a, if it does."""
    here = Node(net.a, ("10.77.0.1/24",), place)
    there = Node(net.b, ("10.77.0.2/24",), net.peer)
    ends = mesh([here, there])
    a, b = ends["a"], ends["b"]
    assert isinstance(a, OurEnd)
    assert isinstance(b, OurEnd)
    a.up()
    b.up()
    return a, b


def one_packet(host: Host, address: str) -> None:
    """A single ping, and its answer well within the 15 s after which a session is given up."""
    host.run(["ping", "-n", "-c", "1", "-W", "4", address], timeout=30)


def endpoint(end: OurEnd) -> str:
    return str(status(end)["peers"][0]["endpoint"])


@both
def test_a_server_answers_from_the_address_it_was_asked_at(net: TwoUplinks) -> None:
    """It is reached by eth0, and its route back is by eth1."""
    net.route(f"add default via {net.gateway(1)}")
    _, b = bring_up(net, net.own(0))
    one_packet(net.b, "10.77.0.1")
    assert net.own(0) in endpoint(b)
    assert drops(b) == {}


@pytest.mark.parametrize(
    ("net", "how"),
    [*((4, how) for how in (*MOVES, "link-down", "rule")), (6, "better-metric"), (6, "link-down")],
    indirect=["net"],
)
def test_the_next_packet_follows_the_route(net: TwoUplinks, how: str) -> None:
    """What comes for the old address is lost, as with a modem without a line."""
    net.route(f"add default via {net.gateway(0)} metric 1024")
    a, b = bring_up(net, None)
    one_packet(net.a, "10.77.0.2")
    assert net.own(0) in endpoint(b)
    handshake = status(a)["peers"][0]["latest_handshake"]
    net.lose(net.own(0))
    if how == "link-down":
        net.route(f"add default via {net.gateway(1)} metric 2000")
        net.a.ip("link set eth0 down")
    elif how == "rule":
        net.route(f"add default via {net.gateway(1)} table 99")
        net.a.run(["ip", f"-{net.outer}", "rule", "add", "to", net.peer, "lookup", "99"])
    else:
        net.move(how)
    # The peer need not wait until we have something to send.
    net.b.wait_for(lambda: net.own(1) in endpoint(b), 4, "the keepalive from the new address")
    one_packet(net.b, "10.77.0.1")
    one_packet(net.a, "10.77.0.2")
    assert net.own(1) in endpoint(b)
    assert status(a)["peers"][0]["latest_handshake"] == handshake


@pytest.mark.parametrize("net", [4], indirect=True)
def test_a_route_that_moves_back_is_followed_too(net: TwoUplinks) -> None:
    """No handshake is between the two moves."""
    net.route(f"add default via {net.gateway(0)}")
    a, b = bring_up(net, None)
    one_packet(net.a, "10.77.0.2")
    handshake = status(a)["peers"][0]["latest_handshake"]
    for link, other in ((1, 0), (0, 1)):
        net.lose(net.own(other))
        net.route(f"replace default via {net.gateway(link)}")
        here = net.own(link)
        net.b.wait_for(lambda: here in endpoint(b), 4, "the keepalive")  # noqa: B023
        one_packet(net.b, "10.77.0.1")
        one_packet(net.a, "10.77.0.2")
    assert status(a)["peers"][0]["latest_handshake"] == handshake


def test_a_link_local_endpoint_is_followed_to_the_card_that_was_plugged_in_again(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")

    def plug_in(number: int) -> None:
        lab.link(a, b, [], [])
        for host, own in ((a, "fe80::a"), (b, "fe80::b")):
            if number:
                host.ip("link set eth1 down", "link set eth1 name eth0", "link set eth0 up")
            host.add_addresses("eth0", [f"{own}/64"])

    plug_in(0)
    before = a.ip_json(["link", "show", "eth0"])[0]["ifindex"]
    here = Node(a, ("10.77.0.1/24",), None)
    there = Node(b, ("10.77.0.2/24",), "fe80::b%eth0")
    ends = mesh([here, there])
    ends["a"].up()
    ends["b"].up()
    one_packet(a, "10.77.0.2")
    a.ip("link delete eth0")
    plug_in(1)
    assert a.ip_json(["link", "show", "eth0"])[0]["ifindex"] != before
    ping = ["ping", "-n", "-c", "1", "-W", "1", "10.77.0.2"]
    a.wait_for(lambda: a.run(ping, check=False).returncode == 0, 10, "an answer by the new card")


@both
def test_an_address_that_moves_to_another_machine_is_let_go(net: TwoUplinks) -> None:
    """As VRRP does it, with ip_nonlocal_bind: the kernel refuses nothing."""
    net.a.set_sysctl(f"net.ipv{net.outer}.ip_nonlocal_bind", "1")
    virtual = net.own(0, 77)
    net.a.add_addresses("eth0", [f"{virtual}/{BITS[net.outer]}"])
    net.route(f"add default via {net.gateway(0)}")
    _, b = bring_up(net, virtual)
    one_packet(net.b, "10.77.0.1")
    assert virtual in endpoint(b)
    net.a.run(["ip", "address", "delete", f"{virtual}/{BITS[net.outer]}", "dev", "eth0"])
    own = {4: f"{net.own(0)}:", 6: f"[{net.own(0)}]:"}[net.outer]
    net.b.wait_for(lambda: own in endpoint(b), 4, "the keepalive from the address that stayed")
    one_packet(net.a, "10.77.0.2")


@both
def test_an_address_that_is_there_for_any_route_stays(net: TwoUplinks) -> None:
    """As routing protocols have it, on lo: routes to peers come and go."""
    anycast = net.own(0, 99)
    length = {4: 32, 6: 128}[net.outer]
    net.a.add_addresses("lo", [f"{anycast}/{length}"])
    to_it = ["ip", f"-{net.outer}", "route", "replace", f"{anycast}/{length}", "via"]
    net.router.run([*to_it, net.own(0)])
    net.route(f"add default via {net.gateway(0)} metric 1024")
    a, b = bring_up(net, anycast)
    one_packet(net.b, "10.77.0.1")
    net.lose(net.own(1))
    net.move("replaced")
    for _ in range(3):
        one_packet(net.a, "10.77.0.2")
        one_packet(net.b, "10.77.0.1")
    assert anycast in endpoint(b)
    assert "has moved" not in net.a.run(["cat", "/run/tunnel/wg0.log"]).stdout
    assert drops(a) == drops(b) == {}


@pytest.mark.parametrize("net", [4], indirect=True)
def test_a_route_to_elsewhere_changes_nothing(net: TwoUplinks) -> None:
    net.route(f"add default via {net.gateway(1)}")
    _, b = bring_up(net, net.own(0))
    one_packet(net.b, "10.77.0.1")
    net.route(f"add {UNRELATED[net.outer]} via {net.gateway(0)}")
    for _ in range(3):
        one_packet(net.a, "10.77.0.2")
        one_packet(net.b, "10.77.0.1")
    assert net.own(0) in endpoint(b)


@pytest.mark.parametrize("net", [4], indirect=True)
def test_peers_hear_from_a_new_port_at_once(net: TwoUplinks) -> None:
    net.route(f"add default via {net.gateway(0)}")
    a, b = bring_up(net, None)
    one_packet(net.a, "10.77.0.2")
    port = status(a)["listen_port"]
    text = a.conf.read_text()
    assert f"ListenPort = {port}\n" in text
    a.conf.write_text(text.replace(f"ListenPort = {port}\n", "ListenPort = 40404\n"))
    a.tunnel("reload", "wg0")
    net.b.wait_for(lambda: endpoint(b).endswith(":40404"), 4, "the keepalive from the new port")
    one_packet(net.b, "10.77.0.1")


@pytest.mark.parametrize(
    ("net", "datapath"), [(4, "python"), (6, available()[0])], indirect=["net"]
)
def test_an_endpoint_that_is_routed_into_its_own_tunnel_makes_no_loop(
    net: TwoUplinks, datapath: str
) -> None:
    """In a session and from the start: what comes back is dropped, and reported once."""
    net.route(f"add default via {net.gateway(0)}")
    here = Node(net.a, ("10.77.0.1/24",), None)
    peer = net.peer
    there = Node(net.b, ("10.77.0.2/24",), peer, routes=(peer,))
    ends = mesh([here, there], environment={"TUNNEL_DATAPATH": datapath})
    a, b = ends["a"], ends["b"]
    assert isinstance(a, OurEnd)
    a.up()
    b.up()

    def sent() -> int:
        return int(net.a.run(["cat", "/sys/class/net/wg0/statistics/tx_packets"]).stdout)

    def reports() -> int:
        log = net.a.run(["cat", "/run/tunnel/wg0.log"]).stdout
        return log.count("leads into the tunnel itself")

    length = {4: 32, 6: 128}[net.outer]
    net.route(f"del {peer}/{length} dev wg0")
    one_packet(net.a, "10.77.0.2")
    before = sent()
    net.route(f"add {peer}/{length} dev wg0")
    # Their datagrams exceed the MTU of the tunnel, so each comes back in two fragments.
    many = ["ping", "-n", "-c", "20", "-i", "0.01", "-W", "1", "-s", "1392", "10.77.0.2"]
    net.a.run(many, check=False)
    assert drops(a)["routing_loop"] >= 20
    assert sent() - before < 20 * 8
    assert reports() == 1
    a.down()
    a.up()
    net.a.run(["ping", "-n", "-c", "1", "-W", "1", "10.77.0.2"], check=False)
    assert drops(a) == {"routing_loop": 1}
    assert reports() == 2


@pytest.mark.parametrize("net", [4, 6], indirect=True)
def test_what_a_route_refuses_is_counted(net: TwoUplinks) -> None:
    net.route(f"add default via {net.gateway(0)}")
    a, _ = bring_up(net, None)
    one_packet(net.a, "10.77.0.2")
    reasons = {
        "prohibit": "send_prohibited",
        "unreachable": "send_host_unreachable",
        "blackhole": "send_invalid",
        None: "send_network_unreachable",
    }
    net.route("del default")
    for kind, reason in reasons.items():
        if kind is not None:
            net.route(f"replace {kind} {net.peer}")
        before = drops(a).get(reason, 0)
        net.a.run(["ping", "-n", "-c", "1", "-W", "0.2", "10.77.0.2"], check=False)
        assert drops(a).get(reason, 0) > before, kind
        if kind is not None:
            net.route(f"del {kind} {net.peer}")
