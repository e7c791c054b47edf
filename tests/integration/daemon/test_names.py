"""Endpoints by name, with a changing /etc/hosts."""

from __future__ import annotations

import socket
import sys

import pytest

from tests.support.daemons import follow, remains, status
from tests.support.hosts import TwoHosts
from tunnel.lab import Host, LabError
from tunnel.lab.peers import Node, OurEnd, mesh, render_conf

pytestmark = pytest.mark.root

NAME = "peer.lab.example"


class Hosts:
    """The /etc/hosts of one host of the lab, and no name server."""

    def __init__(self, host: Host) -> None:
        self.path = host.directory / "hosts"
        self.path.write_text("127.0.0.1 localhost\n")
        self._host = host
        self._nobody = nobody = host.directory / "resolv.conf"
        nobody.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        self.switch = host.directory / "nsswitch.conf"
        self.switch.write_text("hosts: files\n")
        for mine, path in (
            (self.path, "/etc/hosts"),
            (nobody, "/etc/resolv.conf"),
            (self.switch, "/etc/nsswitch.conf"),
        ):
            host.run(["mount", "--bind", str(mine), path])

    def ask_name_server(self) -> None:
        """Look names up by DNS from now on, where nobody answers."""
        self.switch.write_text("hosts: files dns\n")

    def ask_silent_name_server(self) -> socket.socket:
        """The same, but that nobody answers takes minutes to be found out; keep the socket."""
        silent = self._host.socket(socket.AF_INET, socket.SOCK_DGRAM)
        silent.bind(("127.0.0.1", 53))
        self._nobody.write_text("nameserver 127.0.0.1\noptions timeout:30 attempts:5\n")
        self.ask_name_server()
        return silent

    def set(self, *addresses: str) -> None:
        """Let NAME mean these."""
        # Not replaced: the file is a mount point.
        self.path.write_text("".join(f"{address} {NAME}\n" for address in addresses))


@pytest.fixture
def hosts(two_hosts: TwoHosts) -> Hosts:
    return Hosts(two_hosts.a)


def make_ends(two: TwoHosts) -> tuple[OurEnd, OurEnd]:
    """a knows b by NAME; b does not know where a is."""
    a = Node(two.a, ("10.77.0.1/24",), None)
    b = Node(two.b, ("10.77.0.2/24",), "192.0.2.2")
    ends = mesh([a, b])
    conf = render_conf(a, [b]).replace("192.0.2.2:", f"{NAME}:")
    end_b = ends["b"]
    assert isinstance(end_b, OurEnd)
    return OurEnd(a, conf), end_b


def test_name_that_changes_is_followed_and_the_new_address_kept(
    two_hosts: TwoHosts, hosts: Hosts
) -> None:
    hosts.set("192.0.2.99")
    a, b = make_ends(two_hosts)
    a.up()
    b.up()
    ping = two_hosts.a.popen(["ping", "-n", "-i", "0.2", "-c", "1", "-w", "25", "10.77.0.2"])
    hosts.set("192.0.2.2")
    assert ping.wait(30) == 0
    assert status(a)["peers"][0]["endpoint"] == "192.0.2.2:51820"
    log = two_hosts.a.run(["cat", "/run/tunnel/wg0.log"]).stdout
    assert f"{NAME} is now at 192.0.2.2:51820" in log


def test_all_addresses_of_a_name_are_tried(two_hosts: TwoHosts, hosts: Hosts) -> None:
    hosts.set("192.0.2.98", "2001:db8::99", "192.0.2.2")
    a, b = make_ends(two_hosts)
    b.up()
    a.up()
    two_hosts.a.ping("10.77.0.2", timeout=25)
    assert status(a)["peers"][0]["endpoint"] == "192.0.2.2:51820"


def test_other_peers_do_not_wait_for_a_name(two_hosts: TwoHosts, hosts: Hosts) -> None:
    hosts.set("192.0.2.99")
    a, b = make_ends(two_hosts)
    text = a.conf.read_text()
    lost = Node(two_hosts.b, ("10.77.0.3/24",), "192.0.2.99")
    a.conf.write_text(
        text.replace(f"{NAME}:", "192.0.2.2:")
        + render_conf(a.node, [lost], quick=False)
        .partition("[Peer]")[2]
        .join(("[Peer]", ""))
        .replace("192.0.2.99:", f"{NAME}:")
    )
    b.up()
    a.up()
    nobody = two_hosts.a.popen(["ping", "-n", "-i", "0.2", "-w", "8", "10.77.0.3"])
    two_hosts.a.run(["ping", "-n", "-i", "0.1", "-c", "60", "-w", "7", "10.77.0.2"])
    nobody.wait(15)


def test_name_without_an_address_is_told_at_up(two_hosts: TwoHosts, hosts: Hosts) -> None:
    hosts.set()
    a, _ = make_ends(two_hosts)
    with pytest.raises(LabError, match=rf"status 1: tunnel: Endpoint = {NAME}:51820: .*spelling"):
        a.up()


