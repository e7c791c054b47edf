"""A tunnel that is attached: to containers of a real engine, to processes and to namespaces."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.daemons import follow, followed, kill, rewrite, status
from tests.support.docker import PROGRAMS, DockerEngine, engine
from tests.support.hosts import TwoHosts
from tests.support.pairs import Pair, make_pair
from tunnel.lab import Host
from tunnel.lab.peers import OurEnd

pytestmark = pytest.mark.root

EXAMPLE = Path(__file__).parents[3] / "examples" / "attach"
B = ("10.77.0.2", "fd77::2")
RESOLV_CONF = "/etc/resolv.conf"


@pytest.fixture
def pair(two_hosts: TwoHosts) -> Pair:
    return make_pair(two_hosts)


def waits(host: Host, end: OurEnd) -> None:
    """Return when the interface has lost what it was attached to."""
    host.wait_for(lambda: "waiting for it" in status(end)["attached"], 10, "the daemon to notice")


def rules_of(host: Host) -> str:
    return host.run(["ip", "rule"]).stdout


# To containers


@dataclass
class Site:
    """Host a with an engine, and its end of a tunnel to host b, which is up."""

    host: Host
    docker: DockerEngine
    end: OurEnd

    def attach(self, name: str, *, check: bool = True) -> str:
        return self.end.tunnel("attach", "wg0", "--container", name, check=check)

    def ping(self, name: str, *addresses: str) -> None:
        for address in addresses or B:
            self.docker.inside(name, "ping", "-c", "1", "-W", "5", address)

    def wait_back(self, name: str) -> None:
        """Return when the interface is back in the container, within the time that is promised."""

        def is_back() -> bool:
            return "10.77.0.1" in self.docker.inside(name, "ip", "address", check=False)

        self.host.wait_for(is_back, 10, f"wg0 in {name}")


@pytest.fixture
def site(pair: Pair) -> Iterator[Site]:
    host = pair.a.node.host
    with engine(host) as docker:
        yield Site(host, docker, pair.a)


@pytest.mark.real_root
@pytest.mark.foreign(*PROGRAMS)
def test_a_container_whose_only_network_is_the_tunnel(site: Site) -> None:
    docker, end = site.docker, site.end
    docker.start("web", "--network", "none")
    servers = docker.inside("web", "cat", RESOLV_CONF)
    rewrite(end, "PrivateKey", "DNS = 10.77.0.2, corp.example\nPrivateKey")
    events = follow(end)
    assert site.attach("web") == "wg0 is attached to container web\n"
    assert "missing" not in end.tunnel("show", "wg0")
    assert "attached to: container web" in end.tunnel("show", "wg0")
    assert "wg0" not in site.host.interfaces()
    site.ping("web")
    end.tunnel("reload", "wg0")
    written = docker.inside("web", "cat", RESOLV_CONF).splitlines()
    assert written[1:3] == ["nameserver 10.77.0.2", "search corp.example"]
    assert "reload would change nothing" in end.tunnel("diff", "wg0")

    docker.docker("restart", "-t", "0", "web")
    site.wait_back("web")
    site.ping("web")
    docker.docker("rm", "-f", "web")
    waits(site.host, end)
    docker.start("web", "--network", "none")
    site.wait_back("web")
    site.ping("web")
    seen = followed(events)
    lost = [event["time"] for event in seen if event["type"] == "waiting"]
    back = [event["time"] for event in seen if event["type"] == "attached"]
    assert len(lost) == 2
    assert len(back) == 3
    handshakes = [event for event in seen if event["type"] == "handshake"]
    assert len(handshakes) == 1, "the session has outlived the container"

    kill(end)
    end.up()
    site.wait_back("web")
    site.ping("web")
    end.down()
    assert docker.inside("web", "cat", RESOLV_CONF) == servers
    assert "wg0" not in docker.inside("web", "ip", "link")
    end.up()
    site.wait_back("web")
    rewrite(end, "DNS = 10.77.0.2, corp.example\n", "")
    end.tunnel("reload", "wg0")
    assert end.tunnel("detach", "wg0") == "wg0 is detached from container web\n"
    site.host.ping(B[0])
    assert "wg0" not in docker.inside("web", "ip", "link")


@pytest.mark.real_root
@pytest.mark.foreign(*PROGRAMS)
def test_a_full_tunnel_beside_the_network_of_the_container(site: Site) -> None:
    docker, end = site.docker, site.end
    docker.start("web")
    docker.start("db")
    before = docker.inside("web", "ip", "rule"), docker.inside("web", "ip", "route")
    rewrite(end, "AllowedIPs = ", "AllowedIPs = 0.0.0.0/0, ::/0, ")
    end.tunnel("reload", "wg0")
    rules = rules_of(site.host)
    assert "lookup 51820" in rules
    site.attach("web")
    assert "lookup 51820" not in rules_of(site.host)
    site.ping("web")
    site.ping("web", docker.address("db"))
    way = docker.inside("web", "ip", "route", "get", "198.51.100.1")
    assert way.startswith("198.51.100.1 dev wg0 ")
    assert end.tunnel("diff", "wg0") == "reload would change nothing\n"
    assert status(end)["fwmark"] == 0, "the number of a table inside means nothing outside"
    docker.docker("stop", "-t", "0", "web")
    waits(site.host, end)
    docker.docker("start", "web")
    site.wait_back("web")
    site.ping("web")
    end.tunnel("detach", "wg0")
    assert (docker.inside("web", "ip", "rule"), docker.inside("web", "ip", "route")) == before
    assert rules_of(site.host) == rules


@pytest.mark.real_root
@pytest.mark.foreign(*PROGRAMS)
def test_containers_that_are_no_place_for_a_tunnel(site: Site) -> None:
    docker = site.docker
    docker.start("web", "--network", "none", "--cap-add", "NET_ADMIN")
    docker.start("out", "--network", "host")
    docker.docker("create", "--name", "still", "busybox", "true")
    refusals = {
        "nosuch": "there is no container nosuch",
        "still": "container still is not running: start it",
        "out": "container out uses the network of this host",
    }
    for name, reason in refusals.items():
        assert reason in site.attach(name, check=False)
    wrong = ("attach", "wg0", "--container", "web", "--docker-host")
    answer = site.end.tunnel(*wrong, "unix:///nosuch.sock", check=False)
    assert "/nosuch.sock: No such file or directory (start the engine" in answer
    answer = site.end.tunnel(*wrong, "tcp://192.0.2.1:2375", check=False)
    assert "the engine has to run on this machine" in answer
    docker.inside("web", "ip", "link", "add", "wg0", "type", "bridge")
    answer = site.attach("web", check=False)
    assert "File exists (if an interface wg0 is there already" in answer
    assert status(site.end)["attached"] == ""
    site.host.ping(B[0])
    docker.inside("web", "ip", "link", "delete", "wg0")
    docker.start("other", "--network", "container:web")
    assert "it shares the network of container" in site.attach("other")
    site.ping("web")


@pytest.mark.real_root
@pytest.mark.foreign(*PROGRAMS)
def test_the_example(two_hosts: TwoHosts) -> None:
    home, server = two_hosts.a, two_hosts.b
    for host, name in ((home, "home"), (server, "server")):
        conf = host.directory / "wg0.conf"
        conf.write_text((EXAMPLE / f"{name}.conf").read_text())
        conf.chmod(0o600)
    tunnel = f"{sys.executable} -m tunnel"
    server.run([*tunnel.split(), "up", str(server.directory / "wg0.conf")])
    block = (EXAMPLE / "README.md").read_text().partition("```sh\n")[2].partition("```")[0]
    with engine(home):
        said = ""
        for line in block.splitlines():
            command = (
                line.replace("tunnel ", f"{tunnel} ", 1) if line.startswith("tunnel") else line
            )
            command = command.replace(" wg0.conf", f" {home.directory}/wg0.conf")
            said += home.run(["sh", "-c", command]).stdout
            assert "dev wg0" not in home.run(["ip", "route", "show", "table", "all"]).stdout
    assert "it will come up attached to container web" in said
    assert "1 packets transmitted, 1 packets received" in said
    assert "default dev wg0" in said
    assert "attached to: container web" in said
    server.run([*tunnel.split(), "down", "wg0"])


# To namespaces and processes


def test_a_named_namespace_that_goes_and_comes(pair: Pair) -> None:
    host, end = pair.a.node.host, pair.a
    name = f"{host.netns}-in"
    inside = ["ip", "netns", "exec", name]
    servers = f"/etc/netns/{name}/resolv.conf"
    rewrite(end, "PrivateKey", "DNS = 10.77.0.2\nPrivateKey")
    host.run(["ip", "netns", "add", name])
    try:
        end.tunnel("attach", "wg0", "--netns", name)
        host.run([*inside, "ping", "-c", "1", "-W", "5", B[0]])
        end.tunnel("reload", "wg0")
        assert "nameserver 10.77.0.2\n" in host.run([*inside, "cat", RESOLV_CONF]).stdout
        host.run(["ip", "netns", "delete", name])
        waits(host, end)
        assert not host.run(["ls", servers], check=False).stdout
        assert "reload would change nothing" in end.tunnel("diff", "wg0")
        host.run(["ip", "netns", "add", name])
        host.wait_for(lambda: status(end)["netns"].endswith(name), 10, "the way back")
        host.run([*inside, "ping", "-c", "1", "-W", "5", B[0]])
        kill(end)
        end.tunnel("down", "wg0")
        assert not host.run(["ls", servers], check=False).stdout
        assert end.tunnel("detach", "wg0") == (
            f"wg0 will not be attached to network namespace {name} again\n"
        )
        rewrite(end, "DNS = 10.77.0.2\n", "")
        end.up()
        host.ping(B[0])
    finally:
        host.run(["ip", "netns", "delete", name], check=False)


def test_a_process_that_ends(pair: Pair) -> None:
    host, end = pair.a.node.host, pair.a
    process = host.popen(["unshare", "--net", "sh", "-c", "echo inside; exec sleep 60"])
    process.wait_for_output("inside")
    pid = process.pid
    end.tunnel("attach", "wg0", "--pid", str(pid))
    host.run(["nsenter", f"--net=/proc/{pid}/ns/net", "ping", "-c", "1", "-W", "5", B[0]])
    kill(end)
    end.up()
    assert status(end)["attached"] == f"process {pid}"
    process.kill()
    waits(host, end)
    end.tunnel("detach", "wg0")
    host.ping(B[0])


def test_what_is_no_place_for_a_tunnel(pair: Pair) -> None:
    host, end = pair.a.node.host, pair.a
    own = status(end)["pid"]
    refusals = {
        ("--pid", str(own)): "is in the network namespace of this host, where the tunnel is",
        ("--pid", "4194304"): "there is no process 4194304",
        ("--netns", "nosuch"): "there is no network namespace nosuch; list them: ip netns list",
        (): "give one of --container, --pid and --netns",
    }
    for options, reason in refusals.items():
        assert reason in end.tunnel("attach", "wg0", *options, check=False)
    assert "wg0 is not attached" in end.tunnel("detach", "wg0", check=False)
    host.ping(B[0])


def test_what_cannot_be_recorded_changes_nothing(pair: Pair) -> None:
    host, end = pair.a.node.host, pair.a
    host.run(["ip", "netns", "add", "office"])
    host.run(["mkdir", "/run/tunnel/wg0.attach"])
    refused = end.tunnel("attach", "wg0", "--netns", "office", check=False)
    assert "cannot write /run/tunnel/wg0.attach" in refused
    assert "wg0" in host.interfaces()
    assert "attached to" not in end.tunnel("show", "wg0")
    host.run(["rmdir", "/run/tunnel/wg0.attach"])
    host.run(["ip", "netns", "delete", "office"])
