"""The endpoints of a conf that are names, all looked up before the tunnel comes up."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import trio

from tunnel.config import EndpointConfig, PeerConfig, PublicKey
from tunnel.control.messages.sentences import some
from tunnel.device.resolve import NO_ANSWER, TRIES, ResolveError, resolve
from tunnel.errors import unwrapped
from tunnel.io.endpoint import Endpoint

log = logging.getLogger("tunnel")

BOUND = 60.0
"""Seconds that the names of a conf are tried for, however long a name server is silent."""

OTHERS_WAIT = 5.0
"""Seconds that a tunnel which could start waits for the names of further peers."""

SLOW = 2.0
"""Seconds after which the log says which name is waited for."""

MAX_LOOKUPS = 8
"""Names looked up at the same time; each takes a thread."""

Addresses = dict[PublicKey, list[Endpoint]]


async def resolve_all(
    peers: Iterable[PeerConfig], *, tries: int | None = TRIES, bound: float = BOUND
) -> Addresses:
    """All addresses of each peer that has an endpoint, many names at a time.

    Raises ResolveError for the first name that has none, after `tries` or `bound` seconds. When it
    takes long, the log says what is waited for.
    """
    look_ups = _LookUps(peers, tries, bound)
    with unwrapped(ResolveError):
        await look_ups.run(need_all=True)
    for error in look_ups.failed.values():
        raise error
    return look_ups.found


async def addresses_only(peers: Iterable[PeerConfig]) -> Addresses:
    """The endpoints that are addresses, without a look-up; one that is a name has an empty list."""
    with_endpoint = {peer.public_key: peer.endpoint for peer in peers if peer.endpoint}
    return {
        key: await resolve(endpoint) if endpoint.address is not None else []
        for key, endpoint in with_endpoint.items()
    }


async def resolve_some(peers: Iterable[PeerConfig]) -> Addresses:
    """`resolve_all` for a tunnel that can start without some of its endpoints.

    Raises ResolveError if no peer with an endpoint has an address. If only some have none, these
    get an empty list, and the log names them.
    """
    look_ups = _LookUps(peers, TRIES, BOUND)
    await look_ups.run(need_all=False)
    for error in look_ups.failed.values():
        if not look_ups.found:
            raise error
        log.warning("%s. The tunnel starts without this endpoint, and goes on trying", error)
    return look_ups.found | {key: [] for key in look_ups.failed}


class _LookUps:
    """The look-ups of one conf, and what has come of them."""

    def __init__(self, peers: Iterable[PeerConfig], tries: int | None, bound: float) -> None:
        self.found: Addresses = {}
        self.failed: dict[PublicKey, ResolveError] = {}
        self._wanted = {peer.public_key: peer.endpoint for peer in peers if peer.endpoint}
        self._causes: dict[PublicKey, str] = {}
        self._tries = tries
        self._bound = bound

    async def run(self, *, need_all: bool) -> None:
        """Look all names up. With `need_all`, the first that fails is raised."""
        left = iter(self._wanted.items())
        with trio.move_on_after(self._bound) as scope:

            async def one_by_one() -> None:
                for key, endpoint in left:
                    try:
                        await self._look_up(key, endpoint)
                    except ResolveError as error:
                        if need_all:
                            raise
                        self.failed[key] = error
                    else:
                        if not need_all:
                            enough = trio.current_time() + OTHERS_WAIT
                            scope.deadline = min(scope.deadline, enough)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._report_if_slow)
                async with trio.open_nursery() as workers:
                    for _ in range(min(MAX_LOOKUPS, len(self._wanted))):
                        workers.start_soon(one_by_one)
                nursery.cancel_scope.cancel()
        for key, endpoint in self._waiting().items():
            self.failed[key] = ResolveError(endpoint, self._causes.get(key, NO_ANSWER))

    async def _look_up(self, key: PublicKey, endpoint: EndpointConfig) -> None:
        def note(cause: str) -> None:
            self._causes[key] = cause

        self.found[key] = await resolve(endpoint, tries=self._tries, note=note)

    def _waiting(self) -> dict[PublicKey, EndpointConfig]:
        done = self.found.keys() | self.failed.keys()
        return {key: endpoint for key, endpoint in self._wanted.items() if key not in done}

    async def _report_if_slow(self) -> None:
        await trio.sleep(SLOW)
        waiting = self._waiting()
        causes = {self._causes.get(key, NO_ANSWER) for key in waiting}
        log.warning(
            "still looking up %s: %s; this is tried for %s before it fails",
            some(sorted({endpoint.host for endpoint in waiting.values()})),
            " / ".join(sorted(causes)),
            "a few seconds" if self._tries is not None and self._tries < TRIES else "a minute",
        )
