"""The pump of the native datapath by itself: sockets on loopback, a pair of sockets as its TUN."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from hashlib import blake2s

import pytest

from tests.support.datapaths import A_KEY, B_KEY
from tests.support.pumps import LOOPBACK, PEER, A, B, End, frame, udp_socket
from tunnel import datapath
from tunnel.datapath.interface import REJECT_AFTER_MESSAGES
from tunnel.datapath.pump import Datagrams, Frames
from tunnel.io.cmsg import segment_message
from tunnel.linux import kernel

native = pytest.mark.skipif("native" not in datapath.available(), reason="no compiled datapath")
pytestmark = native


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    a, b = End(1, 2, (A_KEY, B_KEY)), End(2, 1, (B_KEY, A_KEY))
    try:
        yield a, b
    finally:
        a.close()
        b.close()


@pytest.fixture
def joined(ends: tuple[End, End]) -> tuple[End, End]:
    """Two that were taught everything."""
    a, b = ends
    a.teach(A, B, b.port)
    b.teach(B, A, a.port)
    return ends


def test_what_it_was_taught_it_carries_both_ways(joined: tuple[End, End]) -> None:
    for here, there, own, other in ((*joined, A, B), (*joined[::-1], B, A)):
        frames = [frame(own, other, bytes([n]) * (40 + n)) for n in range(5)]
        for one in frames:
            here.kernel.send(one)
        sent = here.send()
        assert (sent.frames, sent.left, sent.unsent, sent.error) == (5, [], [], 0)
        assert sent.empty
        assert sum(one.packets for one in sent.sealed) == 5
        assert {one.peer for one in sent.sealed} == {PEER}
        received = there.receive()
        assert received.stop is None
        assert received.refused is None
        assert sum(one.packets for one in received.opened) == 5
        assert {one.local_index for one in received.opened} == {there.session.local_index}
        assert sum(one.wire_bytes for one in received.opened) == sum(
            one.wire_bytes for one in sent.sealed
        )
        assert there.delivered() == frames


def test_it_counts_on_where_a_session_was_used_beside_it(joined: tuple[End, End]) -> None:
    a, b = joined
    a.session.seal_keepalive()
    a.kernel.send(frame(A, B))
    a.send()
    assert a.session.send_counter == 2
    b.receive()
    assert b.delivered() == [frame(A, B)]


@pytest.mark.parametrize("what", ["address", "peer", "all", "late"])
def test_a_frame_that_it_knows_no_way_for_is_given_back(joined: tuple[End, End], what: str) -> None:
    a, b = joined
    match what:
        case "address":
            a.pump.forget_addresses()
        case "peer":
            a.pump.set_indices(PEER, [1])
        case "all":
            a.pump.forget()
        case _:
            pass
    frames = [frame(A, B, bytes([n]) * 50) for n in range(2)]
    for one in frames:
        a.kernel.send(one)
    found = []
    for _ in frames:
        sent = a.send(now=10.0 if what == "late" else 1.0)
        assert sent.sealed == []
        found += a.left(sent)
    assert found == frames
    assert b.receive().batches == 0


def test_frames_before_one_that_is_given_back_are_sent_first(joined: tuple[End, End]) -> None:
    a, b = joined
    known, unknown = frame(A, B), frame(A, bytes([10, 0, 0, 9]))
    for one in (known, unknown, known):
        a.kernel.send(one)
    sent = a.send()
    assert (sent.frames, a.left(sent), sent.empty) == (2, [unknown], False)
    assert b.receive().batches == 1
    assert b.delivered() == [known]
    assert a.send().frames == 1


@pytest.mark.parametrize("junk", [bytes(10), bytes(10) + b"\x00" * 40, bytes(10) + b"\x45"])
def test_what_is_no_packet_is_given_back(joined: tuple[End, End], junk: bytes) -> None:
    a, _ = joined
    a.kernel.send(junk)
    assert a.left(a.send()) == [junk]


def test_what_the_socket_refuses_is_given_back_sealed(joined: tuple[End, End]) -> None:
    a, b = joined
    a.pump.set_descriptors(a.tun.fileno(), -1, -1)
    frames = [frame(A, B, bytes([n]) * 50) for n in range(3)]
    for one in frames:
        a.kernel.send(one)
    sent = a.send()
    assert {batch.peer for batch in sent.unsent} == {PEER}
    for batch in sent.unsent:
        for at in range(0, len(batch.datagrams), batch.stride):
            a.udp.sendto(batch.datagrams[at : at + batch.stride], b.udp.getsockname())
    assert b.receive().stop is None
    assert b.delivered() == frames
    # It is asked for again: perhaps there is another way.
    a.kernel.send(frames[0])
    assert a.left(a.send()) == frames[:1]


def test_an_exhausted_session_seals_nothing(ends: tuple[End, End]) -> None:
    a, b = ends
    spent = datapath.load("native").session(
        A_KEY, B_KEY, 1, 2, initial_counter=REJECT_AFTER_MESSAGES
    )
    a.session = spent
    a.teach(A, B, b.port)
    a.kernel.send(frame(A, B))
    sent = a.send()
    assert (sent.sealed, a.left(sent)) == ([], [frame(A, B)])


def test_it_reads_no_more_than_it_may(joined: tuple[End, End]) -> None:
    a, _ = joined
    for _ in range(4):
        a.kernel.send(frame(A, B))
    assert a.send(most=1).frames == 1
    assert a.send(budget=1).frames == 1
    assert a.send(most=2).frames == 2
    assert a.send().frames == 0


def test_a_read_that_fails_ends_it_with_its_errno(joined: tuple[End, End]) -> None:
    a, _ = joined
    with open("/dev/null", "wb") as sink:
        a.pump.set_descriptors(sink.fileno(), a.udp.fileno(), -1)
        sent = a.send()
        assert sent.error == errno.EBADF
        assert sent.cost > 0  # or a row of such reads would never end


@pytest.mark.parametrize("what", ["moved", "late", "peer", "all"])
def test_datagrams_that_it_may_not_open_are_given_back_as_they_came(
    joined: tuple[End, End], what: str
) -> None:
    a, b = joined
    match what:
        case "moved":
            source = (LOOPBACK, 0)
            b.pump.teach_receiver(PEER, b.session, LOOPBACK, a.port ^ 1, 0, source, 10.0)
        case "peer":
            b.pump.set_indices(PEER, [2])
        case "all":
            b.pump.forget()
        case _:
            pass
    a.kernel.send(frame(A, B))
    a.send()
    stop = b.receive(now=10.0 if what == "late" else 1.0).stop
    assert isinstance(stop, Datagrams)
    assert stop.sockaddr == ("127.0.0.1", a.port)
    assert stop.flags == 0
    assert (socket.IPPROTO_IP, 8) in [(level, kind) for level, kind, _ in stop.messages]
    opened = b.session.open(b.buffer, 0, stop.length, stop.length, b.out)
    assert opened.packets == 1


@pytest.mark.parametrize("spoofed", [bytes([10, 0, 0, 9]), B])
def test_a_source_that_it_was_not_taught_is_given_back(
    joined: tuple[End, End], spoofed: bytes
) -> None:
    a, b = joined
    b.pump.teach_address(B, PEER + 1)
    good, bad = frame(A, B), frame(spoofed, B)
    for one in (good, bad, good):
        a.kernel.send(one)
    a.send()
    left = []
    for _ in range(3):
        stop = b.receive().stop
        if isinstance(stop, Frames):
            assert stop.local_index == b.session.local_index
            left += [bytes(b.out[start:end]) for start, end in stop.spans]
    # With GRO they come as one batch, and nothing may overtake the one that is left.
    delivered = b.delivered()
    assert sorted(delivered + left) == sorted([good, bad, good])
    assert delivered[0] == good
    assert bad in left


def test_a_replayed_datagram_is_counted(joined: tuple[End, End]) -> None:
    a, b = joined
    datagram = a.session.seal_keepalive()
    for _ in range(2):
        a.udp.sendto(datagram, b.udp.getsockname())
    received = b.receive()
    assert received.refused is not None
    assert received.refused.drops == {"replay": 1}
    (opened,) = received.opened
    assert (opened.packets, opened.keepalives) == (1, 1)


def test_forgeries_are_dropped_before_anyone_looks(joined: tuple[End, End]) -> None:
    a, b = joined
    own = b"k" * 32
    b.pump.set_mac1_key(own)
    initiation = b"\1\0\0\0" + os.urandom(112)
    right = initiation + blake2s(initiation, key=own, digest_size=16).digest() + bytes(16)
    wrong = [
        initiation + os.urandom(16) + bytes(16),
        initiation + os.urandom(32),
        b"\2\0\0\0" + os.urandom(72) + bytes(16),
    ]
    unknown = b"\4\0\0\0" + b"\x99" * 4 + bytes(24)
    for one in (*wrong, unknown, b"junk", b"\5\0\0\0" * 20, b"\4\0\0\0"):
        a.udp.sendto(one, b.udp.getsockname())
    received = b.receive()
    assert received.stop is None
    assert received.refused is not None
    assert received.refused.forged == (1, 2)
    assert (received.refused.unknown, received.refused.malformed) == (1, 3)
    a.udp.sendto(right, b.udp.getsockname())
    assert isinstance(b.receive().stop, Datagrams)
    # One of them is shown when it is asked for: an event says from where it came.
    a.udp.sendto(wrong[0], b.udp.getsockname())
    assert isinstance(b.receive(show_forged=True).stop, Datagrams)
    # And without a key nothing is known about them.
    b.pump.set_mac1_key(None)
    a.udp.sendto(wrong[0], b.udp.getsockname())
    assert isinstance(b.receive().stop, Datagrams)


def test_who_is_sent_no_cookie_is_dropped(joined: tuple[End, End]) -> None:
    a, b = joined
    own = b"k" * 32
    b.pump.set_mac1_key(own)
    initiation = b"\1\0\0\0" + os.urandom(112)
    initiation += blake2s(initiation, key=own, digest_size=16).digest()
    for unanswered, cookie, stays in (
        (False, bytes(16), True),
        ((LOOPBACK, a.port ^ 1), bytes(16), True),
        ((LOOPBACK, a.port), b"c" * 16, True),
        ((LOOPBACK, a.port), bytes(16), False),
        (True, bytes(16), False),
        (True, b"c" * 16, True),
    ):
        a.udp.sendto(initiation + cookie, b.udp.getsockname())
        received = b.receive(unanswered=unanswered)
        assert isinstance(received.stop, Datagrams) is stays
        assert (received.refused is not None and received.refused.unanswered == 1) is not stays


def test_initiations_for_us_are_gathered_and_what_lies_between_them_is_done(
    joined: tuple[End, End],
) -> None:
    a, b = joined
    own = b"k" * 32
    b.pump.set_mac1_key(own)
    right = []
    for cookie in (bytes(16), b"c" * 16, bytes(16)):
        body = b"\1\0\0\0" + os.urandom(112)
        right.append(body + blake2s(body, key=own, digest_size=16).digest() + cookie)
    carried = frame(A, B)
    a.kernel.send(carried)
    wrong = right[0][:116] + os.urandom(16) + bytes(16)
    for one in (right[0], wrong):
        a.udp.sendto(one, b.udp.getsockname())
    assert a.send().frames == 1
    for one in right[1:]:
        a.udp.sendto(one, b.udp.getsockname())
    received = b.receive(gather=True)
    assert received.stop is None
    assert received.batches == 5
    assert [message for message, _, _ in received.initiations] == right
    assert {sender for _, _, sender in received.initiations} == {a.udp.getsockname()}
    assert received.refused is not None
    assert received.refused.forged == (1, 0)
    assert b.delivered() == [carried]
    # What the kernel says of each is what it says without the pump.
    a.udp.sendto(right[0], b.udp.getsockname())
    stop = b.receive().stop
    assert isinstance(stop, Datagrams)
    assert received.initiations[0][1] == tuple(stop.messages)


@pytest.mark.parametrize("other", ["wrong", "response", "data"])
def test_a_batch_with_more_than_initiations_is_given_back(
    ends: tuple[End, End], other: str
) -> None:
    a, b = ends
    own = b"k" * 32
    b.pump.set_mac1_key(own)
    body = b"\1\0\0\0" + os.urandom(112)
    right = body + blake2s(body, key=own, digest_size=16).digest() + bytes(16)
    second = {
        "wrong": right[:116] + bytes(32),
        "response": b"\2\0\0\0" + bytes(144),
        "data": (b"\4\0\0\0" + b.session.local_index.to_bytes(4, "little") + bytes(140)),
    }[other]
    b.udp.setsockopt(kernel.SOL_UDP, kernel.UDP_GRO, 1)
    a.udp.sendmsg([right + second], [segment_message(148)], 0, b.udp.getsockname())
    stop = b.receive(gather=True).stop
    assert isinstance(stop, Datagrams)
    assert stop.length == 296


@pytest.mark.parametrize("reply", [b"\3\0\0\0" + bytes(60), b"\4\0\0\0\2\0\0\0" + bytes(24)])
def test_what_may_be_for_us_is_never_dropped_unseen(ends: tuple[End, End], reply: bytes) -> None:
    a, b = ends
    b.pump.set_mac1_key(b"k" * 32)
    a.udp.sendto(reply, b.udp.getsockname())
    assert isinstance(b.receive().stop, Datagrams)


def test_the_answer_to_a_packet_leaves_in_the_same_call(joined: tuple[End, End]) -> None:
    a, b = joined
    b.kernel.send(frame(B, A))  # as if the kernel had answered within the write
    a.kernel.send(frame(A, B))
    a.send()
    received = b.receive(lone=True, look=False)
    assert received.alone
    assert received.answer is not None
    assert received.answer.frames == 1
    assert a.receive().stop is None
    assert a.delivered() == [frame(B, A)]


@pytest.mark.parametrize(
    ("flags", "alone", "answered"),
    [
        ({"lone": False}, False, True),
        ({"lone": True, "look": True}, False, True),
        ({"lone": True, "look": False}, True, True),
        ({"lone": False, "may_answer": False}, False, False),
        ({"lone": True, "look": False, "may_answer": False}, True, False),
    ],
)
def test_what_a_lone_packet_means(
    joined: tuple[End, End], flags: dict[str, bool], alone: bool, answered: bool
) -> None:
    a, b = joined
    a.kernel.send(frame(A, B))
    a.send()
    received = b.receive(**flags)
    assert received.alone is alone
    assert (received.answer is not None) is answered
    assert b.delivered() == [frame(A, B)]


def test_an_error_in_place_of_a_datagram_is_given_back(joined: tuple[End, End]) -> None:
    a, b = joined
    port = b.port
    b.udp.close()
    a.udp.connect(("127.0.0.1", port))
    a.udp.send(b"x")  # on loopback, the answer is there within the call
    received = a.receive()
    assert received.stop == errno.ECONNREFUSED
    assert received.cost > 0
    assert a.receive().stop is None
    b.udp = udp_socket()


def test_a_hundred_thousand_addresses_take_no_more_room(joined: tuple[End, End]) -> None:
    a, b = joined
    for number in range(100_000):
        a.pump.teach_address(number.to_bytes(4, "big"), PEER)
    a.pump.teach_address(B, PEER)
    a.kernel.send(frame(A, B))
    a.send()
    b.receive()
    assert b.delivered() == [frame(A, B)]


def test_addresses_and_keys_of_a_wrong_length_are_refused(ends: tuple[End, End]) -> None:
    a, _ = ends
    with pytest.raises(ValueError, match="4 or 16"):
        a.pump.teach_address(b"abc", PEER)
    with pytest.raises(ValueError, match="4 or 16"):
        a.pump.teach_way(PEER, a.session, b"", 1, 0, None, True, 1.0)
    with pytest.raises(ValueError, match="32"):
        a.pump.set_mac1_key(b"short")
