"""Floods of handshake messages: what they may cost those who do not take part."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterable, Sequence
from ipaddress import ip_network
from typing import TYPE_CHECKING, TypeAlias, cast

import pytest
import trio

from crypto.cookies import mac1
from crypto.identity import Identity, OpenedInitiations
from tests.support.engines import Side, Sides, make_side, packet, run, until
from tunnel import datapath
from tunnel.config import PublicKey
from tunnel.engine.common import HANDSHAKE_SLICE, HANDSHAKES_TOGETHER, EngineDrop
from tunnel.engine.handshake_queue import STEPS
from tunnel.io.endpoint import Endpoint
from tunnel.io.udp_socket import Origin, packed
from tunnel.protocol import HandshakeCompleted, take_step
from tunnel.protocol.constants import (
    COOKIE_REPLIES_BURST,
    COOKIE_REPLIES_PER_SECOND,
    HANDSHAKE_QUEUE,
)

if TYPE_CHECKING:
    from tunnel.datapath import _native

STRANGER = Endpoint(bytes([203, 0, 113, 5]), 9)


Initiation: TypeAlias = tuple[bytes, Endpoint, bool, bytes | None]
Steps: TypeAlias = Generator[int, float, None]


def initiation(side: Side, *, right: bool) -> bytes:
    """148 bytes that only whoever knows the key of `side` can make, or that anyone can."""
    body = bytes([1, 0, 0, 0]) + os.urandom(112)
    key = side.engine.interface.public_key
    assert key is not None
    return body + (mac1(key, body) if right else bytes(16)) + bytes(16)


def proven(side: Side, sources: Iterable[Endpoint]) -> list[tuple[bytes, Endpoint]]:
    """An initiation from each of `sources`, by the cookie that `side` gives it under load."""
    interface = side.engine.interface
    now = trio.current_time()
    interface.set_under_load(now)
    interface.handle_message_untrusted(initiation(side, right=True), STRANGER, now)
    made = []
    for source in sources:
        cookie = interface.cookie_of(packed(source.sockaddr), now)
        assert cookie is not None
        body = initiation(side, right=True)[:-16]
        mac2 = hashlib.blake2s(body, digest_size=16, key=cookie).digest()
        made.append((body + mac2, source))
    return made


def forged(number: int) -> Endpoint:
    return Endpoint(bytes([198, 18, *divmod(number, 256)]), 9)


def completed(side: Side) -> bool:
    return any(isinstance(event, HandshakeCompleted) for event in side.events)


@pytest.mark.parametrize("batch", [1, 64])
def test_messages_with_a_wrong_mac1_do_not_wait_and_put_no_one_under_load(
    sides: Sides, batch: int
) -> None:
    flood = initiation(sides[0], right=False) * batch

    async def scenario(a: Side, b: Side) -> None:
        for _ in range(3 * HANDSHAKE_QUEUE // batch):
            a.udp.feed(flood, 148, STRANGER)
        b.tun.feed(packet(2, 1))
        for _ in range(3 * HANDSHAKE_QUEUE // batch):
            a.udp.feed(flood, 148, STRANGER)
            assert a.engine.handshakes_waiting <= 1
        await until(lambda: completed(b) and a.tun.written)
        await until(lambda: not a.udp.incoming)
        dropped = 6 * HANDSHAKE_QUEUE // batch * batch
        assert a.engine.drops() == {"bad_mac1": dropped}

    run(sides, scenario)


def test_responses_and_cookies_that_answer_nothing_do_not_wait(sides: Sides) -> None:
    a, _ = sides
    body = bytes([2, 0, 0, 0]) + bytes(56)
    key = a.engine.interface.public_key
    assert key is not None
    response = body + mac1(key, body) + bytes(16)

    async def scenario(a: Side, b: Side) -> None:
        for datagram in (response, bytes([3, 0, 0, 0]) + bytes(60)):
            a.udp.feed(datagram * 600, len(datagram), STRANGER)
        await until(lambda: a.engine.drops() == {"unknown_handshake": 1200})
        b.tun.feed(packet(2, 1))
        await until(lambda: a.tun.written)
        assert a.udp.sent, "answered"
        assert not any(data[0] == 3 for data, *_ in a.udp.sent), "not put under load"

    run(sides, scenario)


def test_in_a_batch_of_forgeries_the_honest_message_is_found(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        b.udp.other = None
        b.tun.feed(packet(2, 1))
        await until(lambda: b.udp.sent)
        b.udp.other = a.udp
        honest, wrong = b.udp.sent[0][0], initiation(a, right=False)
        a.udp.feed(wrong * 20 + honest + wrong * 43, 148, b.udp.own)
        await until(lambda: completed(b))
        assert a.engine.drops() == {"bad_mac1": 63}

    run(sides, scenario)


def test_in_a_batch_of_forged_cookies_the_honest_one_is_found(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        a.engine.interface.set_under_load(trio.current_time())
        a.udp.other = None
        b.tun.feed(packet(2, 1))
        await until(lambda: a.udp.sent)
        cookie, forged_cookie = a.udp.sent[0][0], bytes([3, 0, 0, 0]) + bytes(60)
        a.udp.other = b.udp
        b.udp.feed(forged_cookie * 20 + cookie + forged_cookie * 20, 64, a.udp.own)
        # Still under load, a answers the next initiation, which has a mac2 by that cookie.
        await until(lambda: b.engine.drops() == {"unknown_handshake": 40})
        await trio.sleep(4.9)
        a.engine.interface.set_under_load(trio.current_time())
        await until(lambda: completed(b))

    run(sides, scenario)


def test_a_full_queue_drops_at_random_and_stays_full(sides: Sides) -> None:
    """Of those who come at once with a cookie, the late ones have their chance, too."""
    total = 2 * HANDSHAKE_QUEUE

    async def scenario(a: Side, b: Side) -> None:
        # The tasks get no turn meanwhile: what waits is what was chosen.
        handshakes = a.engine._handshakes
        for data, source in proven(a, map(forged, range(total))):
            origin = Origin(source.sockaddr, source.source)
            handshakes.screen_untrusted(bytearray(data), 0, 148, 148, origin, trio.current_time())
        waiting = [message.origin.endpoint for message in handshakes._queue]
        assert len(waiting) == HANDSHAKE_QUEUE
        drops = {EngineDrop.HANDSHAKE_QUEUE_FULL: total - HANDSHAKE_QUEUE, "cookie_required": 1}
        assert a.engine.drops() == drops
        numbers = [int.from_bytes(endpoint.address[2:]) for endpoint in waiting]
        late = sum(number >= HANDSHAKE_QUEUE for number in numbers)
        # Each of the later ones is let in, and displaces one of all: 1 - 1/e of the queue is new.
        assert 0.58 * HANDSHAKE_QUEUE < late < 0.68 * HANDSHAKE_QUEUE
        assert len({endpoint.address for endpoint in waiting}) == HANDSHAKE_QUEUE

    run(sides, scenario)


def test_under_load_a_source_is_sent_one_cookie_and_no_more_than_the_budget_in_all(
    sides: Sides,
) -> None:
    a, _ = sides
    flood = [initiation(a, right=True) for _ in range(64)]

    async def scenario(a: Side, b: Side) -> None:
        a.engine.interface.set_under_load(trio.current_time())
        for number in range(2000):
            a.udp.feed(flood[number % 64], 148, forged(number % 40))
        await until(lambda: not a.udp.incoming)
        assert a.engine.drops() == {"cookie_required": 40, "cookie_unanswered": 1960}
        assert len({endpoint for *_, endpoint, _ in a.udp.sent}) == 40
        # A batch of one source is passed over as a whole.
        a.udp.feed(b"".join(flood), 148, forged(0))
        for number in range(2000):
            a.udp.feed(flood[number % 64], 148, forged(100 + number))
        await until(lambda: not a.udp.incoming)
        sent = a.engine.drops()["cookie_required"]
        assert 40 < sent <= COOKIE_REPLIES_BURST + COOKIE_REPLIES_PER_SECOND
        assert a.engine.drops()["cookie_unanswered"] == 1960 + 64 + 2000 - (sent - 40)
        assert a.engine.handshakes_waiting == 0

    run(sides, scenario)


@pytest.mark.parametrize("mac2", [bytes(16), b"forged by chance"])
def test_in_a_flood_from_many_sources_a_stranger_has_a_session_by_its_second_initiation(
    mac2: bytes,
) -> None:
    """Its first is answered by a cookie, whatever the flood's sources have got."""
    a, b = make_side(1), make_side(2)
    a.engine.interface.add_peer(key_of(b))
    b.engine.interface.add_peer(key_of(a)).set_endpoint(a.udp.own)
    b.udp.other = a.udp
    peer = b.engine.interface.peers[key_of(a)]
    b.engine.interface.allowed_ips.insert(ip_network("10.0.0.1/32"), peer)
    flood = [initiation(a, right=True)[:-16] + mac2 for _ in range(64)]

    async def scenario(a: Side, b: Side) -> None:
        a.udp.other = b.udp
        started = trio.current_time()
        for turn in range(140):
            for number in range(600):
                a.udp.feed(flood[number % 64], 148, forged(number))
            await until(lambda: not a.udp.incoming)
            if turn == 20:
                assert a.engine.interface.is_under_load(trio.current_time())
                b.tun.feed(packet(2, 1))
            await trio.sleep(0.05)
        assert completed(b)
        assert len([1 for data, *_ in b.udp.sent if data[0] == 1]) == 2
        assert trio.current_time() - started < 8.0

    run((a, b), scenario)


