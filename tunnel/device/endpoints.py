"""Endpoints given by name: looked up again when no one answers, every address tried in turn.

A name's addresses form a ring. The protocol asks, through `retry`, where to send the next attempt
of a handshake that went unanswered: to the next address of the ring. An address that has worked
gets one more attempt before, and stays in use as long as it answers. Meanwhile the name is looked
up again, at most every `FIRST_PAUSE` seconds and ever less often, without anything waiting for it.
A name that had no address when the tunnel came up is looked up until it has one. Endpoints that the
conf gives as addresses are left as they are, and so is one that was set by hand: a peer that
`wg set` sent to another address has no name from then on, until a reload brings another one.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import trio

from tunnel.config import EndpointConfig, PeerConfig, PublicKey
from tunnel.control.messages.changes import named
from tunnel.control.timeslice import Pace
from tunnel.device.look_up import MAX_LOOKUPS
from tunnel.device.resolve import ResolveError, resolve
from tunnel.engine import Clock, Engine, Peer, boot_time
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import Event, HandshakeCompleted, HandshakeFailed, HandshakeUnanswered

log = logging.getLogger("tunnel")

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 120.0
"""Seconds between two look-ups of a name that goes on without an answer; they double each time."""

LookUp = Callable[[EndpointConfig], Awaitable[Sequence[Endpoint]]]


async def _look_up_once(wanted: EndpointConfig) -> Sequence[Endpoint]:
    return await resolve(wanted, tries=1)


class _Name:
    """One peer's endpoint by name."""

    def __init__(self, wanted: EndpointConfig, addresses: Sequence[Endpoint]) -> None:
        self.wanted = wanted
        self.addresses = list(addresses)
        self.has_worked = False
        self.unanswered = False
        self.next_look = float("-inf")
        self.pause = FIRST_PAUSE


