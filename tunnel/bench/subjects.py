"""What a benchmark compares: programs that join two hosts of a lab, each set up the same way."""

from __future__ import annotations

import compileall
import datetime
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tunnel.lab.host import Host
from tunnel.lab.peers import OUR_COMMAND, Node, OurEnd, WireGuardGoEnd, render_conf

INSTALL = {
    "wireguard-go": "apt-get install wireguard-go",
    "wg": "apt-get install wireguard-tools",
    "gotatun": "cargo install gotatun-cli, and have ~/.cargo/bin on the PATH",
    "openvpn": "apt-get install openvpn",
    "iperf3": "apt-get install iperf3",
    "nft": "apt-get install nftables",
}
"""How programs that are measured, or measured with, get onto a Debian."""

UNENCRYPTED = "no cipher"
"""The name of the subject that encrypts nothing."""

A_OUTER, B_OUTER = "192.0.2.1", "192.0.2.2"
A_INNER, B_INNER = "10.77.0.1", "10.77.0.2"


def not_installed(program: str) -> str:
    """That it is missing, and how to install it."""
    how = INSTALL.get(program)
    return f"{program} is not installed{f': {how}' if how else ''}"


def own_folders() -> Iterable[Path]:
    """Where this program's packages are."""
    for package in ("tunnel", "crypto"):
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            yield Path(folder)


def compile_modules(folders: Iterable[Path]) -> None:
    """Have the bytecode there that an installation has: a checkout may lack it, and start late."""
    for folder in folders:
        compileall.compile_dir(folder, quiet=2)


class Subject(Protocol):
    """A way to join two hosts. `target` is B's address for traffic."""

    target: str

    @property
    def name(self) -> str:
        """For the table."""

    def missing(self) -> str | None:
        """What this machine lacks to run it, or None."""

    def prepare(self, a: Host, b: Host) -> None:
        """Write confs and bring B up; A comes with `up`, which is timed."""

    def up(self) -> None:
        """Bring A up: packets can flow on return, or will very soon."""


class Scalable(Subject, Protocol):
    """A subject that knows peers. `server_key` is B's public key, once it is prepared."""

    @property
    def server_key(self) -> str:
        """In base64."""

    def with_more_peers(self, peers: str) -> Scalable:
        """The same subject, not prepared, with `peers` at the end of both confs."""


@dataclass
class Bare:
    """The veth cable itself: the ceiling."""

    name: str = "bare veth"
    target: str = B_OUTER

    def missing(self) -> str | None:
        """What this machine lacks to run it, or None."""
        return None

    def prepare(self, a: Host, b: Host) -> None:
        """Nothing to do: the cable is there."""

    def up(self) -> None:
        """Nothing to do: the cable is there."""


def _nodes(a: Host, b: Host) -> tuple[Node, Node]:
    return (
        Node(a, (f"{A_INNER}/24",), A_OUTER),
        Node(b, (f"{B_INNER}/24",), B_OUTER),
    )


@dataclass
class Ours:
    """`tunnel up` on both hosts, with the datapath of that name."""

    datapath: str
    more_peers: str = ""
    """More peers, as text that is appended to both confs."""
    command: tuple[str, ...] = OUR_COMMAND
    label: str = ""
    """The name of another version of this program, which `command` calls."""
    target: str = B_INNER
    ends: list[OurEnd] = field(default_factory=list, init=False)

    @property
    def name(self) -> str:
        """For the table."""
        return self.label or f"tunnel ({self.datapath})"

    @classmethod
    def unencrypted(cls) -> Ours:
        """The compiled datapath's own loop, with no cipher in it."""
        command = (sys.executable, "-m", "tunnel.cli.unencrypted")
        return cls("native", command=command, label=UNENCRYPTED)

    def missing(self) -> str | None:
        """What this machine lacks to run it, or None."""
        return None

    def prepare(self, a: Host, b: Host) -> None:
        """Write confs and bring B up."""
        first, second = _nodes(a, b)
        environment = {"TUNNEL_DATAPATH": self.datapath}
        # Nor does wireguard-go set a route for each of thousands of peers.
        extra = ("Table = off",) if self.more_peers else ()
        self.ends = [
            OurEnd(
                node,
                render_conf(node, [other], extra=extra) + self.more_peers,
                environment,
                self.command,
            )
            for node, other in ((first, second), (second, first))
        ]
        self.ends[1].up()

    def up(self) -> None:
        """Bring A up."""
        self.ends[0].up()

    @property
    def server_key(self) -> str:
        """B's public key."""
        return self.ends[1].node.public_key

    def with_more_peers(self, peers: str) -> Ours:
        """The same with more peers in both confs."""
        return replace(self, more_peers=peers)


