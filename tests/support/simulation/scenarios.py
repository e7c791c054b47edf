"""Traffic over a simulated network, and what must hold at its end."""

from __future__ import annotations

from collections import Counter

from tests.support.simulation.network import Network, Weather
from tests.support.simulation.node import Node

TERRIBLE = Weather(loss=0.20, duplication=0.05, corruption=0.005, delay=(0.005, 0.400))


def talk(
    network: Network, pairs: list[tuple[Node, Node]], until: float, rate: float = 0.5
) -> dict[str, int]:
    """Let applications on both ends of each pair talk, in bursts with pauses, until then.

    `rate` is packets a second within a burst. Pauses are now shorter, now longer than every timer
    of the protocol.
    """
    sent: Counter[str] = Counter()

    def burst(source: Node, destination: Node, ends: float) -> None:
        if network.now >= until:
            return
        if network.now >= ends:
            pause = network.random.choice((1.0, 12.0, 40.0, 130.0, 200.0, 600.0))
            begins = network.now + pause * network.random.uniform(0.5, 1.5)
            ends = begins + network.random.choice((1.0, 20.0, 200.0, 900.0))
            network.at(begins, lambda: burst(source, destination, ends))
            return
        network.send(source, destination)
        sent[source.name] += 1
        gap = network.random.expovariate(rate)
        network.at(network.now + gap, lambda: burst(source, destination, ends))

    for a, b in pairs:
        burst(a, b, network.now)
        burst(b, a, network.now)
    network.run(until)
    return sent


def answers(network: Network, source: Node, destination: Node, patience: float = 40.0) -> bool:
    """Whether a packet arrives before `patience` is over; applications repeat themselves too."""
    ends = network.now + patience
    while network.now < ends:
        serial = network.send(source, destination)
        network.run(network.now + 1.0)
        if serial in destination.received:
            return True
    return False


def check_all(network: Network) -> None:
    for node in network.nodes:
        node.check_bounds()
