"""Sessions that go on after their process has ended, and what is left of those that do not."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from itertools import permutations

import pytest

from tests.support.revivals import End, Time, exchange, key_of, kill, written
from tunnel import datapath
from tunnel.config import PresharedKey
from tunnel.datapath.interface import SEND_BLOCK
from tunnel.engine.keeping import LeftOut, Revived
from tunnel.engine.session_record import FoundEntries, SessionRecord, SessionRecordError
from tunnel.io.endpoint import Endpoint, Source
from tunnel.protocol import KeypairExpired, ProtocolDrop

Ends = tuple[End, End]
ELSEWHERE = Endpoint(bytes([198, 51, 100, 9]), 4444, source=Source(bytes([192, 0, 2, 7]), 0))

ANOTHER = Endpoint(bytes([203, 0, 113, 1]), 51820)


@pytest.fixture(params=datapath.available())
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Two that know each other; `a` has a record."""
    time, path = Time(), datapath.load(request.param)
    a, b = End(1, time, SessionRecord.create(), path), End(2, time, None, path)
    a.add(b)
    b.add(a)
    yield a, b
    if a.record is not None:
        a.record.close()


@pytest.fixture
def reborn() -> Iterator[Callable[..., tuple[End, Revived]]]:
    """The next process of an end that was killed. Its conf has the peer unless it `forgets` it, and
    where that is unless it is `placeless`."""
    records = []

    def go_on(
        old: End,
        other: End,
        *,
        forgets: bool = False,
        placeless: bool = False,
        psk: bytes = bytes(32),
        key: int = 0,
    ) -> tuple[End, Revived]:
        record = SessionRecord.adopt(kill(old))
        records.append(record)
        end = End(old.number, old.time, record, old.path, key_of(key or old.number))
        if not forgets:
            peer = end.add(other, placeless=placeless)
            peer.set_preshared_key(PresharedKey(psk))
        return end, end.engine.revive()

    yield go_on
    for record in records:
        record.close()


Reborn = Callable[..., tuple[End, Revived]]


def joined(a: End, b: End) -> None:
    """A session, by a handshake of `a`, and a packet each way."""
    a.send(b)
    exchange(a, b)
    b.send(a)
    exchange(a, b)
    assert a.handshakes == b.handshakes == 1


def found(record: SessionRecord | None) -> FoundEntries:
    """What the next process would find, without ending this one."""
    assert record is not None
    reader = SessionRecord(-1, record.fileno(), b"")
    return reader.read()


def test_packets_go_on_both_ways_without_a_handshake(ends: Ends, reborn: Reborn) -> None:
    a, b = ends
    joined(a, b)
    a, revived = reborn(a, b)
    assert revived == Revived(sessions=1, peers=1)
    assert [message[0] for message in a.send(b)] == [4]
    exchange(a, b)
    assert [message[0] for message in b.send(a)] == [4]
    exchange(a, b)
    assert (a.handshakes, b.handshakes) == (0, 1)
    assert a.peer(b).last_handshake_unix_ns == b.peer(a).last_handshake_unix_ns


def test_the_peer_gets_a_message_at_once(ends: Ends, reborn: Reborn) -> None:
    """Data may have come that was not answered: silence would have the peer begin a handshake."""
    a, b = ends
    joined(a, b)
    b.send(a)
    exchange(a, b)
    a, _ = reborn(a, b)
    assert [len(message) for message in a.elapse(0)] == [32]
    exchange(a, b)
    assert not b.elapse(30)


def test_counters_go_on_behind_what_was_reserved(ends: Ends, reborn: Reborn) -> None:
    a, b = ends
    joined(a, b)
    a, _ = reborn(a, b)
    assert int.from_bytes(a.send(b)[0][8:16], "little") == SEND_BLOCK
    a, _ = reborn(a, b)
    assert int.from_bytes(a.send(b)[0][8:16], "little") == 2 * SEND_BLOCK


