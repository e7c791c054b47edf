"""Keys, peers, clocks, staging, coming up and going down."""

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest

from crypto.keys import PresharedKey, PrivateKey
from tests.support.protocol_pair import DATA, INITIATION, Pair, remaining
from tunnel.protocol import (
    ClockImplausible,
    HandshakeFailed,
    PeerDisconnected,
    PeerError,
    PeerRemoved,
    ProtocolDrop,
)
from tunnel.protocol import constants as c

DAY_NS = 86_400 * 10**9
YEAR_NS = 365 * DAY_NS


# --- Keys and peers ------------------------------------------------------------------------------


def test_peers_are_added_once_and_never_with_our_own_key() -> None:
    pair = Pair()
    with pytest.raises(PeerError, match="already"):
        pair.a.interface.add_peer(pair.b.public_key)
    with pytest.raises(PeerError, match="own public key"):
        pair.a.interface.add_peer(pair.a.public_key)
    assert list(pair.a.interface.peers) == [pair.b.public_key]


def test_removing_a_peer_leaves_nothing_of_it() -> None:
    pair = Pair()
    pair.connect()
    pair.send(pair.b)
    peer, cipher = pair.ba, pair.ba.keypairs.current
    assert cipher is not None
    pair.ab.set_persistent_keepalive(20, pair.now)
    assert pair.a.interface.remove_peer(pair.b.public_key)
    assert not pair.a.interface.remove_peer(pair.b.public_key)
    context = pair.a.interface._context
    assert not context.index_table.keypairs
    assert pair.a.interface.next_deadline() is None
    assert pair.a.interface.peer_for_destination(pair.b.inner) is None
    assert not pair.a.interface.peers
    # What the driver still held in its hands does no harm.
    pair.b.interface.remove_peer(pair.a.public_key)
    peer.handle_sent(1.0, 48, data=True)
    peer.handle_received(cipher.transport, pair.a.address, 1.0, 48, data=True)
    peer.stage(b"frame", 1.0)
    assert peer.drops == {ProtocolDrop.PEER_REMOVED: 1}
    assert pair.b.interface.next_deadline() is None
    assert isinstance(pair.b.interface.poll_output(), PeerDisconnected)
    assert pair.b.interface.poll_output() == PeerRemoved(pair.a.public_key, own_key=False)
    assert pair.b.interface.poll_output() is None


def staging(pair: Pair) -> None:
    """An initiation under way, frames staged."""
    pair.send(pair.a)


def answering(pair: Pair) -> None:
    """A keypair that waits for confirmation, and an own handshake that waits for its 5 s."""
    pair.send(pair.b)
    for sent in pair.take():
        pair.deliver(sent)
    pair.send(pair.a)


def busy(pair: Pair) -> None:
    """Two keypairs, and timers that were moved to an earlier time again and again."""
    pair.connect()
    for seconds in range(60, 20, -1):
        pair.ab.set_persistent_keepalive(seconds, pair.now)
    pair.live_to(121.0)
    pair.send(pair.a)
    pair.flow()
    assert remaining(pair.ab) == (True, True, False)


@pytest.mark.parametrize("prepare", [Pair.connect, staging, answering, busy])
@pytest.mark.parametrize("how", ["request", "own key"])
def test_a_removed_peer_is_freed_by_reference_counting_alone(
    prepare: Callable[[Pair], None], how: str
) -> None:
    pair = Pair()
    prepare(pair)
    pair.take()
    peer = weakref.ref(pair.ab)
    gc.disable()
    try:
        if how == "request":
            pair.a.interface.remove_peer(pair.b.public_key)
        else:
            pair.a.interface.set_private_key(pair.b.private_key, pair.now)
        pair.a.drain()
        del pair.ab
        assert peer() is None
    finally:
        gc.enable()


def test_removing_a_peer_counts_what_was_staged() -> None:
    pair = Pair()
    pair.send(pair.a)
    pair.send(pair.a)
    pair.a.interface.remove_peer(pair.b.public_key)
    assert pair.a.interface.drops == {ProtocolDrop.PEER_REMOVED: 2}
    assert pair.a.interface._context.staged_bytes == 0
    pair.flow()
    assert pair.a.interface.drops[ProtocolDrop.UNKNOWN_HANDSHAKE] == 1


