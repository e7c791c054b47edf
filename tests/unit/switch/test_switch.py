"""The switch: learning, ageing, flooding, and what AllowedIPs let pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from tests.support.frames import (
    BROADCAST,
    arp,
    ethernet,
    ipv6_packet,
    mac,
    neighbour,
    of_arp,
    of_ipv4,
    of_ipv6,
    packed,
)
from tunnel.switch import AGEING_TIME, EthernetSwitch, Frame, SwitchDrop
from tunnel.switch.mac_table import LEAST_PER_PEER, MOST_PER_PEER, REFRESH, room_for_each

LOCAL, ONE, TWO, THREE = mac(0), mac(1), mac(2), mac(3)
OURS = "10.0.0.1"


@dataclass
class Network:
    """A switch whose peers are letters. `owners` are the addresses of those that are bound."""

    peers: Sequence[str] = "abc"
    owners: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        addresses = {packed(address): peer for address, peer in self.owners.items()}
        self.switch: EthernetSwitch[str] = EthernetSwitch(
            peers=lambda: self.peers,
            owner=addresses.get,
            is_bound=lambda peer: peer in self.owners.values(),
        )

    def to(self, frame: Frame, now: float = 0.0) -> str | SwitchDrop:
        found = self.switch.destinations(frame, now)
        return found if isinstance(found, SwitchDrop) else "".join(found)

    def take(self, peer: str, frame: Frame, now: float = 0.0) -> bool:
        """Whether the frame reaches the TAP."""
        allowed = self.switch.source_allowed(peer, frame)
        return allowed and self.switch.receive(peer, frame, now) is None


def to_station(destination: bytes, source: bytes = LOCAL, vlan: int = 0) -> Frame:
    return of_ipv4(source, destination, (OURS, "10.0.0.9"), vlan)


def test_an_unknown_station_is_looked_for_at_all_peers_a_known_one_at_its_own() -> None:
    network = Network()
    assert network.to(to_station(TWO)) == "abc"
    assert network.take("b", to_station(LOCAL, TWO))
    assert network.to(to_station(TWO)) == "b"
    assert network.to(to_station(BROADCAST)) == "abc"
    assert network.to(to_station(ONE)) == "abc"


def test_a_station_that_sends_nothing_is_forgotten() -> None:
    network = Network()
    network.take("b", to_station(LOCAL, TWO), 0.0)
    network.take("b", to_station(LOCAL, TWO), 100.0)
    assert network.to(to_station(TWO), 100.0 + AGEING_TIME - 0.1) == "b"
    assert network.switch.count_of("b", 100.0 + AGEING_TIME - 0.1) == 1
    assert network.to(to_station(TWO), 100.0 + AGEING_TIME) == "abc"
    assert network.switch.count_of("b", 100.0 + AGEING_TIME) == 0


def test_ageing_counts_from_the_last_frame_but_for_a_second() -> None:
    network = Network()
    network.take("b", to_station(LOCAL, TWO), 0.0)
    network.take("b", to_station(LOCAL, TWO), REFRESH / 2)
    assert network.to(to_station(TWO), AGEING_TIME) == "abc"


def test_a_station_that_moves_is_found_where_it_is() -> None:
    network = Network()
    network.take("b", to_station(LOCAL, TWO))
    network.take("c", to_station(LOCAL, TWO))
    assert network.to(to_station(TWO)) == "c"
    assert (network.switch.count_of("b", 0), network.switch.count_of("c", 0)) == (0, 1)
    # Now it sends on our side: nothing for it goes out.
    network.to(to_station(BROADCAST, TWO))
    assert network.switch.count_of("c", 0) == 0
    assert network.to(to_station(TWO)) == "abc"


def test_vlans_are_apart() -> None:
    network = Network()
    network.take("b", to_station(LOCAL, TWO, vlan=7))
    network.take("c", to_station(LOCAL, TWO, vlan=8))
    assert network.to(to_station(TWO, vlan=7)) == "b"
    assert network.to(to_station(TWO, vlan=8)) == "c"
    assert network.to(to_station(TWO)) == "abc"


def test_a_peer_that_is_removed_is_forgotten() -> None:
    network = Network()
    network.take("b", to_station(LOCAL, TWO))
    network.switch.forget("b")
    network.switch.forget("b")
    assert network.to(to_station(TWO)) == "abc"


def test_a_flood_of_stations_pushes_out_only_its_own() -> None:
    network = Network()
    network.take("a", to_station(LOCAL, ONE))
    for number in range(MOST_PER_PEER + 10):
        network.take("b", to_station(LOCAL, mac(1000 + number)))
    assert network.switch.count_of("b", 0) == MOST_PER_PEER
    assert network.to(to_station(ONE)) == "a"
    assert network.to(to_station(mac(1009))) == "abc"
    assert network.to(to_station(mac(1010))) == "b"


@pytest.mark.parametrize(
    ("peers", "room"),
    [(0, MOST_PER_PEER), (64, MOST_PER_PEER), (128, 512), (10**5, LEAST_PER_PEER)],
)
def test_room_for_many_peers(peers: int, room: int) -> None:
    assert room_for_each(peers) == room


@pytest.mark.parametrize("source", [bytes(6), BROADCAST, b"\1\0\0\0\0\1"])
def test_sources_that_no_station_has(source: bytes) -> None:
    network = Network()
    assert network.to(to_station(TWO, source)) == SwitchDrop.SOURCE_MAC
    assert network.switch.receive("a", to_station(TWO, source), 0) == SwitchDrop.SOURCE_MAC


def test_what_is_for_the_next_bridge_alone_goes_no_further() -> None:
    network = Network()
    lldp = Frame(ethernet(ONE, b"\1\x80\xc2\0\0\x0e", 0x88CC, bytes(40)))
    assert network.to(lldp) == SwitchDrop.RESERVED_GROUP
    assert network.switch.receive("a", lldp, 0) == SwitchDrop.RESERVED_GROUP
    bpdu = Frame(ethernet(ONE, b"\1\x80\xc2\0\0\0", 0x0026, b"\x42\x42\3" + bytes(35)))
    assert network.to(bpdu) == "abc"
    assert network.take("a", bpdu)


def test_without_peers() -> None:
    assert Network(peers="").to(to_station(BROADCAST)) == SwitchDrop.NO_DESTINATION


# --- AllowedIPs: a has 10.0.0.10, b has 10.0.0.20 and fd00::20, c has none -----------------------

BOUND = {"10.0.0.10": "a", "10.0.0.20": "b", "fd00::20": "b", "fe80::20": "b"}


@pytest.fixture
def bound() -> Network:
    return Network(owners=BOUND)


@pytest.mark.parametrize(
    ("peer", "source", "allowed"),
    [
        ("a", "10.0.0.10", True),
        ("a", "10.0.0.20", False),
        ("a", "10.0.0.30", False),
        ("a", "0.0.0.0", True),
        ("c", "10.0.0.30", True),
        ("c", "10.0.0.10", False),
        ("c", "0.0.0.0", True),
    ],
)
def test_sources_of_packets(bound: Network, peer: str, source: str, allowed: bool) -> None:
    frame = of_ipv4(ONE, BROADCAST, (source, "255.255.255.255"))
    assert bound.take(peer, frame) == allowed
    assert bound.switch.count_of(peer, 0) == allowed


@pytest.mark.parametrize(
    ("peer", "message", "allowed"),
    [
        ("a", arp(1, "10.0.0.10", OURS), True),
        ("a", arp(2, "10.0.0.10", OURS), True),
        ("a", arp(1, "10.0.0.20", OURS), False),
        ("a", arp(2, "10.0.0.20", OURS), False),
        ("a", arp(2, OURS, OURS), False),
        ("a", arp(1, "0.0.0.0", "10.0.0.10"), True),
        ("a", arp(1, "0.0.0.0", "10.0.0.20"), False),
        ("a", arp(2, "10.0.0.10", OURS)[:20], False),
        ("c", arp(2, "10.0.0.30", OURS), True),
        ("c", arp(2, "10.0.0.10", OURS), False),
        ("c", arp(2, "10.0.0.10", OURS)[:20], True),
    ],
)
def test_senders_of_arp(bound: Network, peer: str, message: bytes, allowed: bool) -> None:
    assert bound.take(peer, of_arp(ONE, BROADCAST, message)) == allowed


@pytest.mark.parametrize(
    ("peer", "packet", "allowed"),
    [
        ("b", ipv6_packet("fe80::20", "ff02::1", 58, neighbour(136, "fd00::20")), True),
        ("b", ipv6_packet("fe80::20", "ff02::1", 58, neighbour(136, "fd00::1")), False),
        ("b", ipv6_packet("::", "ff02::1:ff00:20", 58, neighbour(135, "fd00::20")), True),
        ("b", ipv6_packet("::", "ff02::1:ff00:1", 58, neighbour(135, "fd00::1")), False),
        ("b", ipv6_packet("fe80::1", "ff02::1", 58, bytes([134]) + bytes(15)), False),
        ("a", ipv6_packet("fd00::20", "fd00::1"), False),
        ("c", ipv6_packet("fe80::30", "ff02::1", 58, neighbour(136, "fd00::30")), True),
        ("c", ipv6_packet("fe80::30", "ff02::1", 58, neighbour(136, "fd00::20")), False),
    ],
)
def test_neighbour_discovery(bound: Network, peer: str, packet: bytes, allowed: bool) -> None:
    assert bound.take(peer, of_ipv6(ONE, b"\x33\x33\0\0\0\1", packet)) == allowed


def test_other_types_are_for_peers_without_allowed_ips(bound: Network) -> None:
    frame = Frame(ethernet(ONE, BROADCAST, 0x88B5, b"anything"))
    assert bound.switch.source_allowed("a", frame)
    assert bound.switch.receive("a", frame, 0) == SwitchDrop.ETHERTYPE_NOT_ALLOWED
    assert bound.take("c", frame)
    assert bound.to(frame) == "c"
    bound.take("a", of_ipv4(TWO, BROADCAST, ("10.0.0.10", OURS)))
    to_two = Frame(ethernet(ONE, TWO, 0x88B5, b"anything"))
    assert bound.to(to_two) == SwitchDrop.ETHERTYPE_NOT_ALLOWED


def test_a_peer_with_the_mac_of_another_gets_nothing_of_it(bound: Network) -> None:
    bound.take("a", of_ipv4(TWO, BROADCAST, ("10.0.0.10", OURS)))
    bound.take("b", of_ipv4(TWO, BROADCAST, ("10.0.0.20", OURS)))  # takes a's MAC
    to_a = of_ipv4(LOCAL, TWO, (OURS, "10.0.0.10"))
    assert bound.to(to_a) == SwitchDrop.DESTINATION_NOT_ALLOWED
    assert bound.to(of_ipv4(LOCAL, TWO, (OURS, "10.0.0.20"))) == "b"
    assert bound.to(of_ipv4(LOCAL, TWO, (OURS, "10.0.0.30"))) == SwitchDrop.DESTINATION_NOT_ALLOWED
    # So does one without AllowedIPs, which gets what is no one's.
    bound.take("c", of_ipv4(TWO, BROADCAST, ("10.0.0.30", OURS)))
    assert bound.to(to_a) == SwitchDrop.DESTINATION_NOT_ALLOWED
    assert bound.to(of_ipv4(LOCAL, TWO, (OURS, "10.0.0.30"))) == "c"


def test_who_has_an_address_is_asked_alone(bound: Network) -> None:
    assert bound.to(of_arp(LOCAL, BROADCAST, arp(1, OURS, "10.0.0.20"))) == "b"
    assert bound.to(of_arp(LOCAL, BROADCAST, arp(1, OURS, "10.0.0.30"))) == "c"
    assert bound.to(of_arp(LOCAL, BROADCAST, arp(1, OURS, OURS))) == "abc"
    solicitation = ipv6_packet("fd00::1", "ff02::1:ff00:20", 58, neighbour(135, "fd00::20"))
    assert bound.to(of_ipv6(LOCAL, b"\x33\x33\xff\0\0\x20", solicitation)) == "b"
    assert bound.to(of_ipv4(LOCAL, TWO, (OURS, "10.0.0.10"))) == "a"
    assert bound.to(of_ipv4(LOCAL, TWO, (OURS, "10.0.0.30"))) == "c"
    assert bound.to(of_ipv4(LOCAL, BROADCAST, (OURS, "255.255.255.255"))) == "abc"


def test_an_address_of_no_peer_goes_nowhere() -> None:
    network = Network(peers="a", owners={"10.0.0.10": "a"})
    asked = of_arp(LOCAL, BROADCAST, arp(1, OURS, "10.0.0.30"))
    assert network.to(asked) == SwitchDrop.NO_DESTINATION
