"""WireGuard ends in the hosts of a lab: ours, or wireguard-go's, from one description.

    a = Node(host_a, ("10.77.0.1/24",), endpoint="192.0.2.1")
    b = Node(host_b, ("10.77.0.2/24",), endpoint="192.0.2.2")
    for end in mesh([a, b]).values():
        end.up()

An end writes the conf that a person would write, and uses the commands that a person would use.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tunnel.lab.errors import LabError
from tunnel.lab.host import Host

PORT = 51820
UP_SECONDS = 30.0

OUR_COMMAND = (sys.executable, "-m", "tunnel")
"""This program, as this Python has it."""


def generate_key() -> str:
    """A random private key in base64."""
    return base64.b64encode(X25519PrivateKey.generate().private_bytes_raw()).decode()


def public_key_of(private_key: str) -> str:
    """The public key of a private key, both in base64."""
    private = X25519PrivateKey.from_private_bytes(base64.b64decode(private_key))
    return base64.b64encode(private.public_key().public_bytes_raw()).decode()


def generate_preshared_key() -> str:
    """A random preshared key in base64."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


@dataclass(frozen=True)
class Node:
    """One end of tunnels: `addresses` inside with prefix lengths, `endpoint` its outer address.

    Without an `endpoint` the others learn its address from its first packet. `keepalive` is in
    seconds. `routes` are further networks that it is reachable for.
    """

    host: Host
    addresses: tuple[str, ...]
    endpoint: str | None = None
    port: int = PORT
    interface: str = "wg0"
    keepalive: int = 0
    mtu: int | None = None
    routes: tuple[str, ...] = ()
    private_key: str = field(default_factory=generate_key, repr=False)

    @property
    def name(self) -> str:
        """The name of its host."""
        return self.host.name

    @property
    def public_key(self) -> str:
        """The public key in base64."""
        return public_key_of(self.private_key)

    def address(self, version: int = 4) -> str:
        """The inner address of that IP version, without its prefix length."""
        for text in self.addresses:
            parsed = ip_interface(text)
            if parsed.version == version:
                return str(parsed.ip)
        raise LabError(f"{self.host.name} has no IPv{version} address in the tunnel")


@dataclass(frozen=True)
class Side:
    """One end of tunnels as a plan has it: on the host `name`, `peers` are the others' names.

    `endpoint` is its address outside; without one its peers learn it from its first packet.
    `routes` are networks that it is reachable for, `settings` the lines of its section [Tunnel].
    """

    name: str
    addresses: tuple[str, ...]
    peers: tuple[str, ...]
    endpoint: str | None = None
    routes: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    keepalive: int = 0
    port: int = PORT
    mtu: int | None = None
    private_key: str = field(default="", repr=False)

    @property
    def public_key(self) -> str:
        """The public key in base64."""
        return public_key_of(self.private_key)

    def on(self, host: Host) -> Node:
        """The same on a host that is there."""
        return Node(
            host,
            self.addresses,
            self.endpoint,
            self.port,
            keepalive=self.keepalive,
            mtu=self.mtu,
            routes=self.routes,
            private_key=self.private_key,
        )


def render_conf(
    node: Node | Side,
    peers: Iterable[Node | Side],
    preshared_key: str | None = None,
    *,
    quick: bool = True,
    extra: Sequence[str] = (),
    settings: Sequence[str] = (),
    named: bool = False,
) -> str:
    """The conf of `node` with `peers`; without `quick`, only what `wg setconf` takes.

    `extra` are more lines of section [Interface], `settings` the lines of section [Tunnel]. With
    `named` the peers have friendly names.
    """
    lines = ["[Interface]", f"PrivateKey = {node.private_key}", f"ListenPort = {node.port}"]
    if quick:
        lines += [f"Address = {', '.join(node.addresses)}", *extra]
        lines += [f"MTU = {node.mtu}"] if node.mtu else []
        lines += ["", "[Tunnel]", *settings] if settings else []
    for peer in peers:
        hosts = [str(ip_interface(text).ip) for text in peer.addresses]
        lines += ["", "[Peer]"]
        lines += [f"# friendly_name = {peer.name}"] if named and quick else []
        lines.append(f"PublicKey = {peer.public_key}")
        lines += [f"PresharedKey = {preshared_key}"] if preshared_key else []
        lines.append(f"AllowedIPs = {', '.join([*hosts, *peer.routes])}")
        if peer.endpoint is not None:
            host = f"[{peer.endpoint}]" if ":" in peer.endpoint else peer.endpoint
            lines.append(f"Endpoint = {host}:{peer.port}")
        if node.keepalive:
            lines.append(f"PersistentKeepalive = {node.keepalive}")
    return "\n".join(lines) + "\n"


