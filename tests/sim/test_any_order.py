"""Every call of the interface in any order, under traffic: nothing raises, all comes back."""

import pytest

from crypto.keys import PresharedKey, PrivateKey
from tests.support.simulation.network import Network, Weather
from tests.support.simulation.node import Address, Node
from tests.support.simulation.scenarios import answers, check_all
from tunnel.protocol import PeerError


def shake(network: Network, node: Node, others: list[Node]) -> None:
    """Do one thing to a node that an administrator, or fate, could do."""
    draw = network.random
    interface, now = node.interface, network.now
    other = draw.choice(others)
    peer = interface.peers.get(other.public_key)
    match draw.randrange(14):
        case 0:
            interface.set_private_key(None, now)
        case 1:
            interface.set_private_key(PrivateKey.from_random(draw.randbytes(32)), now)
        case 2:
            interface.set_private_key(other.private_key, now)
        case 3:
            interface.set_private_key(node.private_key, now)
        case 4:
            interface.remove_peer(other.public_key)
        case 5:
            try:
                node.add_peer(other, endpoint=draw.random() < 0.5)
            except PeerError:
                return
        case 6 if peer:
            peer.set_preshared_key(PresharedKey.from_bytes(draw.randbytes(32)))
        case 7 if peer:
            peer.set_preshared_key(PresharedKey.ZERO)
        case 8 if peer:
            peer.set_persistent_keepalive(draw.choice((0, 1, 5, 25, 65_535)), now)
        case 9 if peer:
            peer.set_endpoint(draw.choice((None, other.address, Address(bytes(16), 9))), now)
        case 10:
            interface.handle_down()
        case 11:
            interface.handle_up(now)
        case 12:
            interface.set_under_load(now)
        case 13:
            network.suspend(node, draw.choice((0.5, 100.0, 600.0)))
    node.drain()


@pytest.mark.parametrize("seed", range(12))
def test_any_order_of_calls(seed: int) -> None:
    network = Network(seed, Weather(loss=0.1, duplication=0.1, corruption=0.05, delay=(0.01, 0.5)))
    nodes = [network.add_node(name) for name in "abc"]
    draw = network.random
    for node in nodes:
        for other in nodes:
            if other is not node:
                node.add_peer(other)
    for _ in range(1500):
        node = draw.choice(nodes)
        others = [other for other in nodes if other is not node]
        if draw.random() < 0.1:
            network._act(node, lambda node=node, others=others: shake(network, node, others))  # type: ignore[misc]
        else:
            network.send(node, draw.choice(others))
        check_all(network)
        network.run(network.now + draw.expovariate(0.3))
        check_all(network)
    # Put everything right, and everything works.
    network.weather = Weather()
    network.run(network.now + 700.0)
    for node in nodes:
        node.now = network.now
        node.interface.set_private_key(node.private_key, network.now)
        for other in nodes:
            if other is not node:
                node.interface.remove_peer(other.public_key)
                node.add_peer(other)
        node.drain()
    network.run(network.now + 6.0)
    for node in nodes:
        for other in nodes:
            if other is not node:
                assert answers(network, node, other, 20.0)
