"""Two real Docker engines whose containers reach each other through a tunnel."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import dns.message
import pytest

from tests.support.daemons import kill
from tests.support.docker import PROGRAMS
from tests.support.docker_hosts import (
    ETHERNET,
    ETHERNET_6,
    OUTSIDE,
    POOL_6,
    POOLS,
    DockerHost,
    compose,
    docker_hosts,
)
from tunnel.lab import Host, Lab, LabError

pytestmark = [pytest.mark.root, pytest.mark.real_root, pytest.mark.foreign(*PROGRAMS)]

Hosts = tuple[DockerHost, DockerHost, Host]

PUBLIC = "198.51.100.1"
"""Host a's address outside of the tunnel."""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Hosts a and b, each with three containers on the network net: a1, a2, a3, b1, b2, b3."""

    with Lab() as lab, docker_hosts(lab, "--live-restore") as found:
        for one in found[:2]:
            one.start_plugin()
        with ThreadPoolExecutor() as pool:
            list(pool.map(fill, found[:2]))
        yield found


def fill(one: DockerHost) -> None:
    """Have the tunnel, the network and its containers."""
    one.end.up()
    one.create("net")
    for number in (1, 2, 3):
        one.start(f"{one.host.name}{number}", "--network-alias", f"all-{one.host.name}")


def pings(one: DockerHost, container: str, whom: str, *options: str, seconds: int = 5) -> bool:
    command = ("ping", *options, "-q", "-c", "1", "-W", str(seconds), whom)
    return "1 packets received" in one.engine.inside(container, *command, check=False)


def none_pings(*pairs: tuple[DockerHost, str, str]) -> bool:
    """Whether of these hosts, containers and addresses none gets an answer; all wait at once."""
    with ThreadPoolExecutor(len(pairs)) as pool:
        return not any(pool.map(lambda pair: pings(*pair, seconds=1), pairs))


FETCH = ("timeout", "5", "wget", "-q", "-O", "-")


def fetch(host: Host, url: str) -> str:
    """What is at `url`, or nothing."""
    return host.run(["busybox", *FETCH, url], check=False).stdout.strip()


def test_every_pair_of_containers_pings_by_name(hosts: Hosts) -> None:
    a, b, _ = hosts
    names = {f"{of}{number}": one for one, of in ((a, "a"), (b, "b")) for number in (1, 2, 3)}
    for name, other in itertools.permutations(names, 2):
        assert pings(names[name], name, other), f"{name} pings {other}"


def test_the_services_of_the_example_find_each_other(hosts: Hosts) -> None:
    a, b, out = hosts
    services = compose()["services"]
    assert (services["web"]["profiles"], services["db"]["profiles"]) == ("[a]", "[b]")
    for one, name in ((a, "web"), (b, "db")):
        ports = [word for port in services[name].get("ports", ()) for word in ("-p", port)]
        one.start(f"shop-{name}-1", "--network-alias", name, *ports)
    assert pings(a, "shop-web-1", "db")
    assert pings(b, "shop-db-1", "web")
    a.engine.inside("shop-web-1", "httpd", "-p", "80", "-h", "/etc")
    assert fetch(out, f"http://{PUBLIC}:8080/hostname")
    for one, name in ((a, "web"), (b, "db")):
        one.engine.docker("rm", "-f", f"shop-{name}-1")


def test_names_are_those_that_docker_knows(hosts: Hosts) -> None:
    a, b, _ = hosts
    asked = a.engine.inside("a1", "nslookup", "-type=a", "all-b", check=False)
    assert all(b.engine.address(name) in asked for name in ("b1", "b2", "b3"))
    assert pings(a, "a1", "b2.net")
    assert pings(a, "a1", b.engine.docker("ps", "-q", "--filter", "name=b3").strip())
    b.start("later")
    assert pings(a, "a1", "later")
    b.engine.docker("rm", "-f", "later")
    assert not pings(a, "a1", "later")


def test_a_name_that_no_host_has_is_asked_of_the_name_server_that_was_meant(hosts: Hosts) -> None:
    a, _, out = hosts
    with out.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((OUTSIDE, 53))
        server.settimeout(10)
        a.start("resolving", "--dns", OUTSIDE)
        asking = ("exec", "-d", "resolving", "nslookup", "www.example.com")
        a.engine.docker(*asking)
        assert b"\x03www\x07example\x03com" in server.recv(512)
        a.engine.docker("exec", "-d", "resolving", "nslookup", "printer")
        while b"\x07printer" not in (query := server.recv(512)):
            assert b"example" in query, "what is asked again"
    a.engine.docker("rm", "-f", "resolving")


