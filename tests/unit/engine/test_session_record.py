"""The record of sessions as a file: whose it is, what is refused, and what damage does."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from struct import pack

import pytest

from tunnel.engine.session_record import (
    MAX_PEERS,
    MAX_SESSIONS,
    VERSION,
    PeerEntry,
    SessionKeys,
    SessionPlace,
    SessionRecord,
    SessionRecordError,
    SessionUse,
    clock_identity,
)
from tunnel.io.endpoint import Endpoint, Source

VERSION_AT = 24
KEYS = SessionKeys(7, 9, b"s" * 32, b"r" * 32)
USE = SessionUse(12.5, b"p" * 32, b"o" * 16, b"k" * 16)
V4 = Endpoint(bytes([192, 0, 2, 1]), 51820, source=Source(bytes([192, 0, 2, 2]), 0))
V6 = Endpoint(b"\xfe\x80" + bytes(13) + b"\1", 9, 3, Source(b"\xfe\x80" + bytes(13) + b"\2", 3))


@pytest.fixture
def fd() -> Iterator[int]:
    """The descriptor of a record with one peer and one session, whose process has ended."""
    record = SessionRecord.create()
    number = record.add_peer()
    assert number == 0
    record.set_peer(number, PeerEntry(b"p" * 32, b"g" * 16, b"t" * 12, 1, 2, 3, 4, V4))
    place = record.add_session(KEYS)
    assert place is not None
    record.begin_session(place, USE, 2)
    kept = os.dup(record.fileno())
    record.close()
    yield kept
    os.close(kept)


def adopted(fd: int) -> SessionRecord:
    return SessionRecord.adopt(os.dup(fd))


def refused(fd: int, why: str) -> None:
    """For this reason, and what was refused may be closed or tried again."""
    for _ in range(2):
        with pytest.raises(SessionRecordError, match=why):
            SessionRecord.adopt(fd)


def test_what_was_written_is_read(fd: int) -> None:
    record = adopted(fd)
    found = record.read()
    assert found.damaged == 0
    assert found.peers == [(0, PeerEntry(b"p" * 32, b"g" * 16, b"t" * 12, 1, 2, 3, 4, V4))]
    (session,) = found.sessions
    assert (session.keys, session.use, session.state) == (KEYS, USE, 2)
    assert (session.sent, session.received) == (0, 0)
    record.set_state(session.place, 3)
    assert record.read().sessions[0].state == 3
    record.close()


@pytest.mark.parametrize("endpoint", [None, V4, V6, Endpoint(bytes(16), 1), V6.without_source()])
def test_endpoints_are_read_as_they_were(fd: int, endpoint: Endpoint | None) -> None:
    record = adopted(fd)
    entry = PeerEntry(b"q" * 32, b"", b"", 0, 0, 2**63, 2**64 - 1, endpoint)
    record.read()
    number = record.add_peer()
    assert number == 1
    record.set_peer(number, entry)
    assert record.read().peers[1] == (1, entry)
    record.close()


def test_its_size_cannot_be_changed(fd: int) -> None:
    for size in (4096, os.fstat(fd).st_size + 4096):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)


def test_it_takes_no_memory_before_it_is_used(fd: int) -> None:
    assert os.fstat(fd).st_blocks * 512 <= 4 * 4096


def test_no_program_that_is_started_gets_it() -> None:
    record = SessionRecord.create()
    assert not os.get_inheritable(record.fileno())
    record.close()


@pytest.mark.parametrize(
    ("version", "why"), [(VERSION - 1, "version 0"), (VERSION + 1, "version 2; .* knows 1")]
)
def test_a_version_that_is_not_known_is_refused(fd: int, version: int, why: str) -> None:
    os.pwrite(fd, pack("<I", version), VERSION_AT)
    refused(fd, why)


@pytest.mark.parametrize("at", [0, 15, 28, 40, 60, 83])
def test_a_damaged_header_is_refused(fd: int, at: int) -> None:
    os.pwrite(fd, bytes([os.pread(fd, 1, at)[0] ^ 1]), at)
    refused(fd, "damaged")


def test_another_boot_is_refused(fd: int) -> None:
    with pytest.raises(SessionRecordError, match="another boot"):
        SessionRecord.adopt(fd, clock=bytes(16))
    assert len(clock_identity()) == 16
    assert clock_identity() == clock_identity()


@pytest.mark.parametrize("size", [0, 20, 84, 4096, 1 << 20])
def test_a_truncated_one_is_refused(fd: int, size: int) -> None:
    part = os.memfd_create("part", os.MFD_CLOEXEC)
    os.pwrite(part, os.pread(fd, min(size, 8192), 0), 0)
    os.ftruncate(part, size)
    refused(part, "no record of sessions" if size < 84 else "another size")
    os.close(part)


def test_one_that_others_can_truncate_is_refused(fd: int) -> None:
    copy = os.memfd_create("copy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.pwrite(copy, os.pread(fd, 4096, 0), 0)
    os.ftruncate(copy, os.fstat(fd).st_size)
    refused(copy, "not sealed")
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    refused(copy, "not sealed")
    os.close(copy)


def test_anything_else_is_refused() -> None:
    for other in (os.memfd_create("other"), os.open("/dev/null", os.O_RDWR), *os.pipe()):
        refused(other, r"no record of sessions|cannot be (opened|read)")
        os.close(other)
    refused(99_999, "cannot be opened")


@pytest.mark.parametrize("at", [0, 16, 60, 100, 151])
def test_a_damaged_peer_is_wiped_alone(fd: int, at: int) -> None:
    at += 4096
    os.pwrite(fd, bytes([os.pread(fd, 1, at)[0] ^ 1]), at)
    record = adopted(fd)
    found = record.read()
    assert (found.peers, len(found.sessions), found.damaged) == ([], 1, 1)
    assert not any(os.pread(fd, 256, 4096))
    assert record.add_peer() == 0
    record.close()


@pytest.mark.parametrize("at", [*range(0, 96, 11), *range(96, 184, 13), *range(184, 232, 5)])
def test_a_damaged_session_is_wiped_alone(fd: int, at: int) -> None:
    """Above all one whose counters are: they must not be used again."""
    at += 4096 + MAX_PEERS * 256
    os.pwrite(fd, bytes([os.pread(fd, 1, at)[0] ^ 1]), at)
    record = adopted(fd)
    found = record.read()
    assert (len(found.peers), found.sessions, found.damaged) == (1, [], 1)
    assert not any(os.pread(fd, 256, 4096 + MAX_PEERS * 256))
    record.close()


def test_a_session_without_its_counters_is_none(fd: int) -> None:
    """As when its last owner's words, or none, are where its own should be."""
    at = 4096 + MAX_PEERS * 256 + 200
    for words in (bytes(32), pack("<QQ", 5, 5 ^ 12345) * 2):
        before = os.pread(fd, 256, at - 200)
        os.pwrite(fd, words, at)
        record = adopted(fd)
        assert record.read().damaged == 1
        record.close()
        os.pwrite(fd, before, at - 200)


