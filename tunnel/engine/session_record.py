"""The file in which the sessions of a tunnel outlive its daemon.

It lives in memory (memfd), is sealed in its size, and has room for more than is used: what was
never written takes no memory. All numbers are little-endian; each part lies in one page, so that a
process that is killed leaves it as it was or as it should be.

    header      4096 bytes, written once
        digest of the rest, 16 bytes; "tunlsess"; version u32; entries of peers and of sessions, u32
        each; the clock of all times, 16 bytes; salt of the fingerprints, 32 bytes
    peers       MAX_PEERS entries of 256 bytes
        digest of the rest, 16 bytes; `_PEER`; `_WHERE`
    sessions    MAX_SESSIONS entries of 256 bytes
        0   digest of the rest; our index, the peer's, u32 each; mask u64; keys to send and to
            receive with. Written when the keys are made.
        96  digest of mask and rest; time of the handshake, f64; the peer's public key; fingerprints
            of our public key and of the preshared key. Written when the session may be used.
        184 three words, each a count u64 and the same exclusive-or the mask: state, counters
            reserved to send, counters accepted. The last two are the session's own
            (`datapath.interface.Ledger`).

An entry of zeros is free. A digest is BLAKE2s; it finds damage, not forgery: a process that can
write here has the keys already.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2s
from heapq import heappop, heappush
from struct import Struct
from typing import Final, NamedTuple, Self

from tunnel.errors import TunnelError
from tunnel.io.endpoint import Endpoint, Source
from tunnel.linux import kernel

VERSION: Final = 1
MAX_PEERS: Final = 1 << 16
MAX_SESSIONS: Final = 3 * MAX_PEERS
"""Of more peers the sessions are not kept, and end with the process."""

_MAGIC: Final = b"tunlsess"
_DIGEST: Final = 16
_PAGE: Final = 4096
_ENTRY: Final = 256
_PEERS_AT: Final = _PAGE
_SESSIONS_AT: Final = _PEERS_AT + MAX_PEERS * _ENTRY
_SIZE: Final = _SESSIONS_AT + MAX_SESSIONS * _ENTRY

_HEADER: Final = Struct("<8sIII16s32s")
_PEER: Final = Struct("<32s16s12sQQQQ")
"""Public key; fingerprint of the endpoint in the conf, or zeros; timestamp of its last initiation
that was accepted, or zeros; of ours, of the last handshake, in nanoseconds since 1970, or 0; bytes
sent, received."""
_WHERE: Final = Struct("<BHI16sB16sI")
"""Endpoint: length of the address or 0, port, scope, address; and our side of it: length of the
address or 0, address, interface."""
_KEYS: Final = Struct("<IIQ32s32s")
_USE: Final = Struct("<d32s16s16s")
_WORD: Final = Struct("<QQ")
_USE_AT: Final = 96
_STATE_AT: Final = 184
_COUNTERS_AT: Final = 200

_SEALS: Final = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class SessionRecordError(TunnelError):
    """A record of sessions that cannot be used. With a new one, sessions begin by handshakes."""

    code = "session_record"


class PeerEntry(NamedTuple):
    """What is kept of a peer besides its sessions. `given` is a fingerprint of where the conf had
    it, empty if it did not say. `accepted` is empty, or a timestamp (TAI64N)."""

    public_key: bytes
    given: bytes
    accepted: bytes
    sent_ns: int
    handshake_ns: int
    tx_bytes: int
    rx_bytes: int
    endpoint: Endpoint | None


class SessionKeys(NamedTuple):
    """The indices and keys of a session: ours and the peer's, to send and to receive with."""

    local_index: int
    remote_index: int
    send: bytes
    receive: bytes


class SessionUse(NamedTuple):
    """Since when (seconds) and with whom a session is; what our key and the preshared key were."""

    created: float
    public_key: bytes
    own: bytes
    preshared: bytes


class SessionPlace(NamedTuple):
    """An entry of a session: its number, and the mask of its words."""

    number: int
    mask: int

    @property
    def counters(self) -> int:
        """Where in the file the session notes its counters."""
        return _session_at(self.number) + _COUNTERS_AT