def test_published_ports_lead_to_the_container(hosts: Hosts) -> None:
    a, b, out = hosts
    a.start("web", "--hostname", "web", "-p", "8080:80", "-p", "127.0.0.1:8081:80")
    a.engine.inside("web", "httpd", "-p", "80", "-h", "/etc")
    for host, address in (
        (out, PUBLIC),
        (a.host, PUBLIC),
        (a.host, "127.0.0.1"),
        (b.host, "10.77.0.1"),
    ):
        assert fetch(host, f"http://{address}:8080/hostname") == "web", f"{host.name} {address}"
    assert fetch(a.host, "http://127.0.0.1:8081/hostname") == "web"
    assert fetch(out, f"http://{PUBLIC}:8081/hostname") == ""
    for one, name in ((a, "a1"), (a, "web"), (b, "b1")):
        url = f"http://{PUBLIC if one is a else '10.77.0.1'}:8080/hostname"
        assert one.engine.inside(name, *FETCH, url).strip() == "web", name
    taken = a.engine.docker(
        "run", "--rm", "--network", "net", "-p", "8080:80", "busybox", "true", check=False
    )
    assert "-p 8080:80/tcp: port 8080 is already published by another container" in taken
    a.engine.docker("restart", "-t", "0", "web")
    a.engine.inside("web", "httpd", "-p", "80", "-h", "/etc")
    assert fetch(out, f"http://{PUBLIC}:8080/hostname") == "web"
    a.engine.docker("rm", "-f", "web")
    assert fetch(out, f"http://{PUBLIC}:8080/hostname") == ""
    assert not [line for line in a.ruleset() if "published" in line]


def test_only_containers_and_other_hosts_are_answered(hosts: Hosts) -> None:
    a, b, out = hosts
    (rule,) = (line for line in a.ruleset() if "udp dport 5354" in line)
    port = int(rule.split("10.90.0.1:")[1].split()[0])
    query = dns.message.make_query("a1", "A").to_wire()
    out.ip("route replace 10.90.0.1 via 198.51.100.1")
    for host, port_asked, is_answered in (
        (out, port, False),
        (out, 5354, False),
        (b.host, 5354, True),
    ):
        with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5 if is_answered else 0.5)
            whom = "10.90.0.100" if host is b.host else "10.90.0.1"
            sock.connect((whom, port_asked))
            sock.send(query)
            try:
                answer = dns.message.from_wire(sock.recv(512))
                assert is_answered, f"{host.name} {port_asked}"
                assert a.engine.address("a1") in answer.to_text()
            except (TimeoutError, ConnectionRefusedError):
                assert not is_answered, f"{host.name} {port_asked}"


def test_the_way_out_and_what_is_shut(hosts: Hosts) -> None:
    a, b, out = hosts
    assert pings(a, "a1", OUTSIDE), "which knows no way back to the container"
    out.ip("route replace 10.90.0.0/24 via 198.51.100.1")
    with pytest.raises(LabError):
        out.ping(a.engine.address("a1"), timeout=1)
    a.engine.start("elsewhere")
    other = a.engine.address("elsewhere")
    assert pings(a, "elsewhere", OUTSIDE)
    a1, b1 = a.engine.address("a1"), b.engine.address("b1")
    assert none_pings((a, "elsewhere", a1), (a, "a1", other), (a, "elsewhere", b1))
    a.engine.docker("rm", "-f", "elsewhere")


def test_an_internal_network_reaches_its_own_containers_alone(hosts: Hosts) -> None:
    a, b, _ = hosts
    for one, name in ((a, "ai"), (b, "bi")):
        one.create("inner", "--internal", pool=POOLS[1])
        one.start(name, network="inner")
    assert pings(a, "ai", "bi")
    assert pings(b, "bi", a.engine.address("ai"))
    ai, a1, b1 = a.engine.address("ai"), a.engine.address("a1"), b.engine.address("b1")
    out_of_it = [(a, "ai", whom) for whom in (OUTSIDE, a1, b1, "10.77.0.2")]
    assert none_pings(*out_of_it, (a, "a1", ai), (b, "b1", ai))
    for one, name in ((a, "ai"), (b, "bi")):
        one.engine.docker("rm", "-f", name)
        one.engine.docker("network", "rm", "inner")


