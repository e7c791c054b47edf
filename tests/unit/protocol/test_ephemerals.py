"""Ephemeral keys: given to a listener before they are used, and only to it."""

from crypto.keys import PresharedKey, PrivateKey, PublicKey
from tests.support.protocol_pair import Pair

Ephemeral = tuple[PublicKey, PrivateKey, PresharedKey]


def test_a_listener_gets_the_key_of_every_message() -> None:
    pair = Pair()
    heard: dict[str, list[Ephemeral]] = {"a": [], "b": []}
    psk = PresharedKey(bytes(range(32)))
    pair.ab.set_preshared_key(psk)
    pair.ba.set_preshared_key(psk)
    for node in (pair.a, pair.b):
        listener = heard[node.name].append
        node.interface.set_on_ephemeral(lambda *key, listener=listener: listener(key))
    pair.send(pair.a)
    pair.flow()
    initiation, response, _ = pair.log
    for node, other, message, start in (
        (pair.a, pair.ab, initiation, 8),
        (pair.b, pair.ba, response, 12),
    ):
        ((peer, ephemeral, preshared),) = heard[node.name]
        assert peer == other.public_key
        assert bytes(ephemeral.public_key()) == message.data[start : start + 32]
        assert preshared == psk


def test_it_gets_nothing_once_it_is_gone_and_changes_nothing() -> None:
    heard: list[object] = []
    listening, plain = Pair(), Pair()
    listening.a.interface.set_on_ephemeral(lambda *key: heard.append(key))
    listening.connect()
    plain.connect()
    assert [sent.data for sent in listening.log] == [sent.data for sent in plain.log]
    listening.a.interface.set_on_ephemeral(None)
    listening.live_to(130)
    listening.send(listening.a)
    listening.flow()
    assert listening.kinds().count("I") > 1
    assert len(heard) == 1
