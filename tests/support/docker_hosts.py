"""Two real Docker hosts, a and b, whose containers share a network through the tunnel office."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.docker import DockerEngine, engine
from tunnel.lab import Host, Lab
from tunnel.lab.peers import Node, OurEnd
from tunnel.lab.process import HostProcess
from tunnel.systemd import units

EXAMPLE = Path(__file__).parents[2] / "examples" / "docker"

POOLS = ("10.90.0.0/24", "10.91.0.0/24")
"""The one of the example, and another one that is shared in the same way."""
POOL_6 = "fd90::/112"
ETHERNET = "10.92.0.0/24"
"""The pool of a network in one Ethernet, by a second tunnel."""
ETHERNET_6 = "fd92::/112"
OUTSIDE = "198.51.100.9"
"""A host that only a has a cable to, and that knows no route to containers."""


def as_service() -> list[str]:
    """What starts a program with no other capabilities than those of the plugin's unit."""
    unit = units.render(units.DOCKER[0], [sys.executable, "-m", "tunnel"])
    (line,) = (line for line in unit.splitlines() if line.startswith("CapabilityBoundingSet="))
    names = [word.removeprefix("CAP_").lower() for word in line.partition("=")[2].split()]
    return ["setpriv", "--bounding-set", ",".join(["-all", *(f"+{name}" for name in names)])]


def compose(folder: Path = EXAMPLE) -> dict[str, Any]:
    """The Compose file of an example."""
    lines = (folder / "compose.yaml").read_text().splitlines()
    return _mapping([line for line in lines if line.strip() and line.strip()[0] != "#"])


def _mapping(lines: list[str]) -> dict[str, Any]:
    """As much of YAML as is in there: mappings of mappings, texts, and lists."""
    found: dict[str, Any] = {}
    while lines:
        head = lines.pop(0)
        indent = len(head) - len(head.lstrip())
        below = []
        while lines and len(lines[0]) - len(lines[0].lstrip()) > indent:
            below.append(lines.pop(0))
        name, _, value = head.strip().partition(":")
        if below and below[0].lstrip().startswith("- "):
            items = [line.strip().removeprefix("- ") for line in below]
            found[name] = [_mapping([item]) if ": " in item else item for item in items]
        else:
            found[name] = _mapping(below) if below else value.strip()
    return found


def network_options(network: dict[str, Any]) -> list[str]:
    """What `docker network create` takes for a network of a Compose file."""
    addresses = network["ipam"]
    words = ["--driver", network["driver"], "--ipam-driver", addresses["driver"]]
    for option, values in (("-o", network["driver_opts"]), ("--ipam-opt", addresses["options"])):
        words += [word for name, value in values.items() for word in (option, f"{name}={value}")]
    (pool,) = addresses["config"]
    return [*words, "--subnet", pool["subnet"]]


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
        """Start it, or start it again, with the rights of its service; it answers on return."""
        command = [*as_service(), sys.executable, "-m", "tunnel", "docker-plugin"]
        self.plugin = self.host.popen([*command, "--state", f"{self.engine.folder}/tunnel"])
        self.plugin.wait_for_output("ready")

    def restart_plugin(self, change: Callable[[dict[str, Any]], None] = lambda state: None) -> None:
        """Kill it, `change` its state, and start it again."""
        assert self.plugin is not None
        self.plugin.kill()
        path = self.engine.folder / "tunnel" / "networks.json"
        state = json.loads(path.read_text())
        change(state)
        path.write_text(json.dumps(state))
        self.start_plugin()

    def ethernet(self) -> OurEnd:
        """The conf of a second tunnel, l2, with Mode = tap and Bridge = br0. That of host a has the
        address of the network's gateway; b has none.
        """
        node = Node(self.host, (), self.end.node.endpoint, interface="l2")
        kept = ("[", "PrivateKey", "ListenPort", "PublicKey", "Endpoint")
        lines = [line for line in self.end.conf.read_text().splitlines() if line.startswith(kept)]
        is_first = self.host.name == "a"
        part = "10.92.0.128/25, fd92::8000/113" if is_first else "10.92.0.0/25, fd92::/113"
        address = "Address = 10.92.0.1/24\n" if is_first else ""
        tunnel = f"{address}[Tunnel]\nMode = tap\nBridge = br0\n[Peer]\nAllowedIPs = {part}"
        text = "\n".join(lines).replace("[Peer]", tunnel).replace(":51820", ":51821")
        return OurEnd(node, text.replace("ListenPort = 51820", "ListenPort = 51821") + "\n")

    def create(self, name: str, *options: str, pool: str = POOLS[0], check: bool = True) -> str:
        """Make a network as the example's Compose file has it, of these addresses; what docker
        prints.
        """
        ours = network_options(compose()["networks"]["office"])
        words = [word if word != POOLS[0] else pool for word in ours]
        return self.engine.docker("network", "create", *words, *options, name, check=check)

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
        # Forwarding of IPv6 stays on where docker is, which may have come to rely on it.
        names = ("net.ipv4.ip_forward",)
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
    with contextlib.ExitStack() as stack:
        found = []
        for number, host in enumerate((a, b), 1):
            node = Node(host, (f"10.77.0.{number}/24",), f"192.0.2.{number}", interface="office")
            text = (EXAMPLE / f"{host.name}.conf").read_text()
            for part, six in (("10.90.0.0/25", "fd90::/113"), ("10.90.0.128/25", "fd90::8000/113")):
                text = text.replace(f", {part}", f", {part}, {part.replace('90', '91', 1)}, {six}")
            end = OurEnd(node, text)
            one = DockerHost(host, end, stack.enter_context(engine(host, *options)))
            one.before = one.surroundings()
            found.append(one)
        yield found[0], found[1], out