def test_a_valid_mac2_is_heard_at_once_though_its_source_was_just_sent_a_cookie(
    sides: Sides,
) -> None:
    async def scenario(a: Side, b: Side) -> None:
        (message,) = proven(a, [STRANGER])
        a.udp.feed(*swapped(message))
        await until(lambda: a.engine.drops().get("handshake_invalid"))
        assert a.engine.drops() == {"cookie_required": 1, "handshake_invalid": 1}

    run(sides, scenario)


def test_a_flood_with_a_cookie_is_held_to_the_rate_of_its_address(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        for message in proven(a, [STRANGER] * 1000):
            a.udp.feed(*swapped(message))
        await until(lambda: not (a.udp.incoming or a.engine.handshakes_waiting))
        drops = a.engine.drops()
        assert drops["rate_limited"] + drops["handshake_invalid"] == 1000
        assert drops["handshake_invalid"] < 50

    run(sides, scenario)


def swapped(message: tuple[bytes, Endpoint]) -> tuple[bytes, int, Endpoint]:
    """As `FakeUdp.feed` takes it."""
    data, source = message
    return data, len(data), source


def key_of(side: Side) -> PublicKey:
    key = side.engine.interface.public_key
    assert key is not None
    return key


def test_handshake_messages_take_a_slice_of_time_and_no_more() -> None:
    """Each message takes a fifth of a slice here, and tasks have a turn after every five.

    How long they take is known after the first.
    """
    spent = 0.0

    def clock() -> float:
        return trio.current_time() + spent

    a, b = make_side(1, clock), make_side(2)
    turns: list[int] = []

    async def scenario(a: Side, b: Side) -> None:
        nonlocal spent
        handle = a.engine.interface.initiation_steps

        def slow_steps(steps: Steps, left: int) -> Steps:
            nonlocal spent
            now = yield 0
            while left:
                spent += left * HANDSHAKE_SLICE / 4.5 / STEPS
                left = take_step(steps, now)
                now = yield left

        def slow(messages: Sequence[Initiation]) -> Steps:
            turns[-1] += len(messages)
            steps = slow_steps(handle(messages), len(messages))
            next(steps)
            return steps

        a.engine.interface.initiation_steps = slow  # type: ignore[method-assign,assignment]
        a.udp.feed(b"".join(initiation(a, right=True) for _ in range(31)), 148, STRANGER)
        while sum(turns) < 31:
            turns.append(0)
            await trio.lowlevel.checkpoint()

    run((a, b), scenario)
    # Tasks run in any order: between two turns of this one there may be two of the other.
    taken = [turn for turn in turns if turn]
    assert set(taken) <= {1, 5, 6, 10}
    assert taken[0] in (1, 6)
    assert 3 <= len(taken) <= 7


def test_while_datagrams_wait_a_turn_takes_one_handshake_message(sides: Sides) -> None:
    turns: list[int] = []

    async def scenario(a: Side, b: Side) -> None:
        messages = proven(a, map(forged, range(2000)))
        handle = a.engine.interface.initiation_steps

        def counted(messages: Sequence[Initiation]) -> Steps:
            turns[-1] += len(messages)
            return handle(messages)

        a.engine.interface.initiation_steps = counted  # type: ignore[method-assign,assignment]
        for message in messages:
            a.udp.feed(*swapped(message))
        while a.udp.incoming:
            turns.append(0)
            await trio.lowlevel.checkpoint()

    run(sides, scenario)
    # In the last one nothing waits any more. Tasks run in any order: between two turns of this one
    # there may be two of the other.
    assert 2 <= sum(turns[:-1]) < 200
    assert max(turns[:-1]) <= 2


def test_what_is_under_way_ends_while_datagrams_wait_and_no_message_does(sides: Sides) -> None:
    async def scenario(a: Side, b: Side) -> None:
        handle = a.engine.interface.initiation_steps

        def with_others_behind(messages: Sequence[Initiation]) -> Steps:
            if len(messages) > 1:
                a.engine._handshakes.is_behind = True
            return handle(messages)

        a.engine.interface.initiation_steps = with_others_behind  # type: ignore[method-assign,assignment]
        a.udp.feed(b"".join(initiation(a, right=True) for _ in range(12)), 148, STRANGER)
        await until(lambda: a.engine.drops().get("handshake_invalid") == 12)
        assert a.engine._handshakes.is_behind

    run(sides, scenario)


def test_under_load_handshake_messages_take_a_quarter_of_the_time() -> None:
    """Of a flood that never ends, however long its messages take."""
    spent = 0.0

    def clock() -> float:
        return trio.current_time() + spent

    a, b = make_side(1, clock), make_side(2)

    async def scenario(a: Side, b: Side) -> None:
        handled = 0

        handle = a.engine.interface.initiation_steps

        def slow(messages: Sequence[Initiation]) -> Steps:
            nonlocal spent, handled
            spent += len(messages) * HANDSHAKE_SLICE / 2.5
            handled += len(messages)
            return handle([])

        messages = proven(a, map(forged, range(HANDSHAKE_QUEUE)))
        a.engine.interface.initiation_steps = slow  # type: ignore[method-assign,assignment]
        for message in messages:
            a.udp.feed(*swapped(message))
        await until(lambda: not a.udp.incoming)
        began, before, spent_before = trio.current_time(), handled, spent
        await trio.sleep(0.5)
        assert handled > before
        passed = trio.current_time() - began + spent - spent_before
        assert spent - spent_before <= passed / 3

    run((a, b), scenario)


def test_of_initiations_that_waited_the_newest_is_answered(sides: Sides) -> None:
    """A peer repeats its initiation while we are stopped, and takes an answer to the last alone."""

    async def scenario(a: Side, b: Side) -> None:
        # None of b's arrives in time.
        b.udp.other = None
        b.tun.feed(packet(2, 1))
        await until(lambda: len([1 for data, *_ in b.udp.sent if data[0] == 1]) == 1)
        await trio.sleep(20.0)
        waiting = [data for data, *_ in b.udp.sent if data[0] == 1]
        assert len(waiting) >= 4
        b.udp.other = a.udp
        for data in waiting:
            a.udp.feed(data, len(data), b.udp.own)
        await until(lambda: completed(b) and a.tun.written)
        assert a.engine.drops() == {"old_timestamp": len(waiting) - 1}
        assert len([1 for data, *_ in b.udp.sent if data[0] == 1]) == len(waiting)

    run(sides, scenario)


def test_what_waits_together_is_opened_together_by_the_datapath_s_own_handshakes() -> None:
    opened: list[int] = []

    class Counting(Identity):
        def consume_initiations(self, messages: list[bytes]) -> OpenedInitiations:
            opened.append(len(messages))
            return super().consume_initiations(messages)

    kind = cast("type[_native.Identity]", Counting)
    a = make_side(1, path=datapath.load("python")._replace(identity=kind))

    async def scenario(a: Side) -> None:
        a.udp.feed(b"".join(initiation(a, right=True) for _ in range(40)), 148, STRANGER)
        await until(lambda: a.engine.drops().get("handshake_invalid") == 40)

    run([a], scenario)
    # How long they take is known after the first; no time passes here. It took two steps of three.
    assert opened == [1, 11, HANDSHAKES_TOGETHER, 40 - 1 - 11 - HANDSHAKES_TOGETHER]


@pytest.mark.parametrize("sources", [1, 10_000])
def test_a_flood_is_answered_in_fewer_bytes_than_it_has_and_fills_no_memory(
    sides: Sides, sources: int
) -> None:
    """Initiations with a right mac1, which are all that is answered, from one address and many."""
    a, _ = sides
    flood = [initiation(a, right=True) for _ in range(64)]

    async def scenario(a: Side, b: Side) -> None:
        interface = a.engine.interface
        b.tun.feed(packet(2, 1))
        await until(lambda: a.tun.written)
        before = len(a.udp.sent)
        received = 0
        for turn in range(20):
            interface.set_under_load(trio.current_time())
            for number in range(1000):
                a.udp.feed(flood[number % 64], 148, forged((1000 * turn + number) % sources))
                received += 148
            await until(lambda: not a.udp.incoming)
            b.tun.feed(packet(2, 1))
        answers = [data for data, *_ in a.udp.sent[before:] if data[0] == 3]
        assert answers
        assert {len(data) for data in answers} == {64}
        assert sum(map(len, answers)) < received
        assert len(a.engine._handshakes) == 0
        remembered = len(interface._cookie_replies)
        assert remembered <= COOKIE_REPLIES_BURST + 6 * COOKIE_REPLIES_PER_SECOND
        assert len(interface._limiter) == 0
        await until(lambda: len(a.tun.written) == 21)
        assert len([1 for data, *_ in b.udp.sent if data[0] == 1]) == 1, "one session, throughout"

    run(sides, scenario)


def test_replays_from_another_address_change_nothing_and_are_not_answered(sides: Sides) -> None:
    """All that the peer has ever sent, again and again: the handshake, data and a keepalive."""

    async def scenario(a: Side, b: Side) -> None:
        for _ in range(10):
            b.tun.feed(packet(2, 1))
            await until(lambda: not b.tun.incoming)
        await until(lambda: len(a.tun.written) == 10)
        await trio.sleep(1.0)
        recorded = [data for data, *_ in b.udp.sent]
        assert {data[0] for data in recorded} == {1, 4}
        (peer,) = a.engine.interface.peers.values()
        state = peer.endpoint, peer.keypairs.all(), peer.rx_bytes
        before = len(a.udp.sent)
        for _ in range(100):
            for data in recorded:
                a.udp.feed(data, len(data), STRANGER)
        await until(lambda: not a.udp.incoming and not a.engine.handshakes_waiting)
        assert (peer.endpoint, peer.keypairs.all(), peer.rx_bytes) == state
        assert a.udp.sent[before:] == []
        assert len(a.tun.written) == 10
        drops = a.engine.drops()
        assert sum(drops.values()) == 100 * len(recorded)
        assert drops["replay"] == 100 * sum(data[0] == 4 for data in recorded)

    run(sides, scenario)


def test_giant_datagrams_are_counted_and_keep_out_no_one(sides: Sides) -> None:
    """Of 65,507 bytes: messages of no kind that long, and data of a session that is forged."""

    async def scenario(a: Side, b: Side) -> None:
        b.tun.feed(packet(2, 1))
        await until(lambda: a.tun.written)
        index = next(data[4:8] for data, *_ in b.udp.sent if data[0] == 4)
        rest = index + (1 << 40).to_bytes(8, "little") + bytes(65_491)
        giants = [bytes([kind, 0, 0, 0]) + rest for kind in (1, 2, 3, 4, 7)]
        for _ in range(20):
            for data in giants:
                a.udp.feed(data, len(data), STRANGER)
        b.tun.feed(packet(2, 1))
        await until(lambda: len(a.tun.written) == 2 and not a.udp.incoming)
        drops = a.engine.drops()
        assert drops == {"malformed": 80, "authentication": 20}
        assert not any(endpoint == STRANGER for *_, endpoint, _ in a.udp.sent)

    run(sides, scenario)