class End(Protocol):
    """A program that can hold one end."""

    node: Node
    conf: Path
    program: str
    """What it is called: `tunnel`, or the name of the foreign program."""

    def up(self) -> None:
        """Set the interface up; packets can flow on return."""

    def down(self) -> None:
        """Take it down again."""


class OurEnd:
    """`tunnel up` and `tunnel down`."""

    program = "tunnel"

    def __init__(
        self,
        node: Node,
        conf: str,
        environment: dict[str, str] | None = None,
        command: Sequence[str] = OUR_COMMAND,
    ) -> None:
        self.node = node
        self.environment = dict(environment or {})
        self.command = tuple(command)
        self.conf = _write_conf(node, conf)

    def up(self) -> None:
        """Set the interface up; packets can flow on return."""
        self.tunnel("up", str(self.conf))

    def down(self) -> None:
        """Take it down again."""
        self.tunnel("down", str(self.conf))

    def tunnel(self, *arguments: str, check: bool = True) -> str:
        """Run our command in the host; what it prints on standard output."""
        result = self.node.host.run(
            [*self.command, *arguments],
            timeout=UP_SECONDS,
            check=check,
            environment=self.environment,
        )
        return result.stdout if check else result.stdout + result.stderr


class WireGuardGoEnd:
    """wireguard-go with `wg setconf` and `ip`, as its manual says. Or any program like it."""

    def __init__(self, node: Node, conf: str, program: str = "wireguard-go") -> None:
        self.node = node
        self.program = program
        self.conf = _write_conf(node, conf)

    def up(self) -> None:
        """Set the interface up; packets can flow on return."""
        node, host = self.node, self.node.host
        # Its stdout stays open in the daemon it leaves behind, so it must not be a pipe of ours.
        log = Path(f"{self.conf}.log")
        start = f'exec "$0" "$1" >"{log}" 2>&1'
        # BoringTun and GotaTun would look for the user who called sudo, to become it, and write a
        # log where all others write theirs.
        environment = {"WG_SUDO": "1", "WG_LOG_FILE": f"{self.conf}.daemon.log"}
        command = ["sh", "-c", start, self.program, node.interface]
        done = host.run(command, timeout=UP_SECONDS, check=False, environment=environment)
        if done.returncode:
            printed = log.read_text(errors="replace").strip()
            raise LabError(
                f"{host.name}: {self.program} ended with status {done.returncode}: {printed}"
            )
        host.run(["wg", "setconf", node.interface, str(self.conf)])
        host.ip(f"link set {node.interface} mtu {node.mtu or 1420}")
        host.add_addresses(node.interface, node.addresses)
        host.ip(f"link set {node.interface} up")

    def down(self) -> None:
        """Take it down again."""
        self.node.host.ip(f"link delete {self.node.interface}")


def mesh(
    nodes: Sequence[Node],
    *,
    preshared_key: str | None = None,
    foreign: dict[str, str] | None = None,
    environment: dict[str, str] | None = None,
) -> dict[str, End]:
    """An end for each node, all peers of each other, by the names of their hosts.

    `foreign` maps host names to the WireGuard program that runs there instead of ours.
    """
    ends: dict[str, End] = {}
    for node in nodes:
        peers = [peer for peer in nodes if peer is not node]
        program = (foreign or {}).get(node.host.name)
        if program is None:
            ends[node.host.name] = OurEnd(
                node, render_conf(node, peers, preshared_key), environment
            )
        else:
            conf = render_conf(node, peers, preshared_key, quick=False)
            ends[node.host.name] = WireGuardGoEnd(node, conf, program)
    return ends


def _write_conf(node: Node, text: str) -> Path:
    path = node.host.directory / f"{node.interface}.conf"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return path
