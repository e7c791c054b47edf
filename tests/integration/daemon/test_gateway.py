"""What the gateway's keys do to packets: forwarding, translation, isolation, kill switch."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.support.daemons import kill, rewrite, status
from tests.support.docker import PROGRAMS, engine
from tests.support.full_tunnel import ELSEWHERE, World, make_world, say_much
from tests.support.gateway import (
    LAN,
    OUTSIDE,
    B,
    C,
    Gateway,
    listening,
    make_gateway,
    reach,
)
from tests.support.outgoing import Outgoing
from tunnel.lab import Host, Lab, LabError
from tunnel.lab.peers import OurEnd
from tunnel.lab.process import HostProcess

pytestmark = pytest.mark.root

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
SYSCTLS = (
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.eth0.accept_ra",
    "net.ipv4.conf.all.send_redirects",
)


def kernel_settings(host: Host) -> list[str]:
    return host.run(["sysctl", "-n", *SYSCTLS]).stdout.split()


def routes(host: Host) -> list[str]:
    found = [host.run(["ip", *words]).stdout for words in (("route",), ("-6", "route"), ("rule",))]
    return [*host.interfaces(), *"".join(found).splitlines()]


def ruleset(host: Host) -> str:
    return host.run(["nft", "list", "ruleset"]).stdout


@pytest.fixture
def net(lab: Lab) -> Iterator[Gateway]:
    net = make_gateway(lab)
    before = kernel_settings(net.gw), ruleset(net.gw), routes(net.gw)
    assert before[:2] == (["0", "0", "1", "1"], "")
    net.end.up()
    yield net
    net.end.down()
    assert (kernel_settings(net.gw), ruleset(net.gw), routes(net.gw)) == before


def is_refused(client: Host, address: str, port: int, server: socket.socket) -> bool:
    """Whether a firewall says no: there is a server."""
    with pytest.raises(ConnectionRefusedError):
        reach(client, address, port, server)
    return True


def test_masquerade_lets_hosts_without_a_way_back_answer(net: Gateway) -> None:
    with pytest.raises(LabError):
        net.b.ping(LAN[0], timeout=1)
    assert kernel_settings(net.gw) == ["0", "0", "1", "1"]
    net.set("Masquerade = auto")
    assert kernel_settings(net.gw) == ["1", "1", "2", "0"], "router advertisements are still taken"
    for address, own in zip(LAN, ("192.168.1.1", "fd01::1"), strict=True):
        net.b.ping(address)
        with listening(net.lan, address, 80, TCP) as server:
            assert reach(net.b, address, 80, server) == own
    net.set("Masquerade = eth0")
    with pytest.raises(LabError):
        net.b.ping(LAN[0], timeout=1)
    net.set()
    assert kernel_settings(net.gw) == ["0", "0", "1", "1"]
    assert ruleset(net.gw) == ""


@pytest.mark.parametrize("version", [0, 1], ids=["ipv4", "ipv6"])
def test_published_ports_lead_into_the_tunnel(net: Gateway, version: int) -> None:
    here, there = OUTSIDE[version], B[version]
    outside, target = (f"[{here}]", f"[{there}]") if version else (here, there)
    net.set(
        f"Publish = {outside}:8080:{target}:80, 5300-5302:{target}:5310-5312/udp",
        f"Publish = 7000-7010:{target}",
    )
    own = ("10.77.0.1", "fd77::1")[version]
    with listening(net.b, there, 80, TCP) as server:
        assert reach(net.out, here, 8080, server) == own
        assert reach(net.gw, here, 8080, server) == own, "from the gateway itself"
        with pytest.raises(ConnectionRefusedError):
            reach(net.out, here, 80, server)
        with pytest.raises(ConnectionRefusedError):
            reach(net.b, own, 8080, server)  # published on another address
    with listening(net.b, there, 5312, UDP) as server:
        assert reach(net.out, here, 5302, server) == own
    with listening(net.b, there, 7010, TCP) as server:
        assert reach(net.c, own, 7010, server) == own, "from another peer"


def test_peers_are_isolated_but_for_what_is_allowed(net: Gateway) -> None:
    name = status(net.end)["peers"][0]["public_key"]
    net.set("Forward = on")
    with listening(net.c, C[0], 22, TCP) as ssh, listening(net.c, C[0], 80, TCP) as http:
        assert reach(net.b, C[0], 22, ssh) == B[0]
        net.set("Forward = on", "Isolate = on")
        with traced(net, f"host {C[0]} and tcp") as trace:
            assert is_refused(net.b, C[0], 22, ssh)
            trace.wait_for_output('"Isolate = on"')
        net.gw.ping(C[0])
        net.b.ping("10.77.0.1")
        net.set("Forward = on", "Isolate = on", f"Allow = {name} -> {C[0]}:22/tcp")
        assert reach(net.b, C[0], 22, ssh) == B[0]
        with traced(net, f"host {C[0]} and tcp") as trace:
            assert is_refused(net.b, C[0], 80, http)
            trace.wait_for_output('may reach nothing else"')
        net.set("Forward = on", f"Allow = {B[0]} → {C[0]}:80")
        assert reach(net.b, C[0], 80, http) == B[0]
        assert is_refused(net.b, C[0], 22, ssh)
        assert "Allow: 10.77.0.2 may reach nothing else" in net.end.tunnel("firewall", "wg0")
    with listening(net.gw, "10.77.0.1", 80, TCP) as server:
        assert is_refused(net.b, "10.77.0.1", 80, server), "nor what this host offers"
        assert reach(net.c, "10.77.0.1", 80, server) == C[0]


@contextlib.contextmanager
def traced(net: Gateway, wanted: str) -> Iterator[HostProcess]:
    """What `tunnel trace` of the gateway prints of these packets."""
    trace = net.gw.popen([*tunnel_command(), "trace", "wg0", wanted, "--count", "1"])
    trace.wait_for_output("tracing wg0")
    yield trace
    trace.wait(10)


def test_a_network_is_seen_under_another_address(net: Gateway) -> None:
    net.set("Netmap = 192.168.1.0/24 -> 10.71.1.0/24, fd01::/64 -> fd71::/64")
    net.lan.ip("route add 10.77.0.0/24 via 192.168.1.1", "route add fd77::/64 via fd01::1")
    shown = ("10.71.1.10", "fd71::10")
    for address, own, peer in zip(shown, LAN, B, strict=True):
        with listening(net.lan, own, 80, TCP) as server:
            assert reach(net.b, address, 80, server) == peer
        with listening(net.b, peer, 80, TCP) as server:
            assert reach(net.lan, peer, 80, server) == address


def test_segments_of_forwarded_connections_are_limited(net: Gateway) -> None:
    def segment(*lines: str) -> int:
        net.set("Masquerade = auto", *lines)
        with (
            listening(net.lan, LAN[0], 80, TCP) as server,
            net.b.socket(socket.AF_INET, TCP) as client,
        ):
            client.settimeout(10)
            client.connect((LAN[0], 80))
            served, _ = server.accept()
            with served:
                return served.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)

    free = segment()
    assert segment("ClampMSS = 800") <= 800 < free
    net.gw.ip("link set eth1 mtu 1300")
    net.lan.ip("link set eth0 mtu 1400")
    assert segment("ClampMSS = auto") <= 1260


def test_each_entry_is_a_line_of_a_diff_and_what_is_taken_comes_back(net: Gateway) -> None:
    def plan() -> list[str]:
        changes = json.loads(net.end.tunnel("diff", "wg0", "--json"))["changes"]
        return [f"{each['sign']} {each['subject']}" for each in changes]

    net.set("Masquerade = auto", "Isolate = on")
    assert plan() == []
    text = net.end.conf.read_text()
    net.end.conf.write_text(text.replace("Isolate = on", "ClampMSS = auto"))
    assert plan() == ["- firewall Isolate = on", "+ firewall ClampMSS = auto"]
    net.end.conf.write_text(text)
    net.gw.run(["nft", "delete", "table", "inet", "tunnel-wg0"])
    net.gw.wait_for(lambda: status(net.end)["missing"], 10, "the daemon to notice")
    assert status(net.end)["missing"] == ["firewall Isolate = on; firewall Masquerade = auto"]
    net.end.tunnel("reload", "wg0")
    net.b.ping(LAN[0])


def test_all_is_gone_after_a_kill(net: Gateway) -> None:
    net.set("Masquerade = auto", f"Publish = 8080:{B[0]}:80")
    kill(net.end)
    net.gw.wait_for(lambda: "wg0" not in net.gw.interfaces(), 10, "the interface to go")
    assert kernel_settings(net.gw) == ["1", "1", "2", "0"]
    net.end.down()
    assert kernel_settings(net.gw) == ["0", "0", "1", "1"]
    net.end.up()  # for the fixture


# The kill switch


@pytest.fixture
def shut(lab: Lab) -> World:
    """Host a of a full tunnel with a kill switch, not up yet, and a neighbour on its own cable."""
    return make_world(lab)


def end_of(world: World, *lines: str) -> OurEnd:
    head = "".join(f"#! tunnel: {line}\n" for line in ("KillSwitch = on", *lines))
    return OurEnd(world.nodes[0], head + world.confs[0])


def speaks_in_clear(world: World) -> list[str]:
    """What host a sends past the tunnel while it tries to reach all kinds of places."""
    with Outgoing(world.a) as seen:
        say_much(world.a)
        for address in ELSEWHERE:
            with pytest.raises(LabError):
                world.a.ping(address, timeout=1)
        seen.read(*world.endpoints)
        return seen.strangers


def test_nothing_leaves_once_the_daemon_was_killed(shut: World) -> None:
    a, end = shut.a, end_of(shut)
    end.up()
    for address in ELSEWHERE:
        a.ping(address)
    kill(end)
    a.wait_for(lambda: "wg0" not in a.interfaces(), 10, "the interface to go")
    assert "its kill switch refuses all" in end.tunnel("doctor", "wg0", check=False)
    assert speaks_in_clear(shut) == []
    a.run(["ping", "-c", "1", "-W", "2", "-I", "eth0", "fe80::1"], check=False)  # the cable is open
    # What systemd does after a service that failed.
    a.run(
        [*tunnel_command(), "down", "--leftovers", "wg0"], environment={"SERVICE_RESULT": "signal"}
    )
    assert speaks_in_clear(shut) == []
    end.up()
    for address in ELSEWHERE:
        a.ping(address)
    end.down()
    assert ruleset(a) == ""
    assert speaks_in_clear_is_possible(shut)


def tunnel_command() -> list[str]:
    return ["python3", "-m", "tunnel"]


def speaks_in_clear_is_possible(world: World) -> bool:
    """Whether the probe would see anything at all."""
    with Outgoing(world.a) as seen:
        say_much(world.a)
        seen.read(*world.endpoints)
        return bool(seen.strangers)


def test_nothing_leaves_when_the_interface_is_taken_away(shut: World) -> None:
    a, end = shut.a, end_of(shut)
    up = a.popen([*tunnel_command(), "up", "-f", str(end.conf)])
    up.wait_for_output("wg0 is up")
    a.ip("link delete wg0")
    assert up.wait(10) == 1, "systemd starts it again, and cleans up as after any failure"
    assert "the kill switch of wg0 stays; to open it: tunnel down wg0" in up.log()
    a.run(
        [*tunnel_command(), "down", "--leftovers", "wg0"],
        environment={"SERVICE_RESULT": "exit-code"},
    )
    assert speaks_in_clear(shut) == []
    end.down()
    assert ruleset(a) == ""


@contextlib.contextmanager
def talking(host: Host) -> Iterator[None]:
    """The host sends by IPv4 and IPv6, to name servers too, all the time."""
    over = threading.Event()

    def talk() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                say_much(host)

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        yield
    finally:
        over.set()
        talker.join()


def test_nothing_leaves_while_it_is_killed_and_restarted_under_traffic(shut: World) -> None:
    a, end = shut.a, end_of(shut, "Repair = on")
    end.up()
    with Outgoing(a) as seen:
        with talking(a):
            kill(end)
            a.wait_for(lambda: "wg0" not in a.interfaces(), 10, "the interface to go")
            end.up()
            first = status(end)["pid"]
            end.tunnel("restart", "wg0")
            assert status(end)["pid"] != first
        seen.read(*shut.endpoints)
        assert seen.strangers == []
        assert seen.tunnelled > 10_000
    for address in ELSEWHERE:
        a.ping(address)
    end.down()
    assert ruleset(a) == ""


def with_a_hook_that_fails(shut: World) -> str:
    return shut.confs[0].replace("[Interface]", "[Interface]\nPreUp = false", 1)


def with_a_route_that_is_taken(shut: World) -> str:
    shut.a.ip("route add 198.19.0.0/24 dev eth0")
    return shut.confs[0].replace("AllowedIPs = ", "AllowedIPs = 198.19.0.0/24, ", 1)


@pytest.mark.parametrize("where", [with_a_hook_that_fails, with_a_route_that_is_taken])
def test_nothing_leaves_when_it_cannot_come_up(shut: World, where: Callable[[World], str]) -> None:
    a = shut.a
    end = OurEnd(shut.nodes[0], "#! tunnel: KillSwitch = on\n" + where(shut))
    answer = end.tunnel("up", str(end.conf), check=False)
    assert "the kill switch of wg0 stays; to open it: tunnel down wg0" in answer
    assert speaks_in_clear(shut) == []
    end.down()
    assert ruleset(a) == ""


def test_a_reload_opens_and_shuts(shut: World) -> None:
    end = end_of(shut)
    end.up()
    text = end.conf.read_text()
    end.conf.write_text(text.replace("KillSwitch = on", "KillSwitch = off"))
    end.tunnel("reload", "wg0")
    assert "killswitch" not in ruleset(shut.a)
    end.conf.write_text(text)
    end.tunnel("reload", "wg0")
    assert "killswitch" in ruleset(shut.a)
    end.down()
    assert ruleset(shut.a) == ""


# Beside docker


@pytest.mark.foreign(*PROGRAMS)
@pytest.mark.real_root
def test_a_port_that_a_container_behind_a_peer_answers(lab: Lab) -> None:
    net = make_gateway(lab)
    net.end.up()
    with engine(net.b) as docker:
        docker.docker("network", "create", "--subnet", "172.30.0.0/24", "inner")
        docker.start("web", "--network", "inner")
        serve = "while :; do echo from $(hostname -i) | nc -l -p 80; done"
        docker.docker("exec", "-d", "web", "sh", "-c", serve)
        rewrite(net.end_b, "[Interface]\n", "[Interface]\n#! tunnel: Forward = on\n")
        net.end_b.tunnel("reload", "wg0")
        rewrite(net.end, f"= {B[0]}", f"= 172.30.0.0/24, {B[0]}")
        net.set("Publish = 8080:172.30.0.2:80")
        with net.out.socket(socket.AF_INET, TCP) as client:
            client.settimeout(10)
            client.connect((OUTSIDE[0], 8080))
            assert client.recv(100) == b"from 172.30.0.2\n"


@pytest.mark.foreign(*PROGRAMS)
@pytest.mark.real_root
def test_packets_pass_dockers_firewall(lab: Lab) -> None:
    net = make_gateway(lab)
    with engine(net.gw) as docker:
        assert "-P FORWARD DROP" in net.gw.run(["iptables", "-S", "FORWARD"]).stdout
        docker.start("c1")
        container = docker.address("c1")
        net.end.up()
        net.set("Masquerade = auto")
        net.b.ping(LAN[0])
        docker.inside("c1", "ping", "-c", "1", "-W", "5", B[0])
        net.b.ping(container)
        # Others may clear the chain, and docker makes it again when it starts.
        net.gw.run(["iptables", "-F", "DOCKER-USER"])
        net.b.ping(LAN[0])
        assert status(net.end)["missing"] == []
        net.end.down()
        assert "tunnel-wg0" not in ruleset(net.gw)
        docker.docker("rm", "-f", "c1")
        assert kernel_settings(net.gw)[0] == "1", "docker relies on forwarding"
        assert "-P FORWARD DROP" in net.gw.run(["iptables", "-S", "FORWARD"]).stdout


@pytest.mark.foreign(*PROGRAMS)
@pytest.mark.real_root
def test_docker_that_starts_later_lets_packets_pass(lab: Lab) -> None:
    net = make_gateway(lab)
    net.end.up()
    net.set("Masquerade = auto")
    with engine(net.gw):
        # As an administrator does, or docker itself where it turns forwarding on.
        net.gw.run(["iptables", "-P", "FORWARD", "DROP"])
        chain = ["iptables", "-S", "DOCKER-USER"]
        net.gw.wait_for(lambda: "tunnel-wg0" in net.gw.run(chain).stdout, 10, "our rules")
        net.b.ping(LAN[0])
        net.end.down()
        assert "tunnel-wg0" not in net.gw.run(chain).stdout
