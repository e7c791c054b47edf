"""The hub behind the page: its conf, its daemon, and what both said in the last minutes."""

from __future__ import annotations

import os
import re
import time
from base64 import b64decode, urlsafe_b64encode
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import trio

from tunnel import config
from tunnel.config.expiry import expiry_from
from tunnel.config.peers import ListedPeer, NewPeer, PeerBook
from tunnel.config.phone import phone_code
from tunnel.config.problems import Mistake
from tunnel.control.applying import NotAppliedError, apply_conf
from tunnel.control.async_client import open_connection
from tunnel.control.json_client import NotRunningError
from tunnel.control.json_protocol import ControlError
from tunnel.control.messages.status import PeerStatus, TunnelStatus
from tunnel.linux.networks import Network, read_network
from tunnel.protocol.constants import REJECT_AFTER_TIME
from tunnel.web.errors import WebError
from tunnel.web.journal import Journal
from tunnel.web.links import Links
from tunnel.web.messages import (
    Changes,
    Done,
    Handout,
    LogEntry,
    PeerTraffic,
    PeerView,
    State,
    Traffic,
    Wanted,
)

SHOWN: Final = 180.0
"""Seconds of traffic that the page draws."""

_FRESH: Final = 1.0
"""Seconds for which a status, or a mistake in the conf, is good enough for another page."""

_UNWATCHED: Final = 20.0
"""Seconds between two looks at the tunnel while no page is open. Sessions last longer."""

_PATIENCE: Final = 5.0
"""Seconds for the daemon's answer."""

_FILE_NAME: Final = re.compile(r"[^A-Za-z0-9_=+.-]+")

_T = TypeVar("_T")


def id_of(public_key: str) -> str:
    """What names a peer in a path."""
    return urlsafe_b64encode(b64decode(public_key)).decode().rstrip("=")