def test_counters_go_on_exactly_after_a_hand_over(ends: Ends, reborn: Reborn) -> None:
    a, b = ends
    joined(a, b)
    last = int.from_bytes(a.send(b)[-1][8:16], "little")
    a.engine.hand_over()
    assert not a.send(b)
    assert a.engine.drops() == {"message_limit": 1}
    a, revived = reborn(a, b)
    assert revived.sessions == 1
    assert int.from_bytes(a.send(b)[0][8:16], "little") == last + 1


def test_replays_are_refused(ends: Ends, reborn: Reborn) -> None:
    a, b = ends
    joined(a, b)
    messages = b.send(a, 20)
    b.udp.sent.clear()
    assert a.take(messages, b.udp.own) == 20
    a, _ = reborn(a, b)
    assert a.take(messages, ELSEWHERE) == 0
    assert a.peer(b).endpoint == b.udp.own
    assert a.take(b.send(a), b.udp.own) == 1


def test_an_old_initiation_is_refused(ends: Ends, reborn: Reborn) -> None:
    a, b = ends
    (initiation,) = b.send(a)
    exchange(a, b)
    a, revived = reborn(a, b)
    assert revived.sessions == 1
    a.take([initiation], ELSEWHERE)
    assert a.engine.interface.drops == {ProtocolDrop.OLD_TIMESTAMP: 1}
    assert not a.udp.sent
    assert a.peer(b).endpoint == b.udp.own


def test_our_timestamps_go_on(ends: Ends, reborn: Reborn) -> None:
    """Though the wall clock was set back: the peer would refuse an earlier one."""
    a, b = ends
    joined(a, b)
    stamp = a.peer(b).stamps[1]
    a, _ = reborn(a, b)
    assert a.peer(b).stamps[1] == stamp > 0


def test_an_initiation_on_its_way_is_noted_before_it_is_sent(ends: Ends, reborn: Reborn) -> None:
    a, b = ends
    assert a.send(b)[0][0] == 1
    stamp = a.peer(b).stamps[1]
    a, revived = reborn(a, b)
    assert revived == Revived()
    assert a.peer(b).stamps[1] == stamp
    # What answers it comes too late, and another handshake is made.
    exchange(a, b)
    assert b.handshakes == a.handshakes == 0
    b.elapse(5)
    a.send(b)
    exchange(a, b)
    assert a.handshakes == 1


def test_a_peer_that_moved_is_found_where_it_is(ends: Ends, reborn: Reborn) -> None:
    a, b = ends
    joined(a, b)
    messages = b.send(a)
    b.udp.sent.clear()
    a.take(messages, ELSEWHERE)
    a, _ = reborn(a, b, placeless=True)
    assert a.peer(b).endpoint == ELSEWHERE


def test_where_a_changed_conf_has_it_is_where_it_is(ends: Ends, reborn: Reborn) -> None:
    a, b = ends
    a.engine.revive()
    joined(a, b)
    messages = b.send(a)
    b.udp.sent.clear()
    a.take(messages, ELSEWHERE)
    # The same conf, twice, and one that does not say: where it was last.
    for placeless in (False, False, True, False):
        a, _ = reborn(a, b, placeless=placeless)
        assert a.peer(b).endpoint == ELSEWHERE
    b.udp.own = ANOTHER
    a, revived = reborn(a, b)
    assert revived.sessions == 1
    assert a.peer(b).endpoint == ANOTHER


@pytest.mark.parametrize("steps", list(permutations(["reload", "roam", "restart"])))
def test_where_a_peer_is_outlives_each_order_of_reload_and_roaming(
    ends: Ends, reborn: Reborn, steps: tuple[str, ...]
) -> None:
    a, b = ends
    a.engine.revive()
    joined(a, b)
    where = b.udp.own
    for step in (*steps, "restart"):
        if step == "reload":
            b.udp.own = where = ANOTHER
            a.peer(b).set_endpoint(ANOTHER)
            a.engine.set_given(a.peer(b), str(ANOTHER).encode())
            a.engine.settle()
        elif step == "roam":
            where = ELSEWHERE
            messages = b.send(a)
            b.udp.sent.clear()
            assert a.take(messages, ELSEWHERE) == 1
        else:
            a, _ = reborn(a, b)
        assert a.peer(b).endpoint == where