def test_private_key_change_stops_old_keypairs_and_makes_new_ones() -> None:
    pair = Pair()
    pair.connect()
    pair.send(pair.b)
    held = pair.take()
    key = PrivateKey.from_random(bytes(range(32)))
    pair.a.interface.set_private_key(key, pair.now)
    assert pair.a.interface.public_key == key.public_key()
    assert pair.ab.keypairs.transport_for_sending(pair.now) is None
    pair.deliver(held[0])
    assert len(pair.a.received) == 1, "what is under way still arrives"
    pair.take()
    pair.b.interface.remove_peer(pair.a.public_key)
    pair.a.private_key = key
    pair.b.add_peer(pair.a)
    serial = pair.send(pair.a)
    pair.advance(c.RESTART_SPACING)
    pair.flow()
    assert serial in pair.b.received


def change_to(pair: Pair, key: PrivateKey) -> Iterator[None]:
    """Let a be `key`, and b know it; a's peer has not had its turn yet."""
    steps = pair.a.interface.private_key_steps(key, pair.now)
    next(steps)
    pair.take()
    pair.b.interface.remove_peer(pair.a.public_key)
    pair.a.private_key = key
    pair.b.add_peer(pair.a)
    return steps


NEW_KEY = PrivateKey.from_random(bytes(range(32)))


def test_peer_whose_turn_comes_late_answers_with_the_new_key() -> None:
    pair = Pair()
    pair.connect()
    pair.advance(6.0)
    steps = change_to(pair, NEW_KEY)
    serial = pair.send(pair.b)
    pair.flow()
    assert serial in pair.a.received
    # Its turn leaves the new keypair alone.
    assert list(steps) == []
    since = len(pair.log)
    serial = pair.send(pair.a)
    pair.flow()
    assert serial in pair.b.received
    assert pair.kinds(since) == DATA


def test_peer_whose_turn_comes_late_starts_with_the_new_key() -> None:
    pair = Pair()
    pair.connect()
    # The keypair is too old to send with.
    pair.advance(c.REJECT_AFTER_TIME)
    steps = change_to(pair, NEW_KEY)
    since = len(pair.log)
    serial = pair.send(pair.a)
    list(steps)
    pair.flow()
    assert serial in pair.b.received
    assert pair.kinds(since) == "IRD"


def test_key_change_in_steps_is_the_one_at_once() -> None:
    pair = Pair()
    pair.connect()
    steps = pair.a.interface.private_key_steps(NEW_KEY, pair.now)
    next(steps)
    assert pair.a.interface.private_key == NEW_KEY
    assert pair.ab.keypairs.transport_for_sending(pair.now) is not None
    assert list(steps) == []
    assert pair.ab.keypairs.transport_for_sending(pair.now) is None
    # A peer that is removed before its turn stays removed.
    steps = pair.b.interface.private_key_steps(NEW_KEY, pair.now)
    next(steps)
    pair.b.interface.remove_peer(pair.a.public_key)
    assert list(steps) == []
    assert pair.b.interface.next_deadline() is None


def test_same_private_key_again_changes_nothing() -> None:
    pair = Pair()
    pair.connect()
    pair.a.interface.set_private_key(pair.a.private_key, pair.now)
    assert pair.ab.keypairs.transport_for_sending(pair.now) is not None


def test_private_key_of_a_peer_removes_that_peer() -> None:
    pair = Pair()
    pair.a.interface.set_private_key(pair.b.private_key, pair.now)
    assert not pair.a.interface.peers
    assert pair.a.interface.peer_for_destination(pair.b.inner) is None
    pair.a.drain()
    assert pair.a.events == [PeerRemoved(pair.b.public_key, own_key=True)]