def test_what_cannot_be_is_refused_where_the_command_was_given(hosts: Hosts) -> None:
    a, _, _ = hosts
    before = a.surroundings()
    same = a.create("again", check=False)
    assert "10.90.0.0/24 overlaps 10.90.0.0/24 of the network" in same
    assert "the tunnel nope cannot be used" in a.create("other", "-o", "conf=nope", check=False)
    assert "mode=tap" in a.create("other", "-o", "mode=tap", pool=POOLS[1], check=False)
    a.host.ip("route add 10.91.0.192/26 via 198.51.100.9")
    refusal = a.create("other", pool=POOLS[1], check=False)
    a.host.ip("route del 10.91.0.192/26")
    assert "overlaps a route of this host (10.91.0.192/26 dev eth1)" in refusal
    run = ("run", "--rm", "--network", "net", "--ip")
    for address, why in (
        ("10.90.0.200", "10.90.0.200 is another host's: this host's part"),
        (a.engine.address("a1"), "is in use by another container of this network"),
    ):
        assert why in a.engine.docker(*run, address, "busybox", "true", check=False)
    assert a.surroundings() == before
    assert pings(a, "a1", "b1")


def test_a_network_has_ipv6_too(hosts: Hosts) -> None:
    a, b, _ = hosts
    for one, name in ((a, "a6"), (b, "b6")):
        one.create("six", "--ipv6", "--subnet", POOL_6, pool=POOLS[1])
        one.start(name, network="six")
    assert pings(a, "a6", "b6", "-6")
    assert pings(b, "b6", "a6", "-6")
    for one, name in ((a, "a6"), (b, "b6")):
        one.engine.docker("rm", "-f", name)
        one.engine.docker("network", "rm", "six")


def test_docker_may_give_the_addresses_itself(hosts: Hosts) -> None:
    a, b, _ = hosts
    make = ("network", "create", "-d", "tunnel", "-o", "conf=office", "--subnet", POOLS[1])
    for one, part in zip((a, b), ("10.91.0.0/25", "10.91.0.128/25"), strict=True):
        one.engine.docker(*make, "--ip-range", part, "plain")
        one.start("plain1", network="plain")
    assert pings(a, "plain1", b.engine.address("plain1"))
    for one in (a, b):
        one.engine.docker("rm", "-f", "plain1")
        one.engine.docker("network", "rm", "plain")
    b.engine.docker(*make, "plain")
    refused = b.engine.docker("run", "--network", "plain", "busybox", "true", check=False)
    assert "is another host's" in refused
    assert "--ip-range 10.91.0.128/25 or --ipam-driver tunnel --ipam-opt conf=office" in refused
    b.engine.docker("network", "rm", "plain")


# One Ethernet network on both hosts