def test_up_says_that_it_waits_for_a_name(two_hosts: TwoHosts, hosts: Hosts) -> None:
    hosts.set()
    a, _ = make_ends(two_hosts)
    # Unlike a file that has no such name, a name server that is silent may yet answer.
    hosts.ask_name_server()
    up = two_hosts.a.popen([sys.executable, "-m", "tunnel", "up", str(a.conf)])
    up.wait_for_output("still looking up peer.lab.example: no name server can be reached", 30)
    assert up.running
    two_hosts.a.run([sys.executable, "-m", "tunnel", "down", str(a.conf)])
    assert up.wait(10) == 1
    assert remains(two_hosts.a) == []


def test_one_dead_name_refuses_nothing_and_is_used_once_it_is_known(
    two_hosts: TwoHosts, hosts: Hosts
) -> None:
    hosts.set()
    a, b = make_ends(two_hosts)
    other = Node(two_hosts.b, (), "192.0.2.77")
    text = render_conf(a.node, [other], quick=False)
    a.conf.write_text(a.conf.read_text() + text[text.index("[Peer]") :])
    b.up()
    said = two_hosts.a.run([sys.executable, "-m", "tunnel", "up", str(a.conf)]).stderr
    assert f"Endpoint = {NAME}:51820: there is no such name" in said
    assert "goes on trying" in said
    hosts.set("192.0.2.2")
    two_hosts.a.ping("10.77.0.2", timeout=25)
    assert f"Endpoint = {NAME}:51820" in a.conf.read_text()
    a.down()
    assert remains(two_hosts.a) == []


@pytest.mark.foreign("wg")
def test_wg_says_that_a_tunnel_which_waits_for_a_name_is_not_there_yet(
    two_hosts: TwoHosts, hosts: Hosts
) -> None:
    hosts.set()
    a, _ = make_ends(two_hosts)
    hosts.ask_name_server()
    up = two_hosts.a.popen([sys.executable, "-m", "tunnel", "up", str(a.conf)])
    up.wait_for_output("still looking up", 30)
    # The number in our answer, as `wg` reads it: with the other sign it is another error.
    with pytest.raises(LabError, match="Unable to access interface: No such device"):
        two_hosts.a.run(["wg", "show", "wg0"])
    with pytest.raises(LabError, match="Unable to modify interface: No such device"):
        two_hosts.a.run(["wg", "set", "wg0", "listen-port", "1"])
    two_hosts.a.run([sys.executable, "-m", "tunnel", "down", str(a.conf)])
    assert up.wait(10) == 1


@pytest.mark.foreign("wg")
def test_reload_that_waits_for_a_name_holds_up_nothing(two_hosts: TwoHosts, hosts: Hosts) -> None:
    hosts.set("192.0.2.2")
    a, b = make_ends(two_hosts)
    a.up()
    b.up()
    host = two_hosts.a
    other = Node(two_hosts.b, ())
    with hosts.ask_silent_name_server():
        a.conf.write_text(
            a.conf.read_text()
            + f"[Peer]\nPublicKey = {other.public_key}\nEndpoint = other.lab.example:1\n"
        )
        reload = host.popen([sys.executable, "-m", "tunnel", "reload", "wg0"])
        log = "/run/tunnel/wg0.log"
        host.wait_for(
            lambda: "still looking up other.lab.example" in host.run(["cat", log]).stdout,
            20,
            "the reload to wait for the name",
        )
        # wg gives up after ten seconds, each run and wait here with an error.
        host.run(["wg", "set", "wg0", "peer", b.node.public_key, "persistent-keepalive", "7"])
        assert status(a)["peers"][0]["persistent_keepalive"] == 7
        host.ip("link set wg0 down", "route add 10.77.9.0/24 via 192.0.2.2", "link set wg0 up")
        host.ping("10.77.0.2")
        assert reload.running
        host.run([sys.executable, "-m", "tunnel", "down", str(a.conf)], timeout=20)
        assert reload.wait(10) == 1
    assert remains(host) == []


@pytest.mark.foreign("wg")
def test_endpoint_set_by_hand_stays_and_is_saved(two_hosts: TwoHosts, hosts: Hosts) -> None:
    hosts.set("192.0.2.2")
    a, b = make_ends(two_hosts)
    a.up()
    b.up()
    host = two_hosts.a
    events = follow(a)
    host.run(["wg", "set", "wg0", "peer", b.node.public_key, "endpoint", "192.0.2.99:51820"])
    host.run(["ping", "-c", "1", "-W", "1", "10.77.0.2"], check=False)
    events.wait_for_output('"attempt": 2', 30)
    assert status(a)["peers"][0]["endpoint"] == "192.0.2.99:51820"
    a.tunnel("save", "wg0")
    assert "Endpoint = 192.0.2.99:51820" in a.conf.read_text()
    assert NAME not in a.conf.read_text()
