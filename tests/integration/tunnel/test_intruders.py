"""Intruders: a peer that says to be another, and a neighbour outside of the tunnel.

Host a is a full tunnel by way of b. What b may send is everything but the address of c, which is
nested in it. The datagrams that a program on a receives say who got in.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from tests.support.daemons import rewrite, status
from tunnel.lab import Host, Lab
from tunnel.lab.peers import Node, OurEnd, mesh
from tunnel.packet.checksum import checksum

pytestmark = pytest.mark.root

PORT = 9999
UDP, HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 17, 0, 43, 44, 60
A, B, C = ({4: f"10.77.0.{number}", 6: f"fd77::{number}"} for number in (1, 2, 3))
A_OUTSIDE, C_OUTSIDE = "192.0.2.1", "192.0.2.3"
ELSEWHERE = {4: "198.51.100.7", 6: "2001:db8:7::7"}
"""An address on the far side of b."""


def packed(address: str) -> bytes:
    return ip_address(address).packed


def datagram(source: str, target: str, text: str) -> bytes:
    """A UDP datagram with its header. Its checksum is a real one, or IPv6 would drop it."""
    data = text.encode()
    head = struct.pack("!HHHH", PORT, PORT, 8 + len(data), 0)
    pseudo = packed(source) + packed(target) + struct.pack("!II", 8 + len(data), UDP)
    whole = checksum(pseudo + head + data)
    return head[:6] + struct.pack("!H", whole or 0xFFFF) + data


def ipv4(source: str, target: str, text: str, *, options: bytes = b"", fragment: int = 0) -> bytes:
    data = datagram(source, target, text)
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, 4 * words + len(data), 7, fragment, 64, UDP, 0)
    head += packed(source) + packed(target) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + data


def ipv6(
    source: str, target: str, text: str, *, extensions: dict[int, bytes] | None = None
) -> bytes:
    """With extension headers, each given without its first byte, which names the next one."""
    data = datagram(source, target, text)
    kinds = [*(extensions or {}), UDP]
    body = b"".join(
        bytes([kinds[place + 1]]) + rest for place, rest in enumerate((extensions or {}).values())
    )
    head = struct.pack("!IHBB", 6 << 28, len(body) + len(data), kinds[0], 64)
    return head + packed(source) + packed(target) + body + data


PADDING = bytes([0, 1, 4, 0, 0, 0, 0])
"""Of a header with options: PadN, 8 bytes in all."""
WHOLE, FIRST, LATER = (bytes([0]) + struct.pack("!HI", word, 7) for word in (0, 1, 8))


def spoofed(claimed: dict[int, str], name: str) -> list[tuple[str, bytes]]:
    """What a peer sends that says to be at `claimed`: plain, with options, in fragments."""
    four, six = claimed[4], claimed[6]
    router = bytes([131, 7, 4]) + packed(B[4]) + bytes(1)
    return [
        (f"{name} 4", ipv4(four, A[4], f"{name} 4")),
        (f"{name} LSRR", ipv4(four, A[4], f"{name} LSRR", options=router)),
        (f"{name} first", ipv4(four, A[4], f"{name} first", fragment=0x2000)),
        (f"{name} later", ipv4(four, A[4], f"{name} later", fragment=1)),
        (f"{name} 6", ipv6(six, A[6], f"{name} 6")),
        *(
            (f"{name} {words}", ipv6(six, A[6], f"{name} {words}", extensions=extensions))
            for words, extensions in {
                "hop by hop": {HOP_BY_HOP: PADDING},
                "destination options": {DESTINATION: PADDING},
                "atomic fragment": {FRAGMENT: WHOLE},
                "first fragment": {FRAGMENT: FIRST},
                "later fragment": {FRAGMENT: LATER},
                "all": {HOP_BY_HOP: PADDING, DESTINATION: PADDING, FRAGMENT: WHOLE},
                "routing": {ROUTING: bytes([2, 0, 1]) + bytes(4) + packed(B[6])},
            }.items()
        ),
    ]


@dataclass
class World:
    """Hosts a, b and c on one switch, each with its end, and what a program on a hears."""

    a: Host
    b: Host
    c: Host
    ends: dict[str, OurEnd]
    ears: tuple[socket.socket, ...]

    def heard(self) -> dict[str, str]:
        """The datagrams that came to a, by their text: who sent them."""
        found = {}
        for ear in self.ears:
            ear.setblocking(False)
            while True:
                try:
                    data, sender = ear.recvfrom(2048)
                except BlockingIOError:
                    break
                found[data.decode()] = sender[0]
        return found

    def wait_for(self, text: str, found: dict[str, str]) -> None:
        """Take what came to a until `text` is among it."""

        def came() -> bool:
            found.update(self.heard())
            return text in found

        self.a.wait_for(came, 10, f"the datagram {text!r}")


@pytest.fixture
def world(lab: Lab) -> Iterator[World]:
    switch = lab.switch("switch")
    hosts = [lab.host(name) for name in "abc"]
    nodes = []
    for number, host in enumerate(hosts, start=1):
        switch.attach(host, [f"192.0.2.{number}/24"])
        addresses = (f"10.77.0.{number}/32", f"fd77::{number}/128")
        routes = ("0.0.0.0/0", "::/0") if host.name == "b" else ()
        nodes.append(Node(host, addresses, f"192.0.2.{number}", routes=routes))
    ends = {name: end for name, end in mesh(nodes).items() if isinstance(end, OurEnd)}
    # Only a is a full tunnel.
    conf = ends["c"].conf
    conf.write_text(conf.read_text().replace(", 0.0.0.0/0, ::/0", ""))
    for end in ends.values():
        end.up()
    ears = tuple(
        hosts[0].socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_INET6)
    )
    for ear, place in zip(ears, ("0.0.0.0", "::"), strict=True):
        if ear.family == socket.AF_INET6:
            ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        ear.bind((place, PORT))
    for host in hosts[1:]:
        host.ping(A[4])
        host.ping(A[6])
    yield World(hosts[0], hosts[1], hosts[2], ends, ears)
    for ear in ears:
        ear.close()


def inject(host: Host, interface: str, packets: list[bytes], mac: bytes = b"") -> None:
    """Send IP packets out by an interface, past the host's own IP stack."""
    with host.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as raw:
        for packet in packets:
            kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
            raw.sendto(packet, (interface, kind, 0, 0, mac) if mac else (interface, kind))