@dataclass
class WireGuardGo:
    """wireguard-go or a program that is called like it."""

    program: str = "wireguard-go"
    more_peers: str = ""
    target: str = B_INNER
    ends: list[WireGuardGoEnd] = field(default_factory=list, init=False)

    @property
    def name(self) -> str:
        """For the table."""
        return self.program if "/" not in self.program else Path(self.program).name

    def missing(self) -> str | None:
        """What this machine lacks to run it, or None."""
        for program in (self.program, "wg"):
            if shutil.which(program) is None:
                return not_installed(program)
        return None

    def prepare(self, a: Host, b: Host) -> None:
        """Write confs and bring B up."""
        first, second = _nodes(a, b)
        self.ends = [
            WireGuardGoEnd(
                node, render_conf(node, [other], quick=False) + self.more_peers, self.program
            )
            for node, other in ((first, second), (second, first))
        ]
        self.ends[1].up()

    def up(self) -> None:
        """Bring A up."""
        self.ends[0].up()

    @property
    def server_key(self) -> str:
        """B's public key."""
        return self.ends[1].node.public_key

    def with_more_peers(self, peers: str) -> WireGuardGo:
        """The same with more peers in both confs."""
        return replace(self, more_peers=peers)


@dataclass
class OpenVpn:
    """OpenVPN 2.6 point to point over UDP, ChaCha20-Poly1305, certificates by fingerprint."""

    name: str = "openvpn"
    target: str = B_INNER
    _a: Host | None = field(default=None, init=False)
    _arguments: list[str] = field(default_factory=list, init=False)

    def missing(self) -> str | None:
        """What this machine lacks to run it, or None."""
        return None if shutil.which("openvpn") else not_installed("openvpn")

    def prepare(self, a: Host, b: Host) -> None:
        """Make certificates and bring B up."""
        prints = {host.name: _make_certificate(host.directory, host.name) for host in (a, b)}
        self._a = a
        self._arguments = [
            *_openvpn_arguments(a, A_INNER, B_INNER, prints[b.name]),
            *("--tls-client", "--remote", B_OUTER, "--nobind"),
        ]
        server = b.popen(
            [
                *_openvpn_arguments(b, B_INNER, A_INNER, prints[a.name]),
                *("--tls-server", "--dh", "none", "--lport", "1194"),
            ]
        )
        server.wait_for_output("UDPv4 link remote", 20)

    def up(self) -> None:
        """Bring A up."""
        assert self._a is not None
        client = self._a.popen(self._arguments)
        client.wait_for_output("Initialization Sequence Completed", 30)


def _openvpn_arguments(host: Host, own: str, other: str, fingerprint: str) -> list[str]:
    folder = host.directory
    return [
        *("openvpn", "--dev", "tun0", "--proto", "udp4", "--rport", "1194", "--verb", "3"),
        *("--ifconfig", own, other, "--cert", f"{folder}/cert.pem", "--key", f"{folder}/key.pem"),
        *("--peer-fingerprint", fingerprint, "--data-ciphers", "CHACHA20-POLY1305"),
        *("--disable-dco", "--sndbuf", "4194304", "--rcvbuf", "4194304"),
    ]


def _make_certificate(folder: Path, name: str) -> str:
    """Write key.pem and cert.pem; the certificate's SHA-256 fingerprint, colon-separated."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .sign(key, hashes.SHA256())
    )
    descriptor = os.open(folder / "key.pem", os.O_WRONLY | os.O_CREAT, 0o600)
    with open(descriptor, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()
