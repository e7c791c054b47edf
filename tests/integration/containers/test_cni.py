"""`tunnel-cni`, called by the convention of CNI, with the real host-local for addresses."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.cni import Runtime, bring_up, network
from tests.support.hosts import TwoHosts
from tunnel.device.link_monitor import fitting_segments
from tunnel.lab import LabError

pytestmark = [pytest.mark.root, pytest.mark.foreign("host-local")]

SURROUNDINGS = (
    "nft list ruleset",
    "ip -o link",
    "ip route",
    "ip -6 route",
    "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding",
)


@pytest.fixture(name="sides")
def sides_fixture(two_hosts: TwoHosts) -> Iterator[tuple[Runtime, Runtime]]:
    """A runtime on each of two hosts, which are joined by the tunnel `office`."""
    a, b = bring_up([two_hosts.a, two_hosts.b])
    yield a, b
    a.remove_namespaces()
    b.remove_namespaces()


@pytest.fixture(name="alone")
def alone_fixture(two_hosts: TwoHosts) -> Iterator[Runtime]:
    """A runtime on a host whose peer is not up."""
    a, _ = bring_up([two_hosts.a, two_hosts.b], only=1)
    yield a
    a.remove_namespaces()


def test_containers_of_two_hosts_reach_each_other_and_nothing_stays(
    sides: tuple[Runtime, Runtime],
) -> None:
    a, b = sides
    before = [side.surroundings(SURROUNDINGS) for side in sides]
    result = a.add("one")
    assert result["cniVersion"] == "1.0.0"
    assert [ip["address"] for ip in result["ips"]] == ["10.90.1.2/24", "fd90:0:0:1::2/64"]
    bridge, outer, inner = result["interfaces"]
    assert (inner["name"], inner["sandbox"]) == ("eth0", "/run/netns/one")
    assert outer["name"] in a.host.interfaces()
    (shown,) = json.loads(a.inside("one", "ip", "-details", "-json", "link", "show", "eth0"))
    assert shown["address"] == inner["mac"]
    # What TCP sends in one frame leaves in one call once it is sealed.
    assert shown["gso_max_segs"] == fitting_segments(shown["mtu"]) < 64
    a.add("two")
    b.add("three")
    for address in ("10.90.1.3", "10.90.2.2", "10.77.0.2", "fd90:0:0:2::2", "fd77::2"):
        a.inside("one", "ping", "-c", "1", "-w", "5", address)
    assert a.check("one") == a.check("two") == b.check("three") == {}
    # The namespace may be gone before DEL, which may be called twice.
    a.host.run(["ip", "netns", "delete", "one"])
    a.delete("one")
    a.delete("one")
    assert bridge["name"] in a.host.interfaces(), "another container is there"
    a.inside("two", "ping", "-c", "1", "-w", "5", "10.90.2.2")
    a.delete("two")
    b.delete("three")
    assert [side.surroundings(SURROUNDINGS) for side in sides] == before


def test_the_way_out_is_masqueraded_if_asked_for(alone: Runtime) -> None:
    alone.config["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
    result = alone.add("one")
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.90.1.1"}]
    with pytest.raises(LabError):
        alone.inside("one", "ping", "-c", "1", "-W", "0.5", "192.0.2.2")
    alone.config["ipMasq"] = True
    alone.add("two")
    alone.inside("two", "ping", "-c", "1", "-w", "5", "192.0.2.2")
    alone.inside("one", "ping", "-c", "1", "-w", "5", "192.0.2.2")
    alone.delete("one")
    alone.delete("two")


def test_networks_of_one_host_are_apart(alone: Runtime) -> None:
    other = Runtime(alone.host, network(alone.host, 3) | {"name": "other"})
    for runtime in (alone, other):
        runtime.config["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
    alone.add("one")
    other.add("two")
    said = alone.inside("one", "ping", "-c", "1", "-W", "1", "10.90.3.2", check=False)
    assert "Packet filtered" in said
    alone.delete("one")
    assert other.check("two") == {}
    other.delete("two")


BREAKAGES = (
    {
        "ip netns exec one ip address delete 10.90.1.2/24 dev eth0": "eth0 lacks 10.90.1.2/24",
        "ip netns exec one ip -6 route delete fd77::2": "no route to fd77::2/128",
        "ip link set {outer} nomaster": "is not a port of bridge",
        "ip address delete 10.90.1.1/24 dev {bridge}": "lacks: address 10.90.1.1/24",
        "nft delete table inet tunnel-{bridge}": "lacks: firewall",
    },
    {
        "ip netns exec one ip link delete eth0": "no interface eth0",
        "ip link delete {bridge}": "there is no bridge",
    },
    {"rm -r {leases}": "Failed to find address"},
)
"""Commands on the host, and what CHECK says after them."""


def test_check_names_what_is_missing(alone: Runtime) -> None:
    bridge, outer, _ = (each["name"] for each in alone.add("one")["interfaces"])
    words = {"bridge": bridge, "outer": outer, "leases": alone.config["ipam"]["dataDir"]}
    for breakage in BREAKAGES:
        for command in breakage:
            alone.host.run(command.format(**words).split())
        found = alone.check("one")
        assert found["code"] >= 100
        for named in breakage.values():
            assert named in found["msg"]
    alone.delete("one")
    assert alone.host.interfaces() == ["lo", "eth0", "office"]


def test_a_failure_of_add_leaves_nothing_and_gives_the_address_back(alone: Runtime) -> None:
    before = alone.surroundings(SURROUNDINGS)
    done = alone.call("ADD", "one", alone.config | {"conf": "nowhere"})
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 100)
    assert "the tunnel nowhere cannot be used" in json.loads(done.stdout)["msg"]
    done = alone.call("ADD", "one")
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 100)
    assert "/run/netns/one" in json.loads(done.stdout)["msg"]
    assert alone.surroundings(SURROUNDINGS) == before
    assert alone.add("one")["ips"][0]["address"] == "10.90.1.3/24", "host-local goes on counting"
    alone.delete("one")


def test_many_at_once_have_one_bridge(alone: Runtime) -> None:
    names = [f"c{number}" for number in range(4)]
    with ThreadPoolExecutor() as pool:
        added = list(pool.map(alone.add, names))
        assert len({result["ips"][0]["address"] for result in added}) == len(names)
        list(pool.map(alone.delete, names))
    assert not alone.locks()
    assert added[0]["interfaces"][0]["name"] not in alone.host.interfaces()


def test_results_of_the_older_version_have_its_form(alone: Runtime) -> None:
    alone.config["cniVersion"] = "0.4.0"
    result = alone.add("one")
    assert (result["cniVersion"], result["ips"][0]["version"]) == ("0.4.0", "4")
    assert alone.check("one") == {}
    alone.delete("one")


def test_an_interface_that_is_no_bridge_of_ours_stays_as_it_is(alone: Runtime) -> None:
    alone.host.ip("link add uplink type bridge")
    before = alone.surroundings(SURROUNDINGS)
    for bridge in ("office", "uplink"):
        config = alone.config | {"bridge": bridge}
        for command in ("ADD", "DEL"):
            alone.call(command, "one", config)
            assert alone.surroundings(SURROUNDINGS) == before, (bridge, command)
    # As another program that keeps its state where ours is.
    bridge = alone.add("two")["interfaces"][0]["name"]
    path = f"/run/tunnel/{bridge}.state"
    alone.add("three")
    text = alone.host.run(["cat", path]).stdout.replace("tunnel-cni", "another")
    alone.host.run(["tee", path], stdin=text)
    done = alone.call("ADD", "four")
    assert (
        f"{bridge} is not a bridge of tunnel-cni, but of another" in json.loads(done.stdout)["msg"]
    )
    assert bridge in alone.host.interfaces()
    alone.host.run(["tee", path], stdin=text.replace("another", "tunnel-cni"))
    alone.delete("two")
    alone.delete("three")
    assert bridge not in alone.host.interfaces()
    alone.host.ip("link delete uplink")


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_a_bridge_of_a_call_that_was_killed_is_taken_up(alone: Runtime, command: str) -> None:
    before = alone.surroundings(SURROUNDINGS)
    bridge = alone.add("one")["interfaces"][0]
    alone.delete("one")
    alone.host.ip(f"link add {bridge['name']} address {bridge['mac']} type bridge")
    if command == "ADD":
        alone.add("two")
        assert alone.check("two") == {}
    alone.delete("two")
    assert alone.surroundings(SURROUNDINGS) == before


IPAM = f"""#!{sys.executable}
import json, os, subprocess, sys
config, command = json.load(sys.stdin), os.environ["CNI_COMMAND"]
if command in ("GC", "STATUS"):
    is_full = os.path.exists(__file__ + ".full")
    print(json.dumps({{"code": 11, "msg": "no address is left"}} if is_full else {{}}))
    sys.exit(is_full)