def test_no_private_key_waits_for_one() -> None:
    pair = Pair()
    pair.a.interface.set_private_key(None, 0.0)
    serial = pair.send(pair.a)
    pair.advance(1.0)
    assert pair.kinds() == ""
    pair.a.interface.set_private_key(pair.a.private_key, pair.now)
    pair.advance(0.0)
    pair.flow()
    assert serial in pair.b.received


def test_no_private_key_is_given_up_with_the_reason() -> None:
    pair = Pair()
    pair.a.interface.set_private_key(None, 0.0)
    pair.send(pair.a)
    pair.advance(100.0)
    (failed,) = [e for e in pair.a.events if isinstance(e, HandshakeFailed)]
    assert failed.reason == "the interface has no private key"


def test_unconfirmed_keypair_of_an_old_key_is_not_sent_with() -> None:
    pair = Pair()
    pair.send(pair.a)
    pair.deliver(pair.take()[0])
    pair.send(pair.b)
    pair.b.interface.set_private_key(PrivateKey.from_random(bytes(32)), pair.now)
    pair.flow()
    assert remaining(pair.ba) == (False, False, False)
    assert pair.kinds().count(DATA) == 1, "only the initiator's own"


def test_setters_show() -> None:
    pair = Pair()
    assert pair.ab.preshared_key == PresharedKey.ZERO
    pair.ab.set_preshared_key(PresharedKey.from_bytes(bytes([1] * 32)))
    assert pair.ab.preshared_key == PresharedKey.from_bytes(bytes([1] * 32))
    assert pair.ab.public_key == pair.b.public_key
    assert pair.b.public_key.to_base64() in repr(pair.ab)


def test_handshake_begun_while_we_did_not_hear_is_repeated_when_we_do() -> None:
    pair = Pair()
    pair.connect()
    pair.advance(1.0)
    pair.a.interface.handle_down()
    # The interface came up, a packet came through it, and only then handle_up is called.
    serial = pair.send(pair.a)
    pair.take()
    pair.advance(0.5)
    pair.a.interface.handle_up(pair.now)
    pair.a.drain()
    pair.advance(0.0)
    pair.flow()
    assert serial in pair.b.received


@pytest.mark.parametrize("elapsed", [0.0, 0.004, 0.019, 0.024])
@pytest.mark.parametrize("again", ["up", "down", "key"])
def test_begun_anew_at_once_it_is_no_flood_to_the_peer(again: str, elapsed: float) -> None:
    pair = Pair()
    pair.connect()
    pair.advance(1.0)
    pair.a.interface.handle_down()
    since = len(pair.log)
    begun = pair.now
    # The peer gets this one, and answers while we do not listen yet.
    serial = pair.send(pair.a)
    pair.deliver(pair.take()[0])
    pair.take()
    pair.advance(elapsed)
    match again:
        case "up":
            pair.a.interface.handle_up(pair.now)
        case "down":
            pair.a.interface.handle_down()
            serial = pair.send(pair.a)
        case _:
            own = pair.a.interface.private_key
            pair.a.interface.set_private_key(NEW_KEY, pair.now)
            pair.a.interface.set_private_key(own, pair.now)
    pair.a.drain()
    pair.live_to(begun + c.RESTART_SPACING)
    assert pair.times(INITIATION, since) == [begun, begun + c.RESTART_SPACING]
    assert serial in pair.b.received
    assert pair.ba.drops.get(ProtocolDrop.HANDSHAKE_FLOOD, 0) == 0


# --- Staging -------------------------------------------------------------------------------------


def test_stages_128_frames_and_drops_the_oldest() -> None:
    pair = Pair()
    serials = [pair.send(pair.a) for _ in range(200)]
    assert pair.ab.staged_frames == 128
    assert pair.ab.drops == {ProtocolDrop.STAGED_OVERFLOW: 72}
    pair.flow()
    assert pair.b.received == set(serials[72:])
    assert pair.ab.staged_frames == 0
    assert pair.a.interface._context.staged_bytes == 0