def test_containers_of_two_hosts_are_in_one_ethernet_network(hosts: Hosts) -> None:
    a, b, out = hosts
    before = [one.surroundings() for one in (a, b)]
    ends = [one.ethernet() for one in (a, b)]
    of_l2 = ("-o", "conf=l2", "--ipam-opt", "conf=l2")
    for one, end in zip((a, b), ends, strict=True):
        end.up()
        assert "add -o mode=tap" in one.create("lan", *of_l2, pool=ETHERNET, check=False)
        one.create("lan", *of_l2, "-o", "mode=tap", pool=ETHERNET)
        one.start(f"l{one.host.name}1", "-p", "8090:80", network="lan")
    second = a.create("lan2", *of_l2, "-o", "mode=tap", pool=ETHERNET, check=False)
    assert "the bridge br0 of l2 is that of the network" in second
    a.start("la2", network="lan")

    # By name, without a router; and what answers is the container's own card.
    assert pings(a, "la1", "lb1", "-t", "1")
    assert pings(b, "lb1", "la1", "-t", "1")
    there = b.engine.address("lb1")
    assert there == "10.92.0.129", "the first address of the part is the host's own"
    card = b.engine.inside("lb1", "cat", "/sys/class/net/eth0/address").strip()
    answer = a.engine.inside("la1", "arping", "-c", "1", "-w", "5", "-I", "eth0", there)
    assert f"[{card}]" in answer
    a.engine.inside("la1", "ping", "-c", "1", "-W", "5", "10.92.0.128")

    # What is around it.
    assert pings(a, "la1", OUTSIDE)
    a.engine.inside("la1", "httpd", "-p", "80", "-h", "/etc")
    name = a.engine.inside("la1", "hostname").strip()
    for host, url in ((out, f"http://{PUBLIC}:8090"), (a.host, "http://127.0.0.1:8090")):
        assert fetch(host, f"{url}/hostname") == name
    la1, a1 = a.engine.address("la1"), a.engine.address("a1")
    assert none_pings((a, "la1", a1), (a, "a1", la1), (b, "b1", la1))

    # The bridge is there as long as one of both needs it.
    kill(ends[0])
    a.host.wait_for(lambda: "l2" not in a.host.interfaces(), 10, "the interface to go")
    assert pings(a, "la1", "la2")
    ends[0].up()
    assert pings(a, "la1", "lb1")
    a.engine.inside("la1", "arping", "-c", "1", "-w", "5", "-I", "eth0", there)
    ends[0].down()
    assert pings(a, "la1", la2 := a.engine.address("la2"))
    assert pings(a, "la1", "10.92.0.1"), "the gateway's address is the network's too"
    assert fetch(out, f"http://{PUBLIC}:8090/hostname") == name
    a.host.ip("link delete br0")
    a.engine.docker("restart", "-t", "0", "la1", "la2")
    assert pings(a, "la1", la2)
    ends[0].up()
    assert pings(a, "la1", "lb1")
    assert pings(b, "lb1", "la1")

    # Whichever goes last, nothing is left.
    a.engine.docker("rm", "-f", "la1", "la2")
    b.engine.docker("rm", "-f", "lb1")
    a.engine.docker("network", "rm", "lan")
    assert "10.92.0.1/24" in [str(each.address) for each in a.host.addresses("br0")]
    ends[1].down()
    assert "br0" in b.host.interfaces()
    b.engine.docker("network", "rm", "lan")
    ends[0].down()
    assert [one.surroundings() for one in (a, b)] == before


def test_one_ethernet_network_may_be_internal_and_have_ipv6(hosts: Hosts) -> None:
    a, b, out = hosts
    before = [one.surroundings() for one in (a, b)]
    ends = [one.ethernet() for one in (a, b)]
    options = ("-o", "conf=l2", "--ipam-opt", "conf=l2", "-o", "mode=tap", "--internal")
    # Addresses that no container had before: conntrack keeps what others have begun for a while.
    for one, end, own in zip((a, b), ends, ("10.92.0.77", "10.92.0.177"), strict=True):
        end.up()
        one.create("shut", *options, "--ipv6", "--subnet", ETHERNET_6, pool=ETHERNET)
        one.start(f"s{one.host.name}1", "--ip", own, network="shut")
    for version in ("-4", "-6"):
        assert pings(a, "sa1", "sb1", version, "-t", "1")
        assert pings(b, "sb1", "sa1", version, "-t", "1")
    shut, a1, b1 = (one.engine.address(name) for one, name in ((a, "sa1"), (a, "a1"), (b, "b1")))
    out.ip(f"route replace {shut} via {PUBLIC}")
    out_of_it = [(a, "sa1", whom) for whom in (OUTSIDE, a1, b1, "10.77.0.2")]
    assert none_pings(*out_of_it, (a, "a1", shut), (b, "b1", shut))
    with pytest.raises(LabError):
        out.ping(shut, timeout=1)
    a.engine.docker("rm", "-f", "sa1")
    b.engine.docker("rm", "-f", "sb1")
    # Though the plugin has lost what it knew of the network, nothing stays of it on the bridge.
    lost = b.engine.docker("network", "inspect", "-f", "{{.Id}}", "shut").strip()
    b.restart_plugin(lambda state: state["networks"].pop(lost))
    assert [line for line in b.ruleset() if "table inet tunnel-br0" in line]
    for one, end in zip((a, b), ends, strict=True):
        one.engine.docker("network", "rm", "shut")
        assert not [line for line in one.ruleset() if "table inet tunnel-br0" in line]
        end.down()
    assert [one.surroundings() for one in (a, b)] == before


# What is killed