def test_one_that_waits_for_confirmation_still_does(ends: Ends, reborn: Reborn) -> None:
    a, b = ends
    joined(a, b)
    a.take(b.initiate(a), b.udp.own)
    (response,) = (data for data, *_ in a.udp.sent)
    a.udp.sent.clear()
    a, revived = reborn(a, b)
    assert revived == Revived(sessions=2, peers=1)
    waiting = a.peer(b).keypairs.next
    assert waiting is not None
    assert not waiting.is_initiator
    b.take([response], a.udp.own)
    exchange(a, b)
    assert a.peer(b).keypairs.current is waiting
    assert a.handshakes == 1
    assert b.handshakes == 2


def test_all_three_slots_go_on(ends: Ends, reborn: Reborn) -> None:
    a, b = ends
    joined(a, b)
    a.take(b.initiate(a), b.udp.own)
    exchange(a, b)
    a.take(b.initiate(a), b.udp.own)
    before = a.peer(b).keypairs
    slots = [(one.local_index, one.created) for one in before.all()]
    assert len(slots) == 3
    a, revived = reborn(a, b)
    assert revived.sessions == 3
    after = a.peer(b).keypairs
    assert [(one.local_index, one.created) for one in after.all()] == slots
    assert [after.previous, after.current, after.next].count(None) == 0


def test_its_age_goes_on(ends: Ends, reborn: Reborn) -> None:
    a, b = ends
    joined(a, b)
    a.time.now += 100
    a, _ = reborn(a, b)
    # The initiator asks for a successor at 120 s, and at 180 s the keys are gone.
    assert [message[0] for message in a.send(b)] == [4]
    a.time.now += 20
    assert [message[0] for message in a.send(b)] == [4, 1]
    a.elapse(60)
    assert any(isinstance(event, KeypairExpired) for event in a.events)
    assert not found(a.record).sessions


@pytest.mark.parametrize("seconds", [180, 100_000, -1])
def test_one_that_is_over_age_is_left_out(ends: Ends, reborn: Reborn, seconds: float) -> None:
    a, b = ends
    joined(a, b)
    a.time.now += seconds
    a, revived = reborn(a, b)
    assert revived == Revived(left_out={LeftOut.OVER_AGE: 1})
    assert not found(a.record).sessions
    assert a.send(b)[0][0] == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"forgets": True}, LeftOut.PEER_GONE),
        ({"psk": b"p" * 32}, LeftOut.PRESHARED_KEY),
        ({"key": 3}, LeftOut.OWN_KEY),
    ],
)
def test_one_of_another_conf_is_left_out(
    ends: Ends, reborn: Reborn, change: dict[str, object], reason: LeftOut
) -> None:
    a, b = ends
    joined(a, b)
    a, revived = reborn(a, b, **change)
    assert revived == Revived(left_out={reason: 1})
    assert not found(a.record).sessions


def test_one_of_a_preshared_key_goes_on_with_the_same(ends: Ends, reborn: Reborn) -> None:
    a, b = ends
    psk = PresharedKey(b"p" * 32)
    a.peer(b).set_preshared_key(psk)
    b.peer(a).set_preshared_key(psk)
    joined(a, b)
    # The present session was made with it, whatever has been set since.
    a.peer(b).set_preshared_key(PresharedKey(b"q" * 32))
    messages = b.send(a)
    b.udp.sent.clear()
    a.take(messages, ELSEWHERE)
    assert kill_and_see(a, b, reborn, b"p" * 32) == Revived(sessions=1, peers=1)


def kill_and_see(a: End, b: End, reborn: Reborn, psk: bytes) -> Revived:
    return reborn(a, b, psk=psk)[1]


def test_a_changed_private_key_ends_them_at_once(ends: Ends, reborn: Reborn) -> None:
    a, b = ends
    joined(a, b)
    a.engine.interface.set_private_key(key_of(9), a.time.now)
    a.engine.settle()
    assert not found(a.record).sessions
    a, revived = reborn(a, b, key=9)
    assert revived == Revived()