@dataclass(frozen=True, slots=True)
class FoundSession:
    """A session as an earlier process left it. `state` is 0 if it was not in use yet.

    Counters below `sent` may have been used, those below `received` were accepted.
    """

    place: SessionPlace
    keys: SessionKeys
    use: SessionUse
    state: int
    sent: int
    received: int


@dataclass(frozen=True, slots=True)
class FoundEntries:
    """What an earlier process left; entries that are `damaged` were wiped."""

    peers: list[tuple[int, PeerEntry]]
    sessions: list[FoundSession]
    damaged: int


def clock_identity() -> bytes:
    """16 bytes that differ wherever CLOCK_BOOTTIME does: by boot, and by time namespace."""
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        boot = file.read()
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/time")
    return blake2s(boot + namespace.encode(), digest_size=_DIGEST).digest()


class SessionRecord:
    """A record of sessions, by `create` or `adopt`, and its entries. To be closed.

    One process has it at a time: it holds a lock, which ends with the process. So `fileno` may be
    handed to whoever keeps it for the next one.
    """

    def __init__(self, shared: int, own: int, salt: bytes) -> None:
        self._shared = shared
        self._own = own
        self._salt = salt
        self._peers = _Numbers(MAX_PEERS)
        self._sessions = _Numbers(MAX_SESSIONS)

    @classmethod
    def create(cls, clock: bytes | None = None) -> Self:
        """Make an empty one for times of this `clock`, by default CLOCK_BOOTTIME.

        Raises OSError.
        """
        fd = _memory_file()
        try:
            os.ftruncate(fd, _SIZE)
            salt = secrets.token_bytes(32)
            clock = clock_identity() if clock is None else clock
            header = _HEADER.pack(_MAGIC, VERSION, MAX_PEERS, MAX_SESSIONS, clock, salt)
            os.pwrite(fd, _digest(header) + header, 0)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            return cls(fd, _locked(fd), salt)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def adopt(cls, fd: int, clock: bytes | None = None) -> Self:
        """Go on with the record that `fd` is of; it is the record's from then on.

        Raises SessionRecordError if it is none, damaged, of a version or a boot that is not ours,
        or another process has it; then `fd` is still the caller's. A file of another version would
        be read here, by the layout that it had; there is none yet.
        """
        try:
            own = _locked(fd)
        except OSError as error:
            raise SessionRecordError(f"the record of sessions cannot be opened: {error}") from None
        try:
            return cls(fd, own, _check_untrusted(own, clock_identity() if clock is None else clock))
        except OSError as error:
            os.close(own)
            raise SessionRecordError(f"the record of sessions cannot be read: {error}") from None
        except BaseException:
            os.close(own)
            raise

    def fileno(self) -> int:
        """The descriptor to keep for the next process."""
        return self._shared

    def close(self) -> None:
        """Give the record up: another process may adopt it, if someone keeps the descriptor."""
        for fd in (self._own, self._shared):
            if fd >= 0:
                os.close(fd)
        self._own = self._shared = -1

    def wipe(self) -> None:
        """Overwrite all entries. Sessions that still note their counters here must be no more."""
        for start, end in _written(self._own, _PEERS_AT, _SIZE):
            for at in range(start, end, _PAGE):
                os.pwrite(self._own, bytes(_PAGE), at)
        self._peers, self._sessions = _Numbers(MAX_PEERS), _Numbers(MAX_SESSIONS)

    def fingerprint(self, key: bytes) -> bytes:
        """16 bytes by which a key is known again, and nothing else is known of it."""
        return blake2s(key, digest_size=_DIGEST, key=self._salt).digest()

    # --- Sessions --------------------------------------------------------------------------------

    def add_session(self, keys: SessionKeys) -> SessionPlace | None:
        """Keep a session that is not in use yet; None if there is no room, or no memory."""
        number = self._sessions.take()
        if number is None:
            return None
        place = SessionPlace(number, secrets.randbits(64))
        body = _KEYS.pack(keys.local_index, keys.remote_index, place.mask, keys.send, keys.receive)
        head = _digest(body) + body
        words = 3 * _WORD.pack(0, place.mask)
        try:
            os.pwrite(self._own, head.ljust(_STATE_AT, b"\0") + words, _session_at(number))
        except OSError:
            self._sessions.give(number)
            return None
        return place

    def begin_session(self, place: SessionPlace, use: SessionUse, state: int) -> None:
        """It is in use from now on."""
        body = _USE.pack(*use)
        data = _use_digest(place.mask, body) + body + _WORD.pack(state, state ^ place.mask)
        os.pwrite(self._own, data, _session_at(place.number) + _USE_AT)

    def set_state(self, place: SessionPlace, state: int) -> None:
        """Change the state of one in use."""
        data = _WORD.pack(state, state ^ place.mask)
        os.pwrite(self._own, data, _session_at(place.number) + _STATE_AT)

    def drop_session(self, place: SessionPlace) -> None:
        """Overwrite it. It must note nothing any more: the place is free."""
        os.pwrite(self._own, bytes(_ENTRY), _session_at(place.number))
        self._sessions.give(place.number)

    # --- Peers -----------------------------------------------------------------------------------

    def add_peer(self) -> int | None:
        """A number for an entry of a peer; None if there is no room, or no memory."""
        number = self._peers.take()
        if number is not None:
            try:
                # The only write that may need more memory. Others go where this has been.
                os.pwrite(self._own, bytes(_ENTRY), _PEERS_AT + number * _ENTRY)
            except OSError:
                self._peers.give(number)
                return None
        return number

    def set_peer(self, number: int, entry: PeerEntry) -> None:
        """Keep this of a peer."""
        endpoint = entry.endpoint
        where: tuple[int | bytes, ...] = (0, 0, 0, b"", 0, b"", 0)
        if endpoint is not None:
            source = endpoint.source or Source(b"", 0)
            where = (
                len(endpoint.address),
                endpoint.port,
                endpoint.scope_id,
                endpoint.address,
                len(source.address),
                *source,
            )
        body = _PEER.pack(*entry[:-1]) + _WHERE.pack(*where)
        os.pwrite(self._own, _digest(body) + body, _PEERS_AT + number * _ENTRY)

    def drop_peer(self, number: int) -> None:
        """Overwrite the entry of a peer."""
        os.pwrite(self._own, bytes(_ENTRY), _PEERS_AT + number * _ENTRY)
        self._peers.give(number)

    # --- What was left ---------------------------------------------------------------------------

    def read(self) -> FoundEntries:
        """All that there is, of an adopted record. To be called before anything is added."""
        found = FoundEntries([], [], damaged := 0)
        for number, data in self._entries(_PEERS_AT, _SESSIONS_AT):
            peer = _peer_untrusted(data)
            if peer is None:
                self.drop_peer(number)
                damaged += 1
            else:
                found.peers.append((number, peer))
        for number, data in self._entries(_SESSIONS_AT, _SIZE):
            session = _session_untrusted(number, data)
            if session is None:
                self.drop_session(SessionPlace(number, 0))
                damaged += 1
            else:
                found.sessions.append(session)
        self._peers = _Numbers(MAX_PEERS, {number for number, _ in found.peers})
        self._sessions = _Numbers(MAX_SESSIONS, {one.place.number for one in found.sessions})
        return FoundEntries(found.peers, found.sessions, damaged)

    def _entries(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        for first, last in _written(self._own, start, end):
            for page in range(first, last, _PAGE):
                data = os.pread(self._own, _PAGE, page)
                for at in range(0, len(data), _ENTRY):
                    entry = data[at : at + _ENTRY]
                    if any(entry):
                        yield (page + at - start) // _ENTRY, entry


class _Numbers:
    """Numbers below a limit, the smallest free one first: what is used stays together."""

    __slots__ = ("_free", "_limit", "_next")

    def __init__(self, limit: int, used: set[int] | frozenset[int] = frozenset()) -> None:
        self._limit = limit
        self._next = max(used, default=-1) + 1
        self._free = [number for number in range(self._next) if number not in used]

    def take(self) -> int | None:
        if self._free:
            return heappop(self._free)
        if self._next >= self._limit:
            return None
        self._next += 1
        return self._next - 1

    def give(self, number: int) -> None:
        heappush(self._free, number)


def _memory_file() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("tunnel-sessions", flags | kernel.MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # Linux before 6.3 does not know it.
        return os.memfd_create("tunnel-sessions", flags)


def _locked(fd: int) -> int:
    """A descriptor of our own of the same file, with the lock.

    Opened again: a lock belongs to what was opened, and `fd` is shared with whoever keeps it.
    Raises SessionRecordError if another has the lock, OSError if it cannot be opened.
    """
    own = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(own)
        if isinstance(error, BlockingIOError):
            raise SessionRecordError("another process uses this record of sessions") from None
        raise
    return own


def _check_untrusted(fd: int, clock: bytes) -> bytes:
    """Check the header, and return the salt. Raises SessionRecordError."""
    header = os.pread(fd, _DIGEST + _HEADER.size, 0)
    if header[_DIGEST : _DIGEST + len(_MAGIC)] != _MAGIC or len(header) < _DIGEST + _HEADER.size:
        raise SessionRecordError("this is no record of sessions")
    _, version, peers, sessions, then, salt = _HEADER.unpack_from(header, _DIGEST)
    if version != VERSION:
        raise SessionRecordError(
            f"the record of sessions is of version {version}; this program knows {VERSION}"
        )
    if header[:_DIGEST] != _digest(header[_DIGEST:]):
        raise SessionRecordError("the header of the record of sessions is damaged")
    try:
        is_sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
    except OSError:
        is_sealed = False
    if (peers, sessions) != (MAX_PEERS, MAX_SESSIONS) or os.fstat(fd).st_size != _SIZE:
        raise SessionRecordError("the record of sessions has another size than it should")
    if not is_sealed:
        raise SessionRecordError("the size of the record of sessions is not sealed")
    if then != clock:
        raise SessionRecordError("the record of sessions is of another boot")
    return bytes(salt)


def _peer_untrusted(data: bytes) -> PeerEntry | None:
    body = data[_DIGEST : _DIGEST + _PEER.size + _WHERE.size]
    if data[:_DIGEST] != _digest(body):
        return None
    length, port, scope, address, source_length, source, ifindex = _WHERE.unpack_from(
        body, _PEER.size
    )
    endpoint = None
    if length:
        via = Source(source[:source_length], ifindex) if source_length else None
        try:
            endpoint = Endpoint(address[:length], port, scope, via)
        except ValueError:
            return None
    key, given, accepted, sent, handshake, tx, rx = _PEER.unpack_from(body)
    given, accepted = (one if any(one) else b"" for one in (given, accepted))
    return PeerEntry(key, given, accepted, sent, handshake, tx, rx, endpoint)


def _session_untrusted(number: int, data: bytes) -> FoundSession | None:
    body = data[_DIGEST : _DIGEST + _KEYS.size]
    if data[:_DIGEST] != _digest(body):
        return None
    local_index, remote_index, mask, send, receive = _KEYS.unpack(body)
    words = [_WORD.unpack_from(data, _STATE_AT + n * _WORD.size) for n in range(3)]
    if any(count ^ mask != masked for count, masked in words):
        return None
    state, sent, received = (count for count, _ in words)
    use = data[_USE_AT + _DIGEST : _USE_AT + _DIGEST + _USE.size]
    if state and data[_USE_AT : _USE_AT + _DIGEST] != _use_digest(mask, use):
        return None
    keys = SessionKeys(local_index, remote_index, send, receive)
    used = SessionUse(*_USE.unpack(use))
    return FoundSession(SessionPlace(number, mask), keys, used, state, sent, received)


def _session_at(number: int) -> int:
    return _SESSIONS_AT + number * _ENTRY


def _written(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where between two places there are pages at all."""
    while start < end:
        try:
            first = os.lseek(fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        start = os.lseek(fd, first, os.SEEK_HOLE)
        if first < end:
            yield first, min(start, end)


def _digest(data: bytes) -> bytes:
    return blake2s(data, digest_size=_DIGEST).digest()


def _use_digest(mask: int, data: bytes) -> bytes:
    return _digest(mask.to_bytes(8, "little") + data)