def test_one_that_was_killed_between_two_writes_leaves_it_unused() -> None:
    record = SessionRecord.create()
    assert record.add_session(KEYS) is not None
    fd = os.dup(record.fileno())
    record.close()
    record = SessionRecord.adopt(fd)
    (session,) = record.read().sessions
    assert session.state == 0
    record.close()


def test_the_smallest_free_place_is_taken_first() -> None:
    record = SessionRecord.create()
    places = [record.add_session(KEYS) for _ in range(40)]
    assert [place and place.number for place in places] == list(range(40))
    for place in (places[30], places[3], places[17]):
        assert place is not None
        record.drop_session(place)
    fd = os.dup(record.fileno())
    record.close()
    record = SessionRecord.adopt(fd)
    record.read()
    again = [record.add_session(KEYS) for _ in range(4)]
    assert [place and place.number for place in again] == [3, 17, 30, 40]
    record.close()


def test_the_last_places_are_used_and_no_more(fd: int) -> None:
    record = adopted(fd)
    last = SessionPlace(MAX_SESSIONS - 1, 5)
    record.begin_session(last, USE, 2)
    record.drop_session(last)
    record.close()
    record = SessionRecord.create()
    record._sessions._next, record._peers._next = MAX_SESSIONS - 1, MAX_PEERS - 1
    place = record.add_session(KEYS)
    assert place is not None
    assert record.add_session(KEYS) is None
    number = record.add_peer()
    assert number is not None
    record.set_peer(number, PeerEntry(b"p" * 32, b"", b"", 0, 0, 0, 0, V6))
    assert record.add_peer() is None
    found = record.read()
    assert [one.place for one in found.sessions] == [place]
    assert [one for one, _ in found.peers] == [MAX_PEERS - 1]
    record.close()


def test_ten_thousand_peers_take_few_megabytes() -> None:
    record = SessionRecord.create()
    for number in range(10_000):
        assert record.add_session(KEYS) is not None
        taken = record.add_peer()
        assert taken == number
        record.set_peer(number, PeerEntry(b"p" * 32, b"", b"", 0, 0, 0, 0, V4))
    assert os.fstat(record.fileno()).st_blocks * 512 <= 5_200_000
    record.close()


def test_wiped_it_holds_nothing(fd: int) -> None:
    record = adopted(fd)
    record.read()
    record.wipe()
    assert not any(os.pread(fd, 256, 4096) + os.pread(fd, 256, 4096 + MAX_PEERS * 256))
    assert record.read().sessions == []
    record.close()
    adopted(fd).close()


def test_the_lock_ends_with_whoever_has_it(fd: int) -> None:
    first = adopted(fd)
    # A child has it, too, as long as it has the descriptor.
    command = [sys.executable, "-I", "-S", "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[first._own]) as child:
        first.close()
        with pytest.raises(SessionRecordError, match="another process uses"):
            SessionRecord.adopt(fd)
        child.kill()
    adopted(fd).close()