def counted(end: OurEnd) -> int:
    found: dict[str, int] = status(end)["drops"]
    return found.get("source_not_allowed", 0)


def test_no_intruder_gets_in(world: World) -> None:
    a_peer_is_taken_for_no_other(world)
    a_neighbour_outside_reaches_no_address_of_the_tunnel(world)
    with_a_kill_switch_a_route_that_was_injected_leads_nowhere(world)


def a_peer_is_taken_for_no_other(world: World) -> None:
    forged = [
        packet
        for claimed, name in ((B, "b"), (A, "a"), (ELSEWHERE, "elsewhere"))
        for _, packet in spoofed(claimed, name)
    ]
    before = counted(world.ends["a"])
    inject(world.c, "wg0", forged)
    # It is no one else's fault: what is its own still comes in, extension headers and all.
    own = dict(spoofed(C, "c"))
    inject(world.c, "wg0", [own["c 4"], own["c 6"], own["c hop by hop"], own["c atomic fragment"]])
    heard: dict[str, str] = {}
    for text in ("c 4", "c 6", "c hop by hop", "c atomic fragment"):
        world.wait_for(text, heard)
    # Everything but the nested address is b's, and c's is not.
    inject(world.b, "wg0", [packet for _, packet in spoofed(C, "nested")])
    inject(world.b, "wg0", [ipv4(ELSEWHERE[4], A[4], "b 4"), ipv6(ELSEWHERE[6], A[6], "b 6")])
    for text in ("b 4", "b 6"):
        world.wait_for(text, heard)
    assert set(heard) == {"c 4", "c 6", "c hop by hop", "c atomic fragment", "b 4", "b 6"}
    assert counted(world.ends["a"]) - before == len(forged) + len(spoofed(C, "nested"))
    # With its own address, a peer gets nowhere by naming routers either.
    inject(world.c, "wg0", [own["c LSRR"], own["c routing"], ipv4(C[4], A[4], "last")])
    world.wait_for("last", heard)
    assert not {"c LSRR", "c routing"} & set(heard)


def a_neighbour_outside_reaches_no_address_of_the_tunnel(world: World) -> None:
    """CVE-2019-14899: its answers would say which addresses and connections there are."""
    (link,) = world.a.ip_json(["link", "show", "eth0"])
    mac = bytes.fromhex(link["address"].replace(":", ""))
    fours = [ipv4(each, A[4], f"outside {each}") for each in (B[4], C[4], C_OUTSIDE, ELSEWHERE[4])]
    sixes = [ipv6(each, A[6], f"outside {each}") for each in (B[6], C[6], ELSEWHERE[6])]
    inject(world.c, "eth0", [*fours, *sixes], mac)
    # The way is open, and it is the address that counts.
    inject(world.c, "eth0", [ipv4(C_OUTSIDE, A_OUTSIDE, "neighbour")], mac)
    heard: dict[str, str] = {}
    world.wait_for("neighbour", heard)
    assert set(heard) == {"neighbour"}
    rules = world.a.run(["nft", "list", "table", "inet", "tunnel-wg0"]).stdout
    assert "packets 4 " in rules
    assert "packets 3 " in rules


def with_a_kill_switch_a_route_that_was_injected_leads_nowhere(world: World) -> None:
    """As a neighbour's DHCP server may do it: more specific than any route of the tunnel."""
    world.c.ip(f"address add {ELSEWHERE[4]}/32 dev lo")
    world.a.ip(f"route add {ELSEWHERE[4]}/32 via {C_OUTSIDE}")
    with (
        world.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
        world.c.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
    ):
        ear.bind(("0.0.0.0", PORT))
        ear.settimeout(10)
        mouth.sendto(b"taken out", (ELSEWHERE[4], PORT))
        assert ear.recv(100) == b"taken out", "without it, the route counts"
        rewrite(world.ends["a"], "[Interface]\n", "[Interface]\n#! tunnel: KillSwitch = on\n")
        world.ends["a"].tunnel("reload", "wg0")
        with contextlib.suppress(PermissionError):  # what is rejected at once is an error
            mouth.sendto(b"taken out", (ELSEWHERE[4], PORT))
        with contextlib.suppress(OSError):  # as an answer to the one before
            mouth.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        mouth.sendto(b"inside", (C[4], PORT))
        assert ear.recv(100) == b"inside"
