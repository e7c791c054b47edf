"""Two real Docker hosts, a and b, whose containers share a network through the tunnel office."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support.docker import DockerEngine, engine
from tunnel.lab import Host, Lab
from tunnel.lab.peers import Node, OurEnd, render_conf
from tunnel.lab.process import HostProcess

POOLS = ("10.90.0.0/24", "10.91.0.0/24")
PARTS = (("10.90.0.0/25", "10.91.0.0/25"), ("10.90.0.128/25", "10.91.0.128/25"))
"""What of each pool is host a's, and what host b's."""
OUTSIDE = "198.51.100.9"
"""A host that only a has a cable to, and that knows no route to containers."""


@dataclass
class DockerHost:
    """A host with an engine, its end of the tunnel, and the plugin."""

    host: Host
    end: OurEnd
    engine: DockerEngine
    plugin: HostProcess | None = None
    before: list[str] = field(default_factory=list)
    """What was around before the tunnel and the networks."""

    def start_plugin(self) -> None:
        """Start it, or start it again; it answers on return."""
        command = [sys.executable, "-m", "tunnel", "docker-plugin"]
        self.plugin = self.host.popen([*command, "--state", f"{self.engine.folder}/tunnel"])
        self.plugin.wait_for_output("ready")

    def create(self, name: str, *options: str, pool: str = POOLS[0], check: bool = True) -> str:
        """Make a network; what docker prints."""
        ours = ["--ipam-driver", "tunnel", "--ipam-opt", "conf=office", "-o", "conf=office"]
        words = ["network", "create", "-d", "tunnel", "--subnet", pool, *ours, *options, name]
        return self.engine.docker(*words, check=check)

    def start(self, name: str, *options: str, network: str = "net") -> None:
        """A container in a network, that does nothing."""
        self.engine.start(name, "--network", network, *options)

    def ruleset(self) -> list[str]:
        """All rules of the host, without what was counted."""
        return self.host.run(["nft", "--stateless", "list", "ruleset"]).stdout.splitlines()

    def surroundings(self) -> list[str]:
        """Rules, interfaces, routes and the kernel settings of forwarding, as they are now.

        Sorted: dockerd puts its chains elsewhere when it starts again.
        """
        names = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
        commands = (["ip", "route"], ["ip", "-6", "route"], ["ip", "rule"], ["sysctl", *names])
        found = [self.host.run(command).stdout for command in commands]
        every = [*self.ruleset(), *self.host.interfaces(), *"".join(found).splitlines()]
        # docker0 is up once a container was on it.
        return sorted(line for line in every if line and " dev docker0 " not in line)


@contextlib.contextmanager
def docker_hosts(lab: Lab, *options: str) -> Iterator[tuple[DockerHost, DockerHost, Host]]:
    """Hosts a and b, and one outside; the engines answer. `options` are dockerd's."""
    a, b, out = (lab.host(name) for name in ("a", "b", "out"))
    lab.link(a, b, ["192.0.2.1/24"], ["192.0.2.2/24"])
    lab.link(a, out, ["198.51.100.1/24"], [f"{OUTSIDE}/24"])
    nodes = [
        Node(host, (f"10.77.0.{n}/24",), f"192.0.2.{n}", interface="office", routes=PARTS[n - 1])
        for n, host in enumerate((a, b), 1)
    ]
    with contextlib.ExitStack() as stack:
        found = []
        for node, peer in (nodes, nodes[::-1]):
            end = OurEnd(node, render_conf(node, [peer]))
            one = DockerHost(node.host, end, stack.enter_context(engine(node.host, *options)))
            one.before = one.surroundings()
            found.append(one)
        yield found[0], found[1], out