class Hub:
    """The tunnel of a conf. `clock` is Unix time."""

    def __init__(
        self, conf: Path, journal: Journal, clock: Callable[[], float] = time.time
    ) -> None:
        self.conf = conf
        self.name = conf.name.removesuffix(".conf")
        self.journal = journal
        self.links = Links(clock)
        self._clock = clock
        self._asking = trio.Lock()
        self._editing = trio.Lock()
        self._status: TunnelStatus | None = None
        self._problem = ""
        self._asked_at = float("-inf")
        self._book: PeerBook | None = None
        self._book_problem = ""
        self._networks: tuple[Network, ...] = ()
        self._read_of: tuple[int, int, int] | None = None
        self._read_at = float("-inf")
        self._samples: dict[str, deque[tuple[float, int, int]]] = {}
        self._online = journal.connected()

    async def watch(self) -> None:
        """Look at the tunnel now and then, for the log; forever."""
        while True:
            await self._look()
            await trio.sleep(_UNWATCHED)

    async def networks(self) -> tuple[Network, ...]:
        """Those of the interface's addresses and of its peers; while the conf has a mistake, those
        that it had before.
        """
        book = await self._read()
        if book is not None:
            own = tuple(address.network for address in book.config.interface.addresses)
            peers = (each for peer in book.config.peers for each in peer.networks)
            self._networks = own + tuple(peers)
        return self._networks

    async def state(self) -> State:
        """What the page shows."""
        await self._look()
        book = await self._read()
        status, now = self._status, self._clock()
        running = {} if status is None else {peer.public_key: peer for peer in status.peers}
        listed = () if book is None else book.peers
        known = {peer.config.public_key.to_base64() for peer in listed}
        views = [self._view(peer, running, now) for peer in listed]
        views += [_runtime_view(peer, now) for key, peer in running.items() if key not in known]
        interface = None if book is None else book.config.interface
        addresses = () if interface is None else interface.addresses
        key = None if interface is None else interface.private_key
        return State(
            now=now,
            name=self.name,
            conf=str(self.conf),
            running=status is not None,
            problem=" ".join(each for each in (self._problem, self._book_problem) if each),
            public_key="" if key is None else key.public_key().to_base64(),
            endpoint=_endpoint(book),
            listen_port=0 if status is None else status.listen_port,
            addresses=tuple(map(str, addresses)),
            networks=tuple(str(address.network) for address in addresses),
            since=0.0 if status is None else status.since,
            rx_bytes=sum(peer.rx_bytes for peer in running.values()),
            tx_bytes=sum(peer.tx_bytes for peer in running.values()),
            log_changes=self.journal.changes,
            peers=tuple(views),
        )

    async def traffic(self) -> Traffic:
        """The counters of the last minutes."""
        await self._look()
        oldest = self._clock() - SHOWN
        found = []
        for key, samples in self._samples.items():
            shown = [each for each in samples if each[0] >= oldest]
            if shown:
                times, rx_bytes, tx_bytes = zip(*shown, strict=True)
                found.append(PeerTraffic(id_of(key), times, rx_bytes, tx_bytes))
        return Traffic(tuple(found))

    async def add(self, wanted: Wanted) -> Handout:
        """Add a peer with new keys."""
        new = self._new(wanted)

        def change(book: PeerBook) -> tuple[str, config.TunnelConfig]:
            theirs = book.add(new, os.urandom)
            return book.peers[-1].config.public_key.to_base64(), theirs

        (key, theirs), notice = await self._edit(change)
        return self.links.hold(id_of(key), _handout(wanted.name, theirs, notice))

    async def renew(self, peer_id: str, wanted: Wanted) -> Handout:
        """Give a peer new keys: whoever has the old conf is shut out."""
        new = self._new(wanted)

        def change(book: PeerBook) -> tuple[str, str, config.TunnelConfig]:
            peer = _find(book, peer_id)
            theirs = book.renew(peer, new, os.urandom)
            own = theirs.interface.private_key
            assert own is not None
            return own.public_key().to_base64(), peer.name, theirs

        (key, name, theirs), notice = await self._edit(change)
        self.links.forget(peer_id)
        return self.links.hold(id_of(key), _handout(name, theirs, notice))

    async def change(self, peer_id: str, changes: Changes) -> tuple[str, list[str], Done]:
        """Change a peer; its name before, and the kinds of log entries that tell what was done."""
        until = changes.expires
        at = self._time(until) if until else None

        def change(book: PeerBook) -> tuple[str, list[str]]:
            peer = _find(book, peer_id)
            before, kinds = peer.name, []
            if changes.name is not None and changes.name != peer.config.friendly_name:
                book.rename(peer, changes.name)
                kinds.append("renamed")
            if until is not None and at != peer.config.expires:
                book.expire(_find(book, peer_id), at)
                kinds.append("expires")
            if changes.disabled is not None and changes.disabled != peer.is_disabled:
                peer = _find(book, peer_id)
                (book.disable if changes.disabled else book.enable)(peer)
                kinds.append("disabled" if changes.disabled else "enabled")
            return before, kinds

        (before, kinds), notice = await self._edit(change)
        if "renamed" in kinds and before in self._online:
            self._online[changes.name or ""] = self._online.pop(before)
        if "disabled" in kinds:
            self.links.forget(peer_id)
        return before, kinds, Done(notice)

    async def remove(self, peer_id: str) -> tuple[str, Done]:
        """Remove a peer; its name."""

        def change(book: PeerBook) -> str:
            peer = _find(book, peer_id)
            book.remove(peer)
            return peer.name

        name, notice = await self._edit(change)
        self.links.forget(peer_id)
        return name, Done(notice)

    async def _edit(self, change: Callable[[PeerBook], _T]) -> tuple[_T, str]:
        """Do it to the conf as it is in the file now, and apply it; what else there is to know."""
        async with self._editing:
            done = await trio.to_thread.run_sync(self._edit_now, change)
        self._asked_at = float("-inf")
        return done

    def _edit_now(self, change: Callable[[PeerBook], _T]) -> tuple[_T, str]:
        try:
            book = PeerBook(self.conf)
            before = book.text
            result = change(book)
            if book.text == before:
                return result, ""
            book.write()
        except config.ConfigErrors as errors:
            raise WebError(409, "conf", _words(errors)) from None
        try:
            apply_conf(self.conf)
        except NotAppliedError as error:
            return result, f"This is in the conf, but {error}."
        return result, ""

    def _new(self, wanted: Wanted) -> NewPeer:
        return NewPeer(
            wanted.name,
            wanted.endpoint or None,
            addresses=_networks(wanted.addresses),
            reach=_networks(wanted.reach),
            excluded=_networks(wanted.excluded),
            dns=wanted.dns,
            expires=self._time(wanted.expires) if wanted.expires else None,
        )

    def _time(self, text: str) -> float:
        try:
            return expiry_from(text, self._clock())
        except Mistake as mistake:
            raise WebError(400, "body", f"{mistake.fault}; {mistake.remedy}") from None

    async def _read(self) -> PeerBook | None:
        """The conf as it is now; None if it cannot be read, which `_book_problem` tells."""
        await trio.to_thread.run_sync(self._read_now)
        return self._book

    def _read_now(self) -> None:
        try:
            status = self.conf.stat()
            read_of = (status.st_ino, status.st_mtime_ns, status.st_size)
            if read_of == self._read_of and (
                # A mistake may also be in a file of a key.
                self._book is not None or 0 <= self._clock() - self._read_at < _FRESH
            ):
                return
            self._read_of, self._read_at = read_of, self._clock()
            self._book, self._book_problem = PeerBook(self.conf), ""
        except OSError as error:
            self._book, self._read_of = None, None
            self._book_problem = f"The conf {self.conf} cannot be read: {error.strerror}."
        except config.ConfigErrors as errors:
            self._book = None
            self._book_problem = f"The conf has mistakes: {_words(errors)}."

    async def _look(self) -> None:
        """Ask the daemon, unless its last answer is still good."""
        async with self._asking:
            now = self._clock()
            if 0 <= now - self._asked_at < _FRESH:
                return
            self._status, self._problem = None, ""
            try:
                with trio.fail_after(_PATIENCE):
                    async with open_connection(self.name) as connection:
                        self._status = await connection.status()
            except NotRunningError:
                pass
            except trio.TooSlowError:
                self._problem = f"The daemon of {self.name} does not answer."
            except (ControlError, OSError) as error:
                self._problem = f"{error}."
            self._asked_at = now
        status = self._status
        if status is not None and status.conf and not _is_same(self.conf, status.conf):
            self._problem = f"{self.name} runs from another conf, {status.conf}."
        self._take_samples(now)
        self._take_log(now)

    def _take_samples(self, now: float) -> None:
        peers = () if self._status is None else self._status.peers
        most = int(SHOWN / _FRESH)
        for peer in peers:
            samples = self._samples.setdefault(peer.public_key, deque(maxlen=most))
            samples.append((now, peer.rx_bytes, peer.tx_bytes))
        for key in [key for key, each in self._samples.items() if each[-1][0] < now - SHOWN]:
            del self._samples[key]

    def _take_log(self, now: float) -> None:
        """Compare who is there with who was; handshakes tell when they came."""
        if self._problem:
            return
        peers = () if self._status is None else self._status.peers
        there = {peer.name or peer.public_key: peer for peer in peers}
        for name, peer in there.items():
            if not _is_online(peer, now):
                continue
            endpoint = peer.endpoint or ""
            if name not in self._online:
                self.journal.add(LogEntry(peer.latest_handshake, "connected", name, endpoint))
            elif endpoint != self._online[name]:
                self.journal.add(LogEntry(now, "moved", name, endpoint))
            self._online[name] = endpoint
        for name in list(self._online):
            gone = there.get(name)
            if gone is None or not _is_online(gone, now):
                latest = 0.0 if gone is None else gone.latest_handshake
                at = latest + REJECT_AFTER_TIME if latest else now
                self.journal.add(LogEntry(at, "disconnected", name, self._online.pop(name)))

    def _view(self, peer: ListedPeer, running: dict[str, PeerStatus], now: float) -> PeerView:
        key = peer.config.public_key.to_base64()
        expires = peer.config.expires or 0.0
        found = running.get(key)
        if peer.is_disabled:
            state = "disabled"
        elif expires and expires <= now:
            state = "expired"
        else:
            state = "unknown" if found is None else _state(found, now)
        return PeerView(
            id=id_of(key),
            name=peer.config.friendly_name,
            public_key=key,
            addresses=tuple(map(str, peer.config.networks)),
            state=state,
            endpoint=(found and found.endpoint) or "",
            latest_handshake=found.latest_handshake if found else 0.0,
            rx_bytes=found.rx_bytes if found else 0,
            tx_bytes=found.tx_bytes if found else 0,
            expires=expires,
            in_conf=True,
            link_until=self.links.until(id_of(key)),
        )


