"""What a session notes for the process after it: before it is used, and before it is handed out."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from struct import unpack

import pytest

from tests.support.datapaths import (
    A_KEY,
    B_KEY,
    UDP,
    datagrams,
    ip_packet,
    open_,
    plain_frame,
    seal,
    udp,
)
from tunnel import datapath
from tunnel.datapath import Session, SessionExhausted
from tunnel.datapath.interface import REJECT_AFTER_MESSAGES, SEND_BLOCK

MASK = 0x1234_5678_9ABC_DEF0
AT = 4096 + 48
FRAME = plain_frame(ip_packet(4, UDP, udp(bytes(40))))

MakeNoting = Callable[..., Session]


@pytest.fixture
def memory() -> Iterator[int]:
    fd = os.memfd_create("ledger", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 8192)
    yield fd
    os.close(fd)


@pytest.fixture(params=datapath.available())
def make(request: pytest.FixtureRequest, memory: int) -> MakeNoting:
    path = datapath.load(request.param)

    def make_one(block: int = SEND_BLOCK, sent: int = 0, received: int = 0) -> Session:
        ledger = path.ledger(memory, block)
        return path.session(
            A_KEY, B_KEY, 1, 2, initial_counter=sent, received=received, ledger=(ledger, AT, MASK)
        )

    return make_one


def other_end() -> Session:
    return datapath.load("python").session(B_KEY, A_KEY, 2, 1)


def words(memory: int) -> list[int]:
    """Both counts, checked."""
    found = []
    for at in (AT, AT + 16):
        count, masked = unpack("<QQ", os.pread(memory, 16, at))
        assert masked in (count ^ MASK, 0)
        found.append(count)
    return found


def counters(session: Session, frames: int) -> list[int]:
    sealed, out = seal(session, *[FRAME] * frames)
    return [int.from_bytes(one[8:16], "little") for one in datagrams(sealed, out)]


def test_a_block_is_reserved_with_its_first_counter(make: MakeNoting, memory: int) -> None:
    session = make()
    assert words(memory) == [0, 0]
    assert counters(session, 1) == [0]
    assert words(memory) == [SEND_BLOCK, 0]


def test_nothing_is_sealed_beyond_what_is_reserved(make: MakeNoting, memory: int) -> None:
    session = make(block=7)
    for _ in range(40):
        for counter in counters(session, 3):
            assert counter < words(memory)[0]
        assert session.send_counter <= words(memory)[0] <= session.send_counter + 7


def test_a_frame_of_more_messages_than_a_block_is_sealed(make: MakeNoting, memory: int) -> None:
    assert len(counters(make(block=1), 50)) == 50
    assert words(memory)[0] == 50


def test_what_follows_a_crash_begins_behind_the_block(make: MakeNoting, memory: int) -> None:
    counters(make(block=100), 3)
    reserved = words(memory)[0]
    assert counters(make(block=100, sent=reserved), 2) == [100, 101]
    assert words(memory)[0] == 200


def test_a_keepalive_takes_a_counter_of_a_block_too(make: MakeNoting, memory: int) -> None:
    session = make(block=2)
    for expected in range(6):
        assert int.from_bytes(session.seal_keepalive()[8:16], "little") == expected
        assert words(memory)[0] > expected


def test_handed_over_it_seals_nothing_and_frees_the_rest(make: MakeNoting, memory: int) -> None:
    session = make()
    counters(session, 5)
    session.hand_over()
    assert words(memory)[0] == 5
    with pytest.raises(SessionExhausted):
        session.seal_keepalive()
    with pytest.raises(SessionExhausted):
        counters(session, 1)
    assert words(memory)[0] == session.send_counter == 5


def test_handed_over_it_still_notes_what_it_accepts(make: MakeNoting, memory: int) -> None:
    session = make()
    session.hand_over()
    sealed, out = seal(other_end(), FRAME)
    assert open_(session, *datagrams(sealed, out))[0].packets == 1
    assert words(memory)[1] == 1


def test_without_its_place_it_goes_on_and_writes_nothing(make: MakeNoting, memory: int) -> None:
    session = make(block=4)
    counters(session, 1)
    session.forget_ledger()
    os.pwrite(memory, bytes(32), AT)
    assert counters(session, 10) == list(range(1, 11))
    sealed, out = seal(other_end(), FRAME)
    assert open_(session, *datagrams(sealed, out))[0].packets == 1
    assert words(memory) == [0, 0]


def test_what_was_accepted_is_noted_when_it_is_handed_out(make: MakeNoting, memory: int) -> None:
    session, other = make(), other_end()
    sealed, out = seal(other, *[FRAME] * 9)
    messages = datagrams(sealed, out)
    assert open_(session, *messages[4:6])[0].packets == 2
    assert words(memory)[1] == 6
    # An older one moves nothing, a forged one neither.
    assert open_(session, messages[0])[0].packets == 1
    assert open_(session, messages[8][:-1] + b"?")[0].packets == 0
    assert words(memory)[1] == 6


def test_after_a_crash_nothing_accepted_is_accepted_again(make: MakeNoting, memory: int) -> None:
    other = other_end()
    sealed, out = seal(other, *[FRAME] * 200)
    messages = datagrams(sealed, out)
    assert open_(make(), *messages[:130])[0].packets == 130
    revived = make(received=words(memory)[1])
    assert open_(revived, *messages[:130])[0].drops == {"replay": 130}
    # Those that come late are new ones all the same.
    assert open_(revived, messages[150])[0].packets == 1
    assert open_(revived, *messages[130:150])[0].packets == 20
    assert open_(revived, *messages[130:151])[0].drops == {"replay": 21}


@pytest.mark.parametrize("received", [1, 63, 64, 65, 8128, 8192, 1 << 40])
def test_a_window_begins_anywhere(make: MakeNoting, received: int) -> None:
    path = datapath.load("python")
    other = path.session(B_KEY, A_KEY, 2, 1, initial_counter=max(0, received - 3))
    old = min(received, 3)
    sealed, out = seal(other, *[FRAME] * (old + 6))
    messages = datagrams(sealed, out)
    session = make(received=received)
    for message in (messages[-1], *messages[old:-1]):
        assert open_(session, message)[0].packets == 1
    for message in messages:
        assert open_(session, message)[0].packets == 0


def test_what_cannot_be_noted_is_not_sealed(make: MakeNoting, memory: int) -> None:
    session = make(block=4)
    assert counters(session, 2) == [0, 1]
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    assert counters(session, 2) == [2, 3]
    with pytest.raises(SessionExhausted):
        counters(session, 1)
    with pytest.raises(SessionExhausted):
        session.seal_keepalive()


def test_no_block_passes_the_message_limit(make: MakeNoting, memory: int) -> None:
    session = make(sent=REJECT_AFTER_MESSAGES - 2)
    assert len(counters(session, 2)) == 2
    assert words(memory)[0] == REJECT_AFTER_MESSAGES
    with pytest.raises(SessionExhausted):
        session.seal_keepalive()


@pytest.mark.parametrize("name", datapath.available())
def test_a_ledger_refuses_what_is_none(name: str) -> None:
    path = datapath.load(name)
    with pytest.raises(FileNotFoundError):
        path.ledger(-1)
    with pytest.raises(ValueError, match="at least one counter"):
        path.ledger(0, 0)
