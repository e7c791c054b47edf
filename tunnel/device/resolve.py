"""Endpoints by name: what wg does before it configures a peer, without blocking anything."""

from __future__ import annotations

import socket
from typing import cast

import trio

from tunnel.config import EndpointConfig
from tunnel.errors import TunnelError
from tunnel.io.endpoint import Endpoint, SockAddr

TRIES = 15
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 20.0
"""Seconds; the pause grows by a fifth each time, as in wg."""

# gai_strerror's permanent ones: asking again gives the same answer.
_PERMANENT = frozenset({socket.EAI_NONAME, socket.EAI_FAIL, socket.EAI_FAMILY})


class ResolveError(TunnelError):
    """A host name of the conf has no address; the text names it and the remedy."""

    code = "name"


async def resolve(endpoint: EndpointConfig, *, tries: int = TRIES) -> list[Endpoint]:
    """All addresses of `endpoint`, in the order the system prefers; never empty.

    Temporary failures are tried again `tries` times in all. Raises ResolveError.
    """
    pause = FIRST_PAUSE
    for attempt in range(1, tries + 1):
        try:
            found = await trio.socket.getaddrinfo(
                endpoint.host, endpoint.port, type=socket.SOCK_DGRAM, proto=socket.IPPROTO_UDP
            )
        except OSError as error:
            final = isinstance(error, socket.gaierror) and error.errno in _PERMANENT
            if final or attempt == tries:
                raise ResolveError(
                    f"Endpoint = {endpoint}: {error.strerror}; "
                    "check the spelling and the name server, or write an address"
                ) from error
            await trio.sleep(pause)
            pause = min(pause * 1.2, LONGEST_PAUSE)
        else:
            # The third kind of address is that of a Python built without IPv6.
            endpoints = [Endpoint.from_sockaddr(cast(SockAddr, address)) for *_, address in found]
            return list(dict.fromkeys(endpoints))
    raise AssertionError("unreachable")