@contextlib.contextmanager
def talking(hosts: Hosts) -> Iterator[Callable[[], None]]:
    """A container of a pings one of b, ten times a second; what is yielded waits for the next
    answers.
    """
    a, b, _ = hosts
    folder = a.engine.folder / "talk"
    folder.mkdir(exist_ok=True)
    log = folder / "log"
    a.start("talker", "-v", f"{folder}:/talk")
    command = f"exec ping -i 0.1 {b.engine.address('b1')} >/talk/log"
    a.engine.docker("exec", "-d", "talker", "sh", "-c", command)

    def answers() -> int:
        return log.read_text().count("time=") if log.exists() else 0

    def goes_on() -> None:
        known = answers()
        a.host.wait_for(lambda: answers() > known + 2, 10, "answers from the other host")

    goes_on()
    yield goes_on
    a.engine.docker("rm", "-f", "talker")


def test_containers_talk_on_without_the_plugin(hosts: Hosts) -> None:
    a, b, _ = hosts
    assert a.plugin is not None
    with talking(hosts) as goes_on:
        rules = a.ruleset()
        a.plugin.kill()
        goes_on()
        assert pings(b, "b1", a.engine.address("a1"))
        a.start_plugin()
        goes_on()
        assert a.ruleset() == rules, "what stands is not touched"
        assert pings(a, "a1", "b1")
        a.start("fresh")
        assert pings(b, "b1", "fresh")
        a.engine.docker("rm", "-f", "fresh")


def test_containers_talk_on_when_the_tunnel_is_back(hosts: Hosts) -> None:
    a, _, _ = hosts
    with talking(hosts) as goes_on:
        kill(a.end)
        a.host.wait_for(lambda: "office" not in a.host.interfaces(), 10, "the interface to go")
        a.end.up()
        goes_on()
    assert pings(a, "a1", "b1")


def test_containers_talk_on_without_dockerd(hosts: Hosts) -> None:
    a, _, _ = hosts
    with talking(hosts) as goes_on:
        os.kill(a.engine.pid(), signal.SIGKILL)
        goes_on()
        a.engine.wait()
        goes_on()
        assert pings(a, "a1", "b1")
        a.engine.docker("restart", "-t", "0", "a2")
        assert pings(a, "a2", "b2")


def test_what_was_taken_away_is_put_back(hosts: Hosts) -> None:
    a, b, _ = hosts
    assert a.plugin is not None
    before = a.surroundings()
    bridge = next(name for name in a.host.interfaces() if name.startswith("tn-"))
    a.plugin.kill()
    a.host.run(["nft", "delete", "table", "inet", f"tunnel-{bridge}"])
    a.host.run(["iptables", "-D", "DOCKER-USER", "1"])
    a.host.ip(f"link delete {bridge}")
    a.start_plugin()
    assert a.surroundings() == before
    assert pings(a, "a1", "b1")
    assert pings(b, "b3", "a3")


def test_a_network_that_went_while_the_plugin_was_away_is_forgotten(hosts: Hosts) -> None:
    a, _, _ = hosts
    assert a.plugin is not None
    before = a.surroundings()
    a.create("short", pool=POOLS[1])
    a.plugin.kill()
    state = a.engine.folder / "tunnel" / "networks.json"
    kept = state.read_text()
    a.start_plugin()
    a.engine.docker("network", "rm", "short")
    a.plugin.kill()
    state.write_text(kept)  # as if it had been killed before it heard of that
    a.start_plugin()
    a.host.wait_for(lambda: a.surroundings() == before, 10, "the network to go")
    assert pings(a, "a1", "b1"), "the other one stays"


def test_a_network_goes_though_its_record_is_damaged(hosts: Hosts) -> None:
    a, _, _ = hosts
    before = a.surroundings()
    bridges = set(a.host.interfaces())
    a.create("short", pool=POOLS[1])
    (bridge,) = set(a.host.interfaces()) - bridges
    record = f"/run/tunnel/{bridge}.state"
    a.host.run(["tee", record], stdin="{")
    refused = a.engine.docker("run", "--rm", "--network", "short", "busybox", "true", check=False)
    assert f"{record}: not a record of ours" in refused
    a.engine.docker("network", "rm", "short")
    assert a.surroundings() == before
    assert a.host.run(["ls", record], check=False).stdout == ""


def test_nothing_of_a_removed_network_stays(hosts: Hosts) -> None:
    for one, name in zip(hosts[:2], "ab", strict=True):
        one.engine.docker("rm", "-f", *(f"{name}{number}" for number in (1, 2, 3)))
        one.engine.docker("network", "rm", "net")
        one.end.down()
        assert one.surroundings() == one.before
        fill(one)  # another test may follow
