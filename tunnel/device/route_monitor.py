"""Follow the routes to the peers: where one moves, our address that went with it is let go.

A reply carries the address that the peer has reached (see `tunnel.io.endpoint.Source`). When a
cable is plugged in, a better route appears or an address moves to another machine, that address may
lead nowhere any more: the kernel then chooses one that fits the new route, the peer sees from where
we send, and answers there. Datagrams that were on their way meanwhile would pin the old address
again, and the two sides could follow each other for ever; so none is learnt from them for a while.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterable

import trio

from tunnel.control.timeslice import Pace
from tunnel.engine import Engine, Peer
from tunnel.host.errors import HostError
from tunnel.host.route_messages import LOCAL, look_up
from tunnel.host.route_watch import RouteWatch
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import Event, HandshakeCompleted, LocalAddressChanged, PeerRoamed

log = logging.getLogger("tunnel")

SETTLE = 0.05
"""Seconds from the first change to the look at the routes: changes come in groups."""

SHARE = 20
"""A look takes at most one part in so many of the time while changes go on."""

LEFT_OPEN = 5.0
"""Seconds for which no source is learnt from datagrams to an address that was let go. A peer that
hears us has moved along by then. One that does not, begins a handshake (Rekey-Timeout), and gets
its answer from the address it asked."""

_Way = tuple[bytes, bytes, int]
"""Address of the peer, our own, and the interface of a link-local one."""

_Interfaces = tuple[int, ...]
"""Those that a route leads to; none where there is no route."""


class RouteMonitor:
    """What is known of the routes to the peers of `engine`; `run` follows them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._routes: dict[_Way, _Interfaces] = {}
        self._left_open: dict[tuple[bytes, bytes], float] = {}
        self._was_let_go = trio.Event()
        self._interfaces: dict[int, str] = {}
        self._new: set[Peer] = set()
        self._wake = trio.Event()

    def handle_event(self, event: Event) -> None:
        """Take note of where a peer is. Never blocks and never raises."""
        if isinstance(event, HandshakeCompleted | PeerRoamed | LocalAddressChanged):
            peer = self._engine.interface.peers.get(event.public_key)
            if peer is not None:
                self._new.add(peer)
                self._wake.set()

    async def run(self) -> None:
        """Follow the routes until cancelled."""
        try:
            with RouteWatch() as watch:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._learn)
                    nursery.start_soon(self._forget)
                    await self._follow(watch)
        except* HostError as errors:
            log.warning("changes of routes are not followed: %s", errors.exceptions[0])

    async def _learn(self) -> None:
        """Know the route to each peer from when it was heard on."""
        pace = Pace()
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._new:
                endpoint = self._in_scope(self._new.pop())
                way = _way(endpoint)
                if endpoint is not None and way is not None and way not in self._routes:
                    self._routes[way] = self._look_up(endpoint)
                await pace.step()

    async def _follow(self, watch: RouteWatch) -> None:
        await self._compare()
        while True:
            await watch.changed(SETTLE)
            begin = trio.current_time()
            await self._compare()
            await trio.sleep(SHARE * (trio.current_time() - begin))

    async def _compare(self) -> None:
        pace = Pace()
        known = set(self._routes)
        routes: dict[_Way, _Interfaces] = {}
        holders: dict[bytes, int] = {}
        moved: list[Peer] = []
        for peer in list(self._engine.interface.peers.values()):
            endpoint = self._in_scope(peer)
            way = _way(endpoint)
            if endpoint is None or way is None or endpoint.source is None:
                continue
            source = endpoint.source.address
            if source not in holders:
                holders[source] = _holder(source, endpoint.source.ifindex)
            holder = holders[source]
            route = routes[way] if way in routes else self._look_up(endpoint)
            before = self._routes.get(way, route)
            # An address of another interface than the route's, such as lo, is there for any route.
            if not holder or (route != before and holder in before):
                moved.append(peer)
            else:
                routes[way] = route
            await pace.step()
        # Those of peers that were heard on meanwhile are there, too.
        for way, route in self._routes.items():
            if way not in known:
                routes[way] = route
        self._routes = routes
        await self._let_go(moved, pace)

    def _in_scope(self, peer: Peer) -> Endpoint | None:
        """The endpoint of `peer`; of a link-local one, with the number that its interface has now.

        A card that was unplugged comes back under its name, and with another number.
        """
        endpoint = peer.endpoint
        if endpoint is None or not endpoint.scope_id:
            return endpoint
        scope = endpoint.scope_id
        with contextlib.suppress(OSError):
            self._interfaces[scope] = socket.if_indextoname(scope)
            return endpoint
        with contextlib.suppress(OSError):
            scope = socket.if_nametoindex(self._interfaces.get(scope, ""))
            endpoint = Endpoint(endpoint.address, endpoint.port, scope)
            peer.set_endpoint(endpoint)
            log.info("the interface of a peer is back: its endpoint is %s", endpoint)
        return endpoint

    async def _let_go(self, moved: Iterable[Peer], pace: Pace) -> None:
        now = self._engine.clock()
        peers = []
        for peer in moved:
            endpoint = peer.endpoint
            if endpoint is None or endpoint.source is None:
                continue
            self._left_open[endpoint.address, endpoint.source.address] = now + LEFT_OPEN
            log.info("the route to %s has moved", endpoint)
            peers.append(peer)
        if not peers:
            return
        # Before anything is sent: the answer may come within the call.
        self._publish()
        self._was_let_go.set()
        for peer in peers:
            if peer.endpoint is not None:
                peer.set_endpoint(peer.endpoint.without_source())
                peer.announce(now)
                self._engine.settle()
            await pace.step()

    async def _forget(self) -> None:
        """Learn sources again where the time is over."""
        while True:
            await self._was_let_go.wait()
            self._was_let_go = trio.Event()
            while self._left_open:
                now = self._engine.clock()
                await trio.sleep(max(0.0, min(self._left_open.values()) - now))
                now = self._engine.clock()
                self._left_open = {
                    pair: until for pair, until in self._left_open.items() if until > now
                }
                self._publish()

    def _publish(self) -> None:
        self._engine.udp.leave_source_open(frozenset(self._left_open))

    def _look_up(self, endpoint: Endpoint) -> _Interfaces:
        source = b"" if endpoint.source is None else endpoint.source.address
        mark = self._engine.udp.fwmark
        try:
            device = endpoint.scope_id
            return look_up(endpoint.address, source=source, mark=mark, device=device).devices
        except OSError:
            return ()


def _holder(address: bytes, device: int) -> int:
    """The interface that has `address`; 0 if none of ours has."""
    try:
        found = look_up(address, device=device, as_stored=True)
    except OSError:
        return 0
    return found.devices[0] if found.type == LOCAL and found.devices else 0


def _way(endpoint: Endpoint | None) -> _Way | None:
    if endpoint is None or endpoint.source is None:
        return None
    return endpoint.address, endpoint.source.address, endpoint.scope_id