class Endpoints:
    """The endpoints of one tunnel that are names.

    `look_up` gives the addresses of one, or raises ResolveError. `name_of` gives the friendly name
    of a peer by its key in base64.
    """

    def __init__(
        self,
        look_up: LookUp = _look_up_once,
        clock: Clock = boot_time,
        name_of: Callable[[str], str] = lambda key: "",
    ) -> None:
        self._look_up = look_up
        self._clock = clock
        self._name_of = name_of
        self._names: dict[PublicKey, _Name] = {}
        self._rings: dict[tuple[bytes, int], _Name] | None = None
        """The names by each of their addresses; None when it has to be built again."""
        self._due: set[PublicKey] = set()
        self._wake = trio.Event()

    async def update(
        self, peers: Iterable[PeerConfig], found: Mapping[PublicKey, Sequence[Endpoint]]
    ) -> None:
        """Know the names of these peers and no others. `found` holds those just looked up.

        One that has no address is looked up again by `run`, until it has.
        """
        names: dict[PublicKey, _Name] = {}
        pace = Pace()
        for peer in peers:
            await pace.step()
            wanted = peer.endpoint
            if wanted is None or wanted.address is not None:
                continue
            known = self._names.get(peer.public_key)
            if peer.public_key in found:
                names[peer.public_key] = _Name(wanted, found[peer.public_key])
            elif known is not None and known.wanted == wanted:
                names[peer.public_key] = known
            else:
                continue
            if not names[peer.public_key].addresses:
                self._look_up_soon(peer.public_key)
        self._names = names
        self._rings = None

    def set_by_hand(self, key: PublicKey, endpoint: Endpoint) -> None:
        """That peer's endpoint was set; its name is dropped unless it has that address."""
        name = self._names.get(key)
        if name is not None and not any(_same(endpoint, other) for other in name.addresses):
            self.forget(key)

    def forget(self, key: PublicKey) -> None:
        """That peer has no name now, for instance because it was removed."""
        if self._names.pop(key, None) is not None:
            self._rings = None

    def names(self) -> dict[PublicKey, EndpointConfig]:
        """The endpoints that are names, as the conf has them."""
        return {key: name.wanted for key, name in self._names.items()}

    def retry(self, endpoint: Endpoint) -> Endpoint:
        """The protocol's `retry_endpoint`: where to go on when `endpoint` did not answer."""
        bare = endpoint.without_source()
        name = self._ring_of(bare)
        if name is None:
            return bare
        if name.has_worked:
            name.has_worked = False
            return bare
        place = next(n for n, other in enumerate(name.addresses) if _same(other, bare))
        return name.addresses[(place + 1) % len(name.addresses)]

    def handle_event(self, event: Event) -> None:
        """Take note of how a handshake went. Never blocks and never raises."""
        if isinstance(event, HandshakeCompleted):
            name = self._names.get(event.public_key)
            if name is not None:
                name.has_worked = True
                name.unanswered = False
                name.pause = FIRST_PAUSE
        elif isinstance(event, HandshakeUnanswered | HandshakeFailed):
            key = event.public_key
            name = self._names.get(key)
            if name is not None:
                name.unanswered = True
                if self._clock() >= name.next_look:
                    self._pause(name)
                    self._look_up_soon(key)

    def _pause(self, name: _Name) -> float:
        """Let `name` rest after this look-up; for how many seconds."""
        pause = name.pause
        name.next_look = self._clock() + pause
        name.pause = min(pause * 2, LONGEST_PAUSE)
        return pause

    def _look_up_soon(self, key: PublicKey) -> None:
        self._due.add(key)
        self._wake.set()

    async def run(self, engine: Engine) -> None:
        """Look names up again as they fall due, until cancelled."""
        limit = trio.Semaphore(MAX_LOOKUPS)
        async with trio.open_nursery() as nursery:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._due:
                    await limit.acquire()
                    nursery.start_soon(self._renew, engine, self._due.pop(), limit, nursery)

    async def _renew(
        self, engine: Engine, key: PublicKey, limit: trio.Semaphore, nursery: trio.Nursery
    ) -> None:
        name = self._names.get(key)
        try:
            if name is None:
                return
            found = await self._look_up(name.wanted)
        except ResolveError as error:
            log.warning("%s", error)
            if name is not None and not name.addresses:
                # No handshake that goes unanswered will ask for it: there is nowhere to send one.
                nursery.start_soon(self._look_up_later, key, self._pause(name))
            return
        finally:
            limit.release()
        peer = engine.interface.peers.get(key)
        # It may have been removed, renamed or answered while we asked.
        if peer is None or self._names.get(key) is not name:
            return
        is_first = not name.addresses
        self._take_addresses(name, found)
        if name.unanswered or (is_first and peer.endpoint is None):
            self._lead_back(name, peer)
            engine.settle()

    async def _look_up_later(self, key: PublicKey, pause: float) -> None:
        await trio.sleep(pause)
        self._look_up_soon(key)

    def _take_addresses(self, name: _Name, found: Sequence[Endpoint]) -> None:
        if not _same_set(found, name.addresses):
            log.info("%s is now at %s", name.wanted.host, ", ".join(map(str, found)))
            self._rings = None
        name.addresses = list(found)

    def _lead_back(self, name: _Name, peer: Peer) -> None:
        """A peer that does not answer where it is, and is none of the name's: to the name's."""
        if peer.endpoint is None or not any(_same(peer.endpoint, e) for e in name.addresses):
            key = peer.public_key.to_base64()
            log.info("trying %s at %s", named(key, self._name_of(key)), name.addresses[0])
            name.has_worked = False
            peer.set_endpoint(name.addresses[0], self._clock())

    def _ring_of(self, endpoint: Endpoint) -> _Name | None:
        if self._rings is None:
            self._rings = {
                (address.address, address.port): name
                for name in self._names.values()
                for address in name.addresses
            }
        return self._rings.get((endpoint.address, endpoint.port))


def _same(one: Endpoint, other: Endpoint) -> bool:
    """Same address and port: a link-local's scope is known from the conf on one side only."""
    return one.address == other.address and one.port == other.port


def _same_set(one: Iterable[Endpoint], other: Iterable[Endpoint]) -> bool:
    return {(e.address, e.port) for e in one} == {(e.address, e.port) for e in other}
