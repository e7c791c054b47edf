"""Calls `tunnel-cni` as a container runtime does, in a host of the lab."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunnel.lab import Host
from tunnel.lab.peers import Node, OurEnd, render_conf

_PROGRAM = f"""#!{sys.executable}
from tunnel.cli.cni import run
run()
"""


@dataclass
class Runtime:
    """A runtime on `host`, which remembers the result of each ADD."""

    host: Host
    config: dict[str, Any]
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    path: str = ""
    """CNI_PATH; without it where host-local is."""

    def __post_init__(self) -> None:
        self.program.parent.mkdir(exist_ok=True)
        self.program.write_text(_PROGRAM)
        self.program.chmod(0o755)

    @property
    def program(self) -> Path:
        """The plugin, in a folder of its own."""
        return self.host.directory / "cni" / "tunnel-cni"

    def call(
        self, command: str, container: str, config: dict[str, Any] | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """One call about eth0 of a container, whose namespace has its name."""
        local = shutil.which("host-local")
        assert local is not None
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": self.path or str(Path(local).parent),
        }
        return self.host.run(
            [str(self.program)],
            stdin=json.dumps(config or self.config),
            environment=environment | variables,
            check=False,
        )

    def add(self, container: str) -> dict[str, Any]:
        """Make a container's namespace, and ADD; the result."""
        self.host.run(["ip", "netns", "add", container])
        self.made.add(container)
        done = self.call("ADD", container)
        assert done.returncode == 0, done.stdout + done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        self.results[container] = result
        return result

    def check(self, container: str) -> dict[str, Any]:
        """CHECK; the error it reports, empty if all is well."""
        config = self.config | {"prevResult": self.results[container]}
        done = self.call("CHECK", container, config)
        found: dict[str, Any] = json.loads(done.stdout or "{}")
        assert (done.returncode == 0) == (not found), done.stdout + done.stderr
        return found

    def delete(self, container: str) -> None:
        """DEL, which succeeds whatever there is."""
        done = self.call("DEL", container)
        assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr

    def inside(self, container: str, *command: str, check: bool = True) -> str:
        """What a command in a container prints."""
        words = ["ip", "netns", "exec", container, *command]
        done = self.host.run(words, check=check)
        return done.stdout + ("" if check else done.stderr)

    def remove_namespaces(self) -> None:
        """Of all containers that there were."""
        for line in self.host.run(["ip", "netns", "list"]).stdout.splitlines():
            name = line.split()[0]
            if name in self.made:
                self.host.run(["ip", "netns", "delete", name])

    def locks(self) -> str:
        """The files by which calls wait for each other."""
        return self.host.run(["ls", "/run/tunnel/cni"], check=False).stdout

    def surroundings(self, commands: Sequence[str]) -> list[str]:
        """What these commands print on the host."""
        return [self.host.run(command.split()).stdout for command in commands]


def network(host: Host, number: int, **more: Any) -> dict[str, Any]:
    """The configuration of the network on one host: addresses of its own of both IP versions."""
    ranges = [
        [{"subnet": f"10.90.{number}.0/24"}],
        [{"subnet": f"fd90:0:0:{number}::/64"}],
    ]
    data = str(host.directory / "leases")
    ipam = {"type": "host-local", "dataDir": data, "ranges": ranges}
    return {
        "cniVersion": "1.0.0",
        "name": "net",
        "type": "tunnel-cni",
        "conf": "office",
        "ipam": ipam,
        **more,
    }


def bring_up(hosts: Sequence[Host], *, only: int = 0) -> list[Runtime]:
    """A runtime on each host, and the tunnel `office`: of all of them, or of the first `only`."""
    nodes = [
        Node(
            host,
            (f"10.77.0.{number}/24", f"fd77::{number}/64"),
            f"192.0.2.{number}",
            interface="office",
            routes=(f"10.90.{number}.0/24", f"fd90:0:0:{number}::/64"),
        )
        for number, host in enumerate(hosts, 1)
    ]
    for node in nodes[: only or None]:
        OurEnd(node, render_conf(node, [peer for peer in nodes if peer is not node])).up()
    return [Runtime(node.host, network(node.host, n)) for n, node in enumerate(nodes, 1)]