text = json.dumps(config | {{"cniVersion": "1.0.0"}})
sys.exit(subprocess.run(["host-local"], input=text, text=True).returncode)
"""
"""host-local as one of version 1.1, which Debian's is not."""


def test_gc_removes_what_the_runtime_does_not_have(alone: Runtime) -> None:
    ipam = alone.program.with_name("newer")
    ipam.write_text(IPAM)
    ipam.chmod(0o755)
    alone.config |= {"cniVersion": "1.1.0"}
    alone.config["ipam"]["type"] = "newer"
    alone.path = str(ipam.parent)
    nothing = {"CNI_CONTAINERID": "", "CNI_NETNS": "", "CNI_IFNAME": ""}

    def collect(*valid: str) -> tuple[int, str]:
        found = [{"containerID": each, "ifname": "eth0"} for each in valid]
        config = alone.config | {"cni.dev/valid-attachments": found}
        done = alone.call("GC", "", config, **nothing)
        return done.returncode, done.stdout

    before = alone.surroundings(SURROUNDINGS)
    assert [alone.add(name)["cniVersion"] for name in ("one", "two")] == ["1.1.0"] * 2
    bridge, outer, _ = (each["name"] for each in alone.results["two"]["interfaces"])
    alone.host.ip("link add other type veth peer name elsewhere", f"link set other master {bridge}")
    assert collect("one") == (0, "")
    found = alone.host.interfaces()
    assert outer not in found
    assert {bridge, "other", alone.results["one"]["interfaces"][1]["name"]} <= set(found)
    assert alone.check("one") == {}
    alone.host.ip("link delete other")
    assert collect() == collect() == (0, "")
    assert alone.surroundings(SURROUNDINGS) == before

    # Whether ADD would succeed.
    done = alone.call("STATUS", "", alone.config, **nothing)
    assert (done.returncode, done.stdout) == (0, "")
    ipam.with_name("newer.full").touch()
    done = alone.call("STATUS", "", alone.config, **nothing)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 11)
    done = alone.call("STATUS", "", alone.config | {"conf": "nowhere"}, **nothing)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 50)
    assert not alone.locks(), "each call removes its own"
