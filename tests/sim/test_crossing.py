"""Initiations that cross on the way: a session at once, with ours and with others as the other end.

Whose public key is greater decides which handshake prevails between two of us, so each case runs
with both orders.
"""

import itertools

import pytest

from tests.support.simulation.network import Network, Station, Weather
from tests.support.simulation.node import Node
from tests.support.simulation.scenarios import check_all

DELAYS = (0.001, 0.1, 0.3)
"""Seconds from one end to the other."""
OFFSETS = (0.0, 0.001, 0.05, 0.15, 0.29, 0.31, 0.45, 0.61)
"""Seconds by which the second end starts later."""


def network_of(seed: int, delay: float, *, greater: bool, reference: bool) -> tuple[Network, Node]:
    """Two ends on a line; the first is ours, and has the greater public key or has not."""
    for draw in itertools.count(seed, 1000):
        network = Network(draw, Weather(delay=(delay, delay)))
        ours = network.add_node("ours")
        other: Station
        if reference:
            other = network.add_reference_node(ours)
        else:
            other = network.add_node("other")
            network.join(ours, other)
        if (bytes(ours.public_key) > bytes(other.public_key)) is greater:
            break
    return network, ours


def talk(network: Network, pair: tuple[Station, Station], until: float, gap: float) -> list[int]:
    """Let both send a packet every `gap` seconds; what the second sent, and then the first."""
    sent = []
    while network.now < until:
        sent += [network.send(*pair), network.send(*reversed(pair))]
        network.run(network.now + gap)
    return sent


@pytest.mark.parametrize("reference", [False, True], ids=["ours", "wireguard-go"])
@pytest.mark.parametrize("greater", [False, True], ids=["smaller", "greater"])
@pytest.mark.parametrize("delay", DELAYS)
def test_a_session_within_one_and_a_half_seconds(
    delay: float, greater: bool, reference: bool
) -> None:
    for offset, first in itertools.product(OFFSETS, (0, 1)):
        network, ours = network_of(1, delay, greater=greater, reference=reference)
        other = network.stations[1]
        starters = (ours, other) if first == 0 else (other, ours)
        packets = [network.send(starters[0], starters[1])]
        network.run(offset)
        packets.append(network.send(starters[1], starters[0]))
        network.run(offset + 1.5)
        assert packets[0] in starters[1].received, (offset, first)
        assert packets[1] in starters[0].received, (offset, first)
        # Data flows from here on, through three renewals, and no packet is lost.
        sent = talk(network, (ours, other), 400.0, gap=0.7)
        network.run(network.now + 2.0)
        assert set(sent) <= ours.received | other.received, (offset, first)
        check_all(network)


@pytest.mark.parametrize("greater", [False, True], ids=["smaller", "greater"])
@pytest.mark.parametrize("lost", range(6))
def test_one_lost_message_of_two_crossing_handshakes_costs_no_session(
    lost: int, greater: bool
) -> None:
    """Either handshake alone is enough, whatever message of the two is the one that is lost."""
    network, ours = network_of(2, 0.3, greater=greater, reference=False)
    other = network.stations[1]
    network.lose = {lost}
    packets = [network.send(ours, other), network.send(other, ours)]
    network.run(1.5)
    # The packet itself may be what was lost; another gets through.
    packets += [network.send(ours, other), network.send(other, ours)]
    network.run(2.0)
    assert packets[2] in other.received
    assert packets[3] in ours.received
    check_all(network)


@pytest.mark.parametrize("greater", [False, True], ids=["smaller", "greater"])
def test_two_of_ours_end_with_the_keypair_of_the_smaller_key(greater: bool) -> None:
    network, ours = network_of(3, 0.3, greater=greater, reference=False)
    other = network.stations[1]
    assert isinstance(other, Node)
    network.send(ours, other)
    network.send(other, ours)
    network.run(2.0)
    here = ours.peer(other).keypairs.current
    there = other.peer(ours).keypairs.current
    assert here is not None
    assert there is not None
    assert (here.local_index, here.remote_index) == (there.remote_index, there.local_index)
    assert here.is_initiator is not greater