def _runtime_view(peer: PeerStatus, now: float) -> PeerView:
    return PeerView(
        id=id_of(peer.public_key),
        name=peer.name,
        public_key=peer.public_key,
        addresses=peer.allowed_ips,
        state=_state(peer, now),
        endpoint=peer.endpoint or "",
        latest_handshake=peer.latest_handshake,
        rx_bytes=peer.rx_bytes,
        tx_bytes=peer.tx_bytes,
        expires=peer.expires,
        in_conf=False,
        link_until=0.0,
    )


def _is_same(one: Path, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _is_online(peer: PeerStatus, now: float) -> bool:
    return now - peer.latest_handshake < REJECT_AFTER_TIME


def _state(peer: PeerStatus, now: float) -> str:
    if not peer.latest_handshake:
        return "never"
    return "online" if _is_online(peer, now) else "away"


def _endpoint(book: PeerBook | None) -> str:
    try:
        return "" if book is None else str(book.noted_endpoint() or "")
    except config.ConfigErrors:
        return ""


def _find(book: PeerBook, peer_id: str) -> ListedPeer:
    for peer in book.peers:
        if id_of(peer.config.public_key.to_base64()) == peer_id:
            return peer
    raise WebError(404, "no_peer", "this peer is not in the conf any more")


def _networks(texts: Sequence[str]) -> tuple[Network, ...]:
    try:
        return tuple(read_network(text) for text in texts)
    except ValueError as error:
        raise WebError(
            400, "body", f"{error}; a network such as 192.168.1.0/24 is expected"
        ) from None


def _handout(name: str, theirs: config.TunnelConfig, notice: str) -> Handout:
    rows: tuple[str, ...] = ()
    try:
        code, _ = phone_code(theirs)
        rows = tuple("".join(str(int(bit)) for bit in row) for row in code.matrix)
    except Mistake:
        pass
    # An interface is named like the file.
    file = _FILE_NAME.sub("-", name).strip("-.")[:15] or theirs.name
    return Handout(name, f"{file}.conf", config.dump(theirs), rows, "", notice)


def _words(errors: config.ConfigErrors) -> str:
    """All that is wrong, without the name of the file, which the page shows anyway."""
    parts = []
    for problem in errors.problems:
        line = "" if problem.line is None else f"line {problem.line}: "
        parts.append(f"{line}{problem.fault}; {problem.remedy}")
    return ". ".join(parts)
