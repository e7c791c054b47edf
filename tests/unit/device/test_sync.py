from __future__ import annotations

import trio

from tests.support.engines import make_side
from tunnel.config import PrivateKey, TunnelConfig, parse
from tunnel.device import sync
from tunnel.engine import Engine
from tunnel.io.endpoint import Endpoint

OWN = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
ONE = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
TWO = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
PSK = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE="


def conf(*sections: str) -> TunnelConfig:
    text = f"[Interface]\nPrivateKey = {OWN}\n" + "".join(
        f"[Peer]\n{section}\n" for section in sections
    )
    return parse(text, name="wg0", source="test")


def peer(key: str, networks: str, *more: str) -> str:
    return "\n".join([f"PublicKey = {key}", f"AllowedIPs = {networks}", *more])


def changes(engine: Engine, old: TunnelConfig, new: TunnelConfig) -> list[str]:
    return [str(change) for change in trio.run(sync.differences, engine, old, new)]


def running(config: TunnelConfig) -> Engine:
    engine = make_side(1).engine
    trio.run(sync.apply, engine, config, {})
    return engine


def test_what_was_applied_does_not_differ() -> None:
    config = conf(peer(ONE, "10.0.0.0/8", f"PresharedKey = {PSK}"), peer(TWO, "fd00::/8"))
    engine = running(config)
    assert changes(engine, config, config) == []
    assert len(engine.interface.peers) == 2


def test_every_kind_of_change_is_told_without_secrets_and_then_done() -> None:
    old = conf(peer(ONE, "10.0.0.0/8, 10.1.0.0/16"), peer(TWO, "fd00::/8"))
    new = conf(
        peer(
            ONE,
            "10.0.0.0/8, 10.2.0.0/16",
            f"PresharedKey = {PSK}",
            "PersistentKeepalive = 25",
            "Endpoint = 192.0.2.1:5",
        )
    )
    engine = running(old)
    told = changes(engine, old, new)
    assert told == [
        f"~ peer {ONE} preshared key: is set",
        f"- peer {ONE} allowed IPs: 10.1.0.0/16",
        f"+ peer {ONE} allowed IPs: 10.2.0.0/16",
        f"~ peer {ONE} endpoint: unknown becomes 192.0.2.1:5",
        f"~ peer {ONE} persistent keepalive: off becomes 25 s",
        f"- peer {TWO}",
    ]
    (key,) = sync.wanted_peers(new, None)
    trio.run(sync.apply, engine, new, {key: Endpoint(bytes([192, 0, 2, 1]), 5)})
    assert changes(engine, new, new) == []
    assert engine.interface.peers[key].persistent_keepalive == 25


def test_unchanged_peer_is_the_same_object_and_keeps_where_it_roamed_to() -> None:
    old = conf(peer(ONE, "10.0.0.0/8", "Endpoint = 192.0.2.1:5"))
    new = conf(peer(ONE, "10.0.0.0/8", "Endpoint = 192.0.2.1:5"), peer(TWO, "fd00::/8"))
    engine = running(old)
    (before,) = engine.interface.peers.values()
    roamed = Endpoint(bytes([192, 0, 2, 77]), 9)
    before.set_endpoint(roamed)
    assert changes(engine, old, new) == [f"+ peer {TWO}: fd00::/8"]
    trio.run(sync.apply, engine, new, {})
    assert engine.interface.peers[before.public_key] is before
    assert before.endpoint is roamed


def test_network_listed_twice_belongs_to_the_last_and_moves_without_a_gap() -> None:
    old = conf(peer(ONE, "10.0.0.0/8"), peer(TWO, "10.1.0.0/16"))
    new = conf(peer(ONE, "10.1.0.0/16"), peer(TWO, "10.0.0.0/8"))
    engine = running(old)
    trio.run(sync.apply, engine, new, {})
    owner = engine.interface.allowed_ips.lookup(bytes([10, 1, 2, 3]))
    assert owner is not None
    assert owner.public_key.to_base64() == ONE
    owner = engine.interface.allowed_ips.lookup(bytes([10, 2, 2, 3]))
    assert owner is not None
    assert owner.public_key.to_base64() == TWO


def test_network_listed_twice_is_the_second_ones_and_told_so() -> None:
    old = conf(peer(ONE, "10.0.0.0/8"), peer(TWO, "10.1.0.0/16"))
    new = conf(
        peer(ONE, "10.0.0.0/8"), peer(TWO, "10.1.0.0/16, 10.0.0.0/8, 10.3.0.0/16, -10.3.0.0/16")
    )
    engine = running(old)
    assert changes(engine, old, new) == [
        f"- peer {ONE} allowed IPs: 10.0.0.0/8",
        f"+ peer {TWO} allowed IPs: 10.0.0.0/8",
    ]
    trio.run(sync.apply, engine, new, {})
    assert changes(engine, new, new) == []


def test_long_lists_give_the_event_loop_its_turn() -> None:
    networks = ", ".join(f"10.{n // 256}.{n % 256}.0/24" for n in range(5000))
    config = conf(peer(ONE, networks))
    engine = make_side(1).engine

    async def main() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await sync.apply(engine, config, {})
            nursery.cancel_scope.cancel()
        return turns

    assert trio.run(main) >= 2


def test_many_networks_are_summed_up() -> None:
    old, new = conf(), conf(peer(ONE, ", ".join(f"10.{n}.0.0/16" for n in range(9))))
    (told,) = changes(running(old), old, new)
    assert told.endswith("10.0.0.0/16, 10.1.0.0/16, 10.2.0.0/16, 10.3.0.0/16, and 5 more")


def test_key_that_the_conf_leaves_to_a_hook_stays() -> None:
    own = PrivateKey.from_base64(OWN)
    peers = [peer(ONE, "10.0.0.0/8"), peer(own.public_key().to_base64(), "10.1.0.0/16")]
    text = "[Interface]\nPreUp = true\n" + "".join(f"[Peer]\n{each}\n" for each in peers)
    config = parse(text, name="wg0", source="test")
    engine = make_side(1).engine
    engine.interface.set_private_key(own, 0)
    trio.run(sync.apply, engine, config, {})
    assert engine.interface.private_key == own
    # As in WireGuard, the one that is ourselves is no peer, wherever our key comes from.
    assert [key.to_base64() for key in engine.interface.peers] == [ONE]
    assert changes(engine, config, config) == []
