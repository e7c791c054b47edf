"""What typed changes do to an engine."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_network

import pytest
import trio

from tests.support.configuring import apply
from tests.support.operations import longest_turn
from tests.support.uapi_device import ConfigurableUdp, make_engine
from tunnel.config import PresharedKey, PrivateKey, PublicKey
from tunnel.control.uapi_changes import (
    PeerChange,
    ReplacePeers,
    SetFwmark,
    SetListenPort,
    SetPrivateKey,
)
from tunnel.device import configure
from tunnel.engine import Engine, Peer
from tunnel.io.endpoint import Endpoint, Source
from tunnel.io.errors import UdpError
from tunnel.protocol import pack

ONE, TWO = (PublicKey.from_bytes(bytes([n]) * 32) for n in (0x11, 0x22))
HERE = Endpoint(bytes([192, 0, 2, 9]), 9)
THERE = Endpoint(bytes([192, 0, 2, 10]), 10)


def nets(*texts: str, add: bool = True) -> dict[int, bool]:
    networks = map(ip_network, texts)
    return {pack(n.version, int(n.network_address), n.prefixlen): add for n in networks}


def networks(engine: Engine, peer: Peer) -> list[str]:
    return list(map(str, engine.interface.allowed_ips.of(peer)))


@pytest.fixture
def engine() -> Engine:
    return make_engine()[0]


def udp_of(engine: Engine) -> ConfigurableUdp:
    udp: object = engine.udp
    assert isinstance(udp, ConfigurableUdp)
    return udp


def added(engine: Engine, *changes: PeerChange) -> Sequence[Peer]:
    apply(engine, *changes)
    return [engine.interface.peers[change.public_key] for change in changes]


def test_peer_is_added_changed_and_removed(engine: Engine) -> None:
    psk = PresharedKey.from_bytes(bytes([7]) * 32)
    (peer,) = added(engine, PeerChange(ONE, endpoint=HERE, allowed_ips=nets("10.0.0.0/8")))
    apply(engine, PeerChange(ONE, preshared_key=psk, persistent_keepalive=5))
    assert (peer.endpoint, peer.preshared_key, peer.persistent_keepalive) == (HERE, psk, 5)
    assert networks(engine, peer) == ["10.0.0.0/8"]
    apply(engine, PeerChange(ONE, remove=True), PeerChange(TWO, remove=True))
    assert not engine.interface.peers
    assert len(engine.interface.allowed_ips) == 0


def test_update_only_adds_nobody(engine: Engine) -> None:
    (peer,) = added(engine, PeerChange(ONE))
    apply(
        engine,
        PeerChange(ONE, update_only=True, persistent_keepalive=3),
        PeerChange(TWO, update_only=True, allowed_ips=nets("10.0.0.0/8")),
    )
    assert peer.persistent_keepalive == 3
    assert list(engine.interface.peers) == [ONE]
    assert len(engine.interface.allowed_ips) == 0


def test_allowed_ips_are_added_taken_away_moved_and_replaced(engine: Engine) -> None:
    one, two = added(
        engine,
        PeerChange(ONE, allowed_ips=nets("10.0.0.0/8", "fd00::/8", "10.1.0.0/16")),
        PeerChange(TWO, allowed_ips=nets("10.1.0.0/16", "10.2.0.0/16")),
    )
    assert networks(engine, one) == ["10.0.0.0/8", "fd00::/8"]
    assert networks(engine, two) == ["10.1.0.0/16", "10.2.0.0/16"]
    apply(engine, PeerChange(ONE, allowed_ips=nets("10.2.0.0/16", "fd00::/8", add=False)))
    assert networks(engine, one) == ["10.0.0.0/8"]
    assert networks(engine, two) == ["10.1.0.0/16", "10.2.0.0/16"]
    change = nets("10.2.0.0/16", "10.9.0.0/16") | nets("10.0.0.0/8", add=False)
    apply(engine, PeerChange(ONE, replace_allowed_ips=True, allowed_ips=change))
    assert networks(engine, one) == ["10.2.0.0/16", "10.9.0.0/16"]
    assert networks(engine, two) == ["10.1.0.0/16"]


def test_what_stays_in_a_replacement_is_never_missing(engine: Engine) -> None:
    """Packets to an address that was allowed and stays so find their peer at any moment."""
    many = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(20_000)]
    added(engine, PeerChange(ONE, allowed_ips=nets("192.0.2.0/24", *many)))
    missed = looks = 0

    async def main() -> None:
        nonlocal looks, missed

        async def look() -> None:
            nonlocal looks, missed
            while True:
                looks += 1
                missed += engine.interface.peer_for_destination(bytes([192, 0, 2, 5])) is None
                await trio.sleep(0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            for change in (
                PeerChange(ONE, replace_allowed_ips=True, allowed_ips=nets("192.0.2.0/24", *many)),
                PeerChange(TWO, allowed_ips=nets("192.0.2.0/24", *many)),
                PeerChange(TWO, replace_allowed_ips=True, allowed_ips=nets("192.0.2.0/24")),
            ):
                await configure.apply(engine, [change])
            await configure.apply(
                engine, [ReplacePeers(), PeerChange(TWO, allowed_ips=nets("192.0.2.0/24"))]
            )
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert (looks > 20, missed) == (True, 0)


def test_replaced_peer_is_as_new_but_keeps_its_session_counters_and_place(engine: Engine) -> None:
    psk = PresharedKey.from_bytes(bytes([7]) * 32)
    one, two = added(
        engine,
        PeerChange(
            ONE,
            preshared_key=psk,
            endpoint=HERE,
            persistent_keepalive=5,
            allowed_ips=nets("10.0.0.0/8"),
        ),
        PeerChange(TWO, allowed_ips=nets("10.5.0.0/16")),
    )
    one.tx_bytes = 99
    apply(engine, ReplacePeers(), PeerChange(ONE, allowed_ips=nets("10.1.0.0/16")))
    assert dict(engine.interface.peers) == {ONE: one}
    assert two.removed
    assert one.preshared_key.is_zero
    assert (one.persistent_keepalive, one.endpoint, one.tx_bytes) == (0, HERE, 99)
    assert networks(engine, one) == ["10.1.0.0/16"]
    # A second section of the same peer adds to the first.
    apply(
        engine,
        ReplacePeers(),
        PeerChange(ONE, allowed_ips=nets("10.2.0.0/16"), persistent_keepalive=4),
        PeerChange(ONE, allowed_ips=nets("10.3.0.0/16"), endpoint=THERE),
    )
    assert networks(engine, one) == ["10.2.0.0/16", "10.3.0.0/16"]
    assert (one.persistent_keepalive, one.endpoint) == (4, THERE)


@pytest.mark.parametrize(
    "section", [PeerChange(ONE, update_only=True), PeerChange(ONE, remove=True)]
)
def test_replace_peers_leaves_nobody_for_update_only_or_remove(
    engine: Engine, section: PeerChange
) -> None:
    (one,) = added(engine, PeerChange(ONE))
    apply(engine, ReplacePeers(), section, PeerChange(TWO))
    assert one.removed
    assert list(engine.interface.peers) == [TWO]
    apply(engine, ReplacePeers())
    assert not engine.interface.peers


def test_second_replace_peers_undoes_what_came_before(engine: Engine) -> None:
    apply(engine, PeerChange(ONE), ReplacePeers(), PeerChange(ONE), ReplacePeers(), PeerChange(TWO))
    assert list(engine.interface.peers) == [TWO]


def test_endpoint_that_is_the_same_keeps_our_address_for_it(engine: Engine) -> None:
    (peer,) = added(engine, PeerChange(ONE, endpoint=HERE))
    stuck = Endpoint(HERE.address, HERE.port, source=Source(bytes([192, 0, 2, 1]), 3))
    peer.set_endpoint(stuck)
    apply(engine, PeerChange(ONE, endpoint=HERE))
    assert peer.endpoint is stuck
    apply(engine, PeerChange(ONE, endpoint=THERE))
    assert peer.endpoint == THERE


def test_peer_with_our_own_key_is_ignored_and_removed(engine: Engine) -> None:
    key = PrivateKey.from_bytes(bytes([9]) * 32)
    own = key.public_key()
    (peer,) = added(engine, PeerChange(own, allowed_ips=nets("10.0.0.0/8")))
    apply(engine, SetPrivateKey(key), PeerChange(own), PeerChange(ONE))
    assert peer.removed
    assert list(engine.interface.peers) == [ONE]
    assert len(engine.interface.allowed_ips) == 0
    apply(engine, SetPrivateKey(None))
    assert engine.interface.private_key is None


def test_new_private_key_gives_others_their_turn(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = engine.interface
    for number in range(10_000):
        peer = protocol.add_peer(PublicKey.from_bytes(number.to_bytes(32, "big")))
        peer.set_persistent_keepalive(25, engine.clock())
    change = SetPrivateKey(PrivateKey.from_bytes(bytes([9]) * 32))
    work = partial(configure.apply, engine, [change])
    _, slices = trio.run(longest_turn, work, monkeypatch)
    assert slices < 4.0


def test_port_and_mark(engine: Engine) -> None:
    apply(engine, SetListenPort(1000), SetFwmark(3))
    assert (udp_of(engine).port, udp_of(engine).fwmark) == (1000, 3)
    apply(engine, SetListenPort(0), SetFwmark(0))
    assert (udp_of(engine).port, udp_of(engine).fwmark) == (40000, 0)


@pytest.mark.parametrize("mark_refused", [True, False])
def test_refusal_by_the_kernel_changes_nothing(engine: Engine, mark_refused: bool) -> None:
    udp = udp_of(engine)
    udp.may_mark = not mark_refused
    with pytest.raises(UdpError) as refused:
        apply(engine, SetListenPort(1000), SetFwmark(7), SetListenPort(7777), PeerChange(ONE))
    assert refused.value.errno == (errno.EPERM if mark_refused else errno.EADDRINUSE)
    assert (udp.port, udp.fwmark) == (51820, 0)
    assert not engine.interface.peers


def test_port_that_cannot_be_had_back_is_no_second_error(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    udp_of(engine).taken = frozenset({7777, 51820})
    with pytest.raises(UdpError, match="7777"):
        apply(engine, SetListenPort(1000), SetListenPort(7777))
    assert "the UDP port could not be restored and is 1000" in caplog.text


def test_cancellation_does_not_come_in_between(engine: Engine) -> None:
    many = nets(*(f"10.{n >> 8}.{n & 255}.0/24" for n in range(10_000)))

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(configure.apply, engine, [PeerChange(ONE, allowed_ips=many)])
                await trio.lowlevel.checkpoint()
                while not engine.interface.peers:
                    await trio.lowlevel.checkpoint()
                scope.cancel()

    trio.run(main)
    assert len(engine.interface.allowed_ips) == 10_000