def test_what_is_dropped_is_overwritten(ends: Ends) -> None:
    a, b = ends
    joined(a, b)
    (session,) = found(a.record).sessions
    secrets = (session.keys.send, session.keys.receive)
    assert a.record is not None
    assert all(secret in written(a.record.fileno()) for secret in secrets)
    a.elapse(180)
    assert not any(secret in written(a.record.fileno()) for secret in secrets)
    assert len(found(a.record).peers) == 1
    a.engine.interface.remove_peer(b.public_key)
    a.engine.settle()
    assert not any(written(a.record.fileno()))


def test_a_link_that_goes_down_ends_them(ends: Ends) -> None:
    a, b = ends
    joined(a, b)
    a.engine.set_link_up(False)
    assert not found(a.record).sessions


def test_a_place_is_used_again_and_its_old_owner_writes_nothing(ends: Ends) -> None:
    a, b = ends
    joined(a, b)
    old = a.peer(b).keypairs.current
    assert old is not None
    a.elapse(180)
    a.send(b)
    exchange(a, b)
    before = found(a.record)
    assert len(before.sessions) == 1
    # Whatever is still done with it.
    old.transport.seal_keepalive()
    old.transport.hand_over()
    assert found(a.record) == before


def test_rekeys_leave_three_places_at_most(ends: Ends, reborn: Reborn) -> None:
    a, b = ends
    joined(a, b)
    for _ in range(6):
        a.elapse(125)
        a.send(b)
        exchange(a, b)
    assert a.handshakes == 7
    places = [one.place.number for one in found(a.record).sessions]
    assert len(places) <= 3
    assert max(places) <= 3
    a, revived = reborn(a, b)
    assert revived.sessions == len(places)
    assert a.send(b)[0][0] == 4


def test_a_peer_that_was_rebooted_meanwhile_begins_again(ends: Ends, reborn: Reborn) -> None:
    a, b = ends
    joined(a, b)
    a, _ = reborn(a, b)
    a.time.now += 1
    b = End(2, a.time)
    b.add(a)
    b.send(a)
    exchange(a, b)
    assert a.handshakes == b.handshakes == 1
    # So does one that says nothing: no answer for 15 s, and a handshake begins.
    c = End(2, a.time)
    c.add(a)
    a.send(b)
    a.udp.sent.clear()
    assert 1 in [message[0] for message in a.elapse(16)]


def test_a_persistent_keepalive_is_a_message_and_no_handshake(ends: Ends, reborn: Reborn) -> None:
    a, b = ends
    joined(a, b)
    a, _ = reborn(a, b)
    a.peer(b).set_persistent_keepalive(25, a.time.now)
    assert {message[0] for message in a.elapse(60)} == {4}


def test_a_record_without_room_leaves_sessions_as_they_are(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = ends
    assert a.record is not None
    monkeypatch.setattr(a.record._sessions, "_limit", 0)
    monkeypatch.setattr(a.record._peers, "_limit", 0)
    joined(a, b)
    a.engine.interface.remove_peer(b.public_key)
    a.engine.settle()
    assert not written(a.record.fileno())


def test_without_memory_they_go_on_and_are_not_kept(
    ends: Ends, reborn: Reborn, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = ends

    def refuse(fd: int, data: bytes, at: int) -> int:
        raise OSError(errno.ENOMEM, "no memory")

    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", refuse)
        joined(a, b)
    a.elapse(180)
    a.send(b)
    exchange(a, b)
    # There is some again.
    assert a.handshakes == 2
    assert reborn(a, b)[1].sessions == 1


def test_what_a_conf_has_no_longer_is_overwritten(ends: Ends, reborn: Reborn) -> None:
    a, b = ends
    joined(a, b)
    a, _ = reborn(a, b, forgets=True)
    assert a.record is not None
    assert not any(written(a.record.fileno()))


def test_two_processes_do_not_share_one(ends: Ends) -> None:
    a, b = ends
    joined(a, b)
    assert a.record is not None
    with pytest.raises(SessionRecordError, match="another process uses"):
        SessionRecord.adopt(a.record.fileno())
    # That did not release it either.
    with pytest.raises(SessionRecordError, match="another process uses"):
        SessionRecord.adopt(a.record.fileno())
    assert a.send(b)[0][0] == 4
