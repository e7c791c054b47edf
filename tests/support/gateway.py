"""A gateway with a network behind it, two peers, and a host outside that knows no tunnel."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from tests.support.daemons import rewrite
from tunnel.lab import Host, Lab
from tunnel.lab.peers import Node, OurEnd, render_conf

PATIENCE = 10.0

LAN = ("192.168.1.10", "fd01::10")
"""The host behind the gateway, which has no route back into the tunnel."""
OUTSIDE = ("192.0.2.1", "2001:db8::1")
"""The gateway, as the world sees it."""
DOCKER = "172.17.0.0/16"
B, C = ("10.77.0.2", "fd77::2"), ("10.77.0.3", "fd77::3")


@dataclass(frozen=True)
class Gateway:
    """Host `gw` is between all others: `lan` is behind it, `out` before it, b and c are peers.

    `end` is its end of the tunnel, `end_b` that of b.
    """

    gw: Host
    lan: Host
    out: Host
    b: Host
    c: Host
    end: OurEnd
    end_b: OurEnd

    def set(self, *lines: str) -> None:
        """Have these lines, and no others, in section [Tunnel]; then reload."""
        text = self.end.conf.read_text()
        before = "".join(line + "\n" for line in text.splitlines() if line.startswith("#!"))
        new = "".join(f"#! tunnel: {line}\n" for line in lines)
        if before:
            rewrite(self.end, before, new)
        else:
            rewrite(self.end, "[Interface]\n", f"[Interface]\n{new}")
        self.end.tunnel("reload", "wg0")


def make_gateway(lab: Lab) -> Gateway:
    """The gateway's end is not up yet; those of b and c are, and send for all that is behind it."""
    gw, lan, out, b, c = (lab.host(name) for name in ("gw", "lan", "out", "b", "c"))
    world = lab.switch("world")
    for number, host in enumerate((gw, b, c, out), 1):
        world.attach(host, [f"192.0.2.{number}/24", f"2001:db8::{number}/64"])
    lab.link(gw, lan, ["192.168.1.1/24", "fd01::1/64"], [f"{LAN[0]}/24", f"{LAN[1]}/64"])
    behind = (
        "192.168.1.0/24",
        "fd01::/64",
        "10.71.1.0/24",
        "fd71::/64",
        "10.77.0.0/24",
        "172.17.0.0/16",
    )
    nodes = [
        Node(gw, ("10.77.0.1/24", "fd77::1/64"), "192.0.2.1", routes=(*behind, DOCKER)),
        Node(b, (f"{B[0]}/24", f"{B[1]}/64"), "192.0.2.2"),
        Node(c, (f"{C[0]}/24", f"{C[1]}/64"), "192.0.2.3"),
    ]
    peers = [OurEnd(node, render_conf(node, nodes[:1])) for node in nodes[1:]]
    for peer in peers:
        peer.up()
    end = OurEnd(nodes[0], render_conf(nodes[0], nodes[1:]))
    return Gateway(gw, lan, out, b, c, end, peers[0])


@contextlib.contextmanager
def listening(host: Host, address: str, port: int, kind: int) -> Iterator[socket.socket]:
    """A socket of `host` that is bound, and listens if it is TCP's."""
    with host.socket(_family(address), kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.settimeout(PATIENCE)
        if kind == socket.SOCK_STREAM:
            sock.listen()
        yield sock


def reach(client: Host, address: str, port: int, server: socket.socket) -> str:
    """Let `client` say something to address and port; whom `server` sees, which answers.

    Raises OSError if it is refused, or nothing comes.
    """
    with client.socket(_family(address), server.type) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((address, port))
        sock.send(b"hello")
        if server.type == socket.SOCK_STREAM:
            served, whom = server.accept()
            with served:
                served.settimeout(PATIENCE)
                assert served.recv(100) == b"hello"
                served.send(b"welcome")
        else:
            heard, whom = server.recvfrom(100)
            assert heard == b"hello"
            server.sendto(b"welcome", whom)
        assert sock.recv(100) == b"welcome"
    return str(ip_address(whom[0]))


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
