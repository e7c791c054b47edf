"""When a peer is connected, and when it is not any more."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.protocol_pair import RESPONSE, Pair
from tunnel.protocol import Event, PeerConnected, PeerDisconnected


def changes(events: Sequence[Event]) -> list[str]:
    """Each change as `up`, or as the reason why it is down."""
    return [
        event.reason if isinstance(event, PeerDisconnected) else "up"
        for event in events
        if isinstance(event, PeerConnected | PeerDisconnected)
    ]


def test_each_side_is_connected_once_both_have_the_keys_and_until_they_expire() -> None:
    pair = Pair()
    pair.send(pair.a)
    pair.deliver(pair.take()[0])
    # b has answered, and does not know whether a has that.
    assert changes(pair.b.events) == []
    (response,) = (sent for sent in pair.take() if sent.kind == RESPONSE)
    pair.deliver(response)
    assert changes(pair.a.events) == ["up"]
    assert changes(pair.b.events) == []
    pair.flow()
    pair.live_to(179)
    assert changes(pair.a.events) == changes(pair.b.events) == ["up"]
    pair.live_to(181)
    assert changes(pair.a.events) == changes(pair.b.events) == ["up", "no handshake for 180 s"]
    pair.connect()
    assert changes(pair.a.events)[2:] == ["up"]


def test_a_peer_with_traffic_stays_connected() -> None:
    pair = Pair()
    for second in range(0, 1000, 10):
        pair.live_to(second)
        pair.send(pair.a)
        pair.flow()
    assert changes(pair.a.events) == changes(pair.b.events) == ["up"]


def test_the_bytes_of_a_session_are_the_difference() -> None:
    pair = Pair()
    pair.connect()
    pair.live_to(200)
    pair.connect()
    pair.live_to(400)
    up, down, up_again, down_again = (
        event for event in pair.a.events if isinstance(event, PeerConnected | PeerDisconnected)
    )
    assert down.tx_bytes > up.tx_bytes > 0
    assert down_again.tx_bytes - up_again.tx_bytes == down.tx_bytes - up.tx_bytes
    assert down_again.tx_bytes == pair.ab.tx_bytes


def test_removal_and_an_interface_that_goes_down_disconnect() -> None:
    pair = Pair()
    pair.connect()
    pair.a.interface.handle_down()
    pair.a.drain()
    assert changes(pair.a.events) == ["up", "the interface went down"]
    pair.b.interface.remove_peer(pair.a.public_key)
    pair.b.drain()
    assert changes(pair.b.events) == ["up", "the peer was removed"]