def test_large_frames_are_bounded_by_bytes() -> None:
    pair = Pair()
    frame = bytes(65_536)
    for _ in range(20):
        pair.ab.stage(frame, 0.0)
    assert pair.ab.staged_frames == c.MAX_STAGED_BYTES_PER_PEER // len(frame)
    pair.ab.stage(bytes(c.MAX_STAGED_BYTES_PER_PEER + 1), 0.0)
    assert pair.ab.staged_frames == 0
    assert pair.ab.drops == {ProtocolDrop.STAGED_OVERFLOW: 21}


def test_all_peers_together_are_bounded_by_bytes() -> None:
    pair = Pair()
    frame = bytes(65_536)
    peers = [
        pair.a.interface.add_peer(PrivateKey.from_random(bytes([n] * 32)).public_key())
        for n in range(1, 41)
    ]
    for peer in peers:
        for _ in range(16):
            peer.stage(frame, 0.0)
    staged = pair.a.interface._context.staged_bytes
    assert staged == c.MAX_STAGED_BYTES
    assert peers[-1].drops == {ProtocolDrop.STAGED_OVERFLOW: 16}
    assert peers[0].staged_frames == 16
    pair.a.interface.handle_down()
    assert pair.a.interface._context.staged_bytes == 0


def test_frame_staged_although_a_keypair_stands_is_sealed() -> None:
    pair = Pair()
    pair.connect()
    mark = len(pair.log)
    pair.ab.stage(bytes(16), pair.now)
    pair.a.drain()
    assert pair.kinds(mark) == DATA


# --- The clock -----------------------------------------------------------------------------------


def test_clock_in_the_far_future_sends_nothing_and_warns() -> None:
    pair = Pair()
    pair.wall_offset_ns = 80 * YEAR_NS
    pair.send(pair.a)
    pair.advance(20.0)
    assert pair.kinds() == ""
    (warning,) = [e for e in pair.a.events if isinstance(e, ClockImplausible)]
    assert warning.refused
    assert "2100" in warning.problem
    # The clock is set right, and all goes on, since no key was burnt.
    pair.wall_offset_ns = 0
    pair.advance(5.4)
    pair.flow()
    assert len(pair.b.received) == 1


def test_clock_in_the_far_future_gives_up_with_the_reason() -> None:
    pair = Pair()
    pair.wall_offset_ns = 80 * YEAR_NS
    pair.send(pair.a)
    pair.advance(100.0)
    (failed,) = [e for e in pair.a.events if isinstance(e, HandshakeFailed)]
    assert failed.reason == "the clock is implausible"
    assert len([e for e in pair.a.events if isinstance(e, ClockImplausible)]) == 2


def test_clock_never_set_warns_and_goes_on() -> None:
    pair = Pair()
    pair.wall_offset_ns = -50 * YEAR_NS
    pair.send(pair.a)
    pair.flow()
    assert len(pair.b.received) == 1
    (warning,) = [e for e in pair.a.events if isinstance(e, ClockImplausible)]
    assert not warning.refused


def test_clock_that_jumps_ahead_warns_once() -> None:
    pair = Pair()
    pair.connect()
    pair.wall_offset_ns = 3650 * DAY_NS
    for _ in range(3):
        pair.live_to(pair.now + 200.0)
        pair.send(pair.a)
        pair.flow()
    assert len(pair.b.received) == 4
    warnings = [e for e in pair.a.events if isinstance(e, ClockImplausible)]
    assert ["3650 days ahead" in e.problem for e in warnings] == [True]


def test_a_warning_about_the_clock_hides_no_other() -> None:
    """A clock that jumps ahead and then past 2100: that handshakes stop is said at once."""
    pair = Pair()
    pair.connect()
    pair.wall_offset_ns = 30 * DAY_NS
    pair.live_to(pair.now + 200.0)
    pair.send(pair.a)
    pair.wall_offset_ns = 80 * YEAR_NS
    pair.live_to(pair.now + 25.0)
    warnings = [e.problem for e in pair.a.events if isinstance(e, ClockImplausible)]
    assert len(warnings) == 2, "each once in a minute"
    assert "jumped 30 days ahead" in warnings[0]
    assert "handshakes are not sent" in warnings[1]


