"""What keeps the sessions beyond this process: each change of them goes to the record.

A session is there before it is used, and what it counts it notes itself (`datapath.Ledger`).
Changes of a peer are gathered and written before anything that follows from them is sent (`write`).
A session that the protocol drops is overwritten then, and notes nothing any more.

After a restart `revive` goes on with what is left. A session whose peer, own key or preshared key
is another one now, or that is over age, is left out and overwritten: there a handshake begins, as
it would without a record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum, unique

from tunnel import datapath
from tunnel.datapath import Session
from tunnel.protocol import PublicKey
from tunnel.protocol.constants import REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME
from tunnel.protocol.keypairs import Keypair

from .common import Interface, Peer
from .session_record import (
    FoundEntries,
    FoundSession,
    PeerEntry,
    SessionKeys,
    SessionPlace,
    SessionRecord,
    SessionUse,
)

PREVIOUS, CURRENT, NEXT = 1, 2, 3
"""Slots, in the lowest two bits of a state; 0 is a session that was never in one."""
_SLOT = 3
_IS_INITIATOR = 4
_IS_SUPERSEDED = 8

MakeSession = Callable[..., Session]
"""A `datapath.SessionFactory` whose first four arguments are to be given, and what it is to go on
with."""


@unique
class LeftOut(StrEnum):
    """Why a session was not revived."""

    OVER_AGE = "over age"
    PEER_GONE = "the peer was removed"
    OWN_KEY = "our private key was changed"
    PRESHARED_KEY = "the preshared key was changed"
    UNUSED = "its handshake was not completed"
    SPENT = "it has sent as many messages as it may"
    REPLACED = "a later one took its place"
    DAMAGED = "its entry is damaged"


@dataclass(frozen=True, slots=True)
class Revived:
    """What became of the sessions of an earlier process: how many go on, of how many peers, and
    how many were left out for which reason."""

    sessions: int = 0
    peers: int = 0
    left_out: dict[LeftOut, int] = field(default_factory=dict)


class _Kept:
    """A session in the record."""

    __slots__ = ("place", "session", "state")

    def __init__(self, place: SessionPlace, session: Session, state: int = 0) -> None:
        self.place = place
        self.session = session
        self.state = state


class _KeptPeer:
    """The entry of a peer, if there was room for one, and its sessions by our index."""

    __slots__ = ("given", "number", "sessions")

    def __init__(self, number: int | None, given: bytes = b"") -> None:
        self.number = number
        self.given = given
        self.sessions: dict[int, _Kept] = {}


class Keeping:
    """One per engine that has a record. `interface` is to be set before anything is asked."""

    interface: Interface

    def __init__(self, record: SessionRecord, path: datapath.Datapath, make: MakeSession) -> None:
        self._record = record
        self._ledger = path.ledger(record.fileno())
        self._make = make
        self._found = record.read()
        self._new: dict[int, _Kept] = {}
        self._peers: dict[Peer, _KeptPeer] = {}
        self._changed: dict[Peer, None] = {}
        self._given: dict[Peer, bytes] = {}
        """Fingerprints of where the conf has the peers, for those that have no entry yet."""

    def make_transport(
        self, send_key: bytes, receive_key: bytes, local_index: int, remote_index: int
    ) -> Session:
        """A session that is kept, as long as there is room."""
        keys = SessionKeys(local_index, remote_index, send_key, receive_key)
        place = self._record.add_session(keys)
        if place is None:
            return self._make(send_key, receive_key, local_index, remote_index)
        ledger = (self._ledger, place.counters, place.mask)
        session = self._make(send_key, receive_key, local_index, remote_index, ledger=ledger)
        self._new[local_index] = _Kept(place, session)
        return session

    def set_given(self, peer: Peer, place: bytes) -> None:
        """Where the conf has the peer from now on; empty where it does not say."""
        if not place:
            return
        given = self._record.fingerprint(place)
        kept = self._peers.get(peer)
        if kept is None:
            self._given[peer] = given
        elif kept.given != given:
            kept.given = given
            self._changed[peer] = None

    def handle_peer_change(self, peer: Peer) -> None:
        """To be written with the next `write`."""
        self._changed[peer] = None

    def write(self) -> None:
        """Write what has changed."""
        while self._changed:
            peer, _ = self._changed.popitem()
            self._write_peer(peer)
        # Dropped since they were made.
        while self._new:
            self._drop(self._new.popitem()[1])

    def hand_over(self) -> None:
        """Seal nothing more: the next process goes on at the exact counters."""
        for peer in self._peers:
            self._changed[peer] = None
        self.write()
        for kept in self._peers.values():
            for one in kept.sessions.values():
                one.session.hand_over()

    # --- What changes ----------------------------------------------------------------------------

    def _write_peer(self, peer: Peer) -> None:
        kept = self._peers.get(peer)
        if peer.removed:
            self._given.pop(peer, None)
            if kept is not None:
                del self._peers[peer]
                for session in kept.sessions.values():
                    self._drop(session)
                if kept.number is not None:
                    self._record.drop_peer(kept.number)
            return
        accepted, sent_ns = peer.stamps
        keypairs = peer.keypairs
        slots = (
            (PREVIOUS, keypairs.previous),
            (CURRENT, keypairs.current),
            (NEXT, keypairs.next),
        )
        if kept is None:
            if not (accepted or sent_ns or any(keypair for _, keypair in slots)):
                return
            given = self._given.pop(peer, b"")
            kept = self._peers[peer] = _KeptPeer(self._record.add_peer(), given)
        gone = kept.sessions
        kept.sessions = {}
        for slot, keypair in slots:
            # One that must not send any more was made with a private key that is not ours now.
            if keypair is None or keypair.send_until < keypair.created:
                continue
            index = keypair.local_index
            one = self._new.pop(index, None) or gone.pop(index, None)
            if one is not None:
                kept.sessions[index] = one
                self._write_session(peer, keypair, one, slot)
        for session in gone.values():
            self._drop(session)
        if kept.number is not None:
            entry = PeerEntry(
                bytes(peer.public_key),
                kept.given,
                accepted,
                sent_ns,
                peer.last_handshake_unix_ns,
                peer.tx_bytes,
                peer.rx_bytes,
                peer.endpoint,
            )
            self._record.set_peer(kept.number, entry)

    def _write_session(
        self, peer: Peer, keypair: Keypair[Peer, Session], kept: _Kept, slot: int
    ) -> None:
        state = slot
        if keypair.is_initiator:
            state |= _IS_INITIATOR
        if keypair.is_superseded:
            state |= _IS_SUPERSEDED
        if state == kept.state:
            return
        if kept.state:
            self._record.set_state(kept.place, state)
        else:
            use = SessionUse(
                keypair.created,
                bytes(peer.public_key),
                self._own(),
                self._record.fingerprint(bytes(peer.preshared_key)),
            )
            self._record.begin_session(kept.place, use, state)
        kept.state = state

    def _drop(self, kept: _Kept) -> None:
        kept.session.forget_ledger()
        self._record.drop_session(kept.place)

    def _own(self) -> bytes:
        own = self.interface.public_key
        return self._record.fingerprint(b"" if own is None else bytes(own))

    # --- What was left ---------------------------------------------------------------------------

    def revive(self, now: float) -> Revived:
        """Go on with the sessions that an earlier process left. Once, with the peers of the conf
        there, and before anything is sent or received.

        A peer is where it was last, unless the conf, by `set_given`, has it elsewhere than it had
        when that was noted.
        """
        found, self._found = self._found, FoundEntries([], [], 0)
        self._restore_entries(found)
        left = Counter({LeftOut.DAMAGED: found.damaged})
        slots: dict[tuple[Peer, int], FoundSession] = {}
        own = self._own()
        for session in sorted(found.sessions, key=lambda one: one.use.created):
            peer = self.interface.peers.get(PublicKey(session.use.public_key))
            reason = self._flaw(session, peer, own, now)
            if peer is None or reason is not None:
                left[reason or LeftOut.PEER_GONE] += 1
                self._record.drop_session(session.place)
                continue
            # A process that was killed may leave two in one slot: the later one has it.
            slot = peer, session.state & _SLOT
            if slot in slots:
                left[LeftOut.REPLACED] += 1
                self._record.drop_session(slots[slot].place)
            slots[slot] = session
        peers = {peer for peer, _ in slots}
        for peer in peers:
            previous, current, following = (
                self._revived(peer, slots.get((peer, slot))) for slot in (PREVIOUS, CURRENT, NEXT)
            )
            peer.restore_keypairs(previous, current, following, now)
        self.write()
        return Revived(len(slots), len(peers), {why: n for why, n in left.items() if n})

    def _restore_entries(self, found: FoundEntries) -> None:
        for number, entry in found.peers:
            peer = self.interface.peers.get(PublicKey(entry.public_key))
            if peer is None:
                self._record.drop_peer(number)
                continue
            given = self._given.pop(peer, b"")
            self._peers[peer] = _KeptPeer(number, given or entry.given)
            peer.restore_stamps(entry.accepted, entry.sent_ns)
            peer.last_handshake_unix_ns = entry.handshake_ns
            peer.tx_bytes, peer.rx_bytes = entry.tx_bytes, entry.rx_bytes
            if entry.endpoint is not None and given in (b"", entry.given):
                peer.set_endpoint(entry.endpoint)

    def _flaw(
        self, session: FoundSession, peer: Peer | None, own: bytes, now: float
    ) -> LeftOut | None:
        use = session.use
        if not session.state & _SLOT:
            return LeftOut.UNUSED
        # One of a time to come is of a clock that was not ours.
        if not use.created <= now < use.created + REJECT_AFTER_TIME:
            return LeftOut.OVER_AGE
        if peer is None:
            return LeftOut.PEER_GONE
        if use.own != own:
            return LeftOut.OWN_KEY
        if use.preshared != self._record.fingerprint(bytes(peer.preshared_key)):
            return LeftOut.PRESHARED_KEY
        if max(session.sent, session.received) >= REJECT_AFTER_MESSAGES:
            return LeftOut.SPENT
        return None

    def _revived(self, peer: Peer, found: FoundSession | None) -> Keypair[Peer, Session] | None:
        if found is None:
            return None
        keys, place = found.keys, found.place
        session = self._make(
            keys.send,
            keys.receive,
            keys.local_index,
            keys.remote_index,
            initial_counter=found.sent,
            received=found.received,
            ledger=(self._ledger, place.counters, place.mask),
        )
        kept = self._peers.setdefault(peer, _KeptPeer(None))
        kept.sessions[keys.local_index] = _Kept(place, session, found.state)
        keypair = Keypair(
            peer,
            session,
            keys.local_index,
            keys.remote_index,
            found.use.created,
            is_initiator=bool(found.state & _IS_INITIATOR),
        )
        keypair.is_superseded = bool(found.state & _IS_SUPERSEDED)
        return keypair