def test_clock_that_jumps_back_warns_once() -> None:
    pair = Pair()
    pair.connect()
    pair.wall_offset_ns = -30 * DAY_NS
    for _ in range(2):
        pair.live_to(pair.now + 200.0)
        pair.send(pair.a)
        pair.flow()
    warnings = [e for e in pair.a.events if isinstance(e, ClockImplausible)]
    assert ["30 days back" in e.problem for e in warnings] == [True]
    assert not warnings[0].refused


@pytest.mark.parametrize("wrong", [-50 * YEAR_NS, 80 * YEAR_NS])
def test_clock_that_is_set_at_last_is_no_jump(wrong: int) -> None:
    pair = Pair()
    pair.wall_offset_ns = wrong
    pair.send(pair.a)
    pair.live_to(70.0)
    pair.wall_offset_ns = 0
    pair.live_to(400.0)
    pair.send(pair.a)
    pair.live_to(410.0)
    warnings = [e for e in pair.a.events if isinstance(e, ClockImplausible)]
    assert len(warnings) == (2 if wrong > 0 else 1)
    assert not any("jumped" in warning.problem for warning in warnings)


def test_clock_set_back_keeps_timestamps_rising() -> None:
    pair = Pair()
    pair.connect()
    for _ in range(5):
        pair.wall_offset_ns -= 365 * DAY_NS
        pair.live_to(pair.now + 200.0)
        pair.send(pair.a)
        pair.flow()
    assert len(pair.b.received) == 6
    assert ProtocolDrop.OLD_TIMESTAMP not in pair.b.interface.drops


def test_timestamps_go_on_rising_when_a_peer_is_removed_and_added_again() -> None:
    pair = Pair()
    pair.connect()
    pair.wall_offset_ns = -DAY_NS
    pair.a.interface.remove_peer(pair.b.public_key)
    pair.a.add_peer(pair.b)
    pair.advance(1.0)
    pair.send(pair.a)
    pair.flow()
    assert len(pair.b.received) == 2


def test_memory_of_removed_peers_is_bounded() -> None:
    pair = Pair()
    context = pair.a.interface._context
    for number in range(c.MAX_REMEMBERED_STAMPS + 10):
        key = PrivateKey.from_bytes(number.to_bytes(4, "big") + bytes(28))
        context.remember_stamp(key.public_key(), 1)
    assert len(context.stamps) == c.MAX_REMEMBERED_STAMPS


# --- Down and up ---------------------------------------------------------------------------------


def test_down_forgets_keypairs_and_up_greets() -> None:
    pair = Pair()
    pair.ab.set_persistent_keepalive(25, 0.0)
    pair.live_to(1.0)
    assert remaining(pair.ab) == (False, True, False)
    pair.a.interface.handle_down()
    assert remaining(pair.ab) == (False, False, False)
    mark = len(pair.log)
    pair.advance_to(100.0)
    assert INITIATION not in pair.kinds(mark)
    pair.a.interface.handle_up(pair.now)
    pair.live_to(101.0)
    assert remaining(pair.ab) == (False, True, False)


def test_down_counts_what_was_staged() -> None:
    pair = Pair()
    pair.send(pair.a)
    pair.a.interface.handle_down()
    assert pair.a.interface.drops == {ProtocolDrop.INTERFACE_DOWN: 1}


def test_timers_of_many_peers_run_in_slices() -> None:
    pair = Pair()
    keys = [PrivateKey.from_random(bytes([n] * 32)).public_key() for n in range(1, 101)]
    for key in keys:
        peer = pair.a.interface.add_peer(key)
        peer.set_endpoint(pair.b.address)
        peer.set_persistent_keepalive(25, 0.0)
    pair.a.interface.handle_deadline(0.0)
    pair.a.drain()
    assert pair.kinds() == INITIATION * c.MAX_PEERS_PER_DEADLINE
    deadline = pair.a.interface.next_deadline()
    assert deadline is not None
    assert deadline <= 0.0
    pair.a.wake()
    assert pair.kinds() == INITIATION * 100
