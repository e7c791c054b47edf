"""Endpoints by name: what wg does before it configures a peer, without blocking anything."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any, Final

import trio

from tunnel.config import EndpointConfig
from tunnel.config.values import is_of_one_host
from tunnel.errors import TunnelError
from tunnel.io.endpoint import Endpoint

TRIES = 15
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 20.0
"""Seconds; the pause grows by a fifth each time, as in wg."""

MAX_ADDRESSES = 64
"""Addresses of a name that are used, as each is tried for seconds; an answer may have thousands."""

NO_ANSWER: Final = "no name server has answered yet"

_TEMPORARY: Final = "no name server can be reached, or it has no answer for the moment (SERVFAIL)"

_NO_HOST: Final = "the answer has no address that a host can have: a name server may block the name"

# The permanent ones, where asking again gives the same answer: wg's, and an address of another
# family only. Not every system has all of them.
_PERMANENT: Final = {
    getattr(socket, name): cause
    for name, cause in (
        ("EAI_NONAME", "there is no such name (check the spelling)"),
        ("EAI_NODATA", "the name is known, but has no address: neither an A nor an AAAA record"),
        ("EAI_ADDRFAMILY", "the name has no address of a family that this host has"),
        ("EAI_FAIL", "the name server has refused or failed for good"),
        ("EAI_FAMILY", "this host has no network of that kind"),
    )
    if hasattr(socket, name)
}


class ResolveError(TunnelError):
    """A host name of the conf has no address; the text names it and the remedy."""

    code = "name"

    def __init__(self, endpoint: EndpointConfig, cause: str) -> None:
        super().__init__(
            f"Endpoint = {endpoint}: {cause}; correct the name or the name server, or write an "
            "address"
        )


def cause_of(error: OSError) -> str:
    """Why a look-up failed, in words."""
    if isinstance(error, socket.gaierror):
        return _PERMANENT.get(error.errno, _TEMPORARY)
    return error.strerror or str(error)


async def resolve(
    endpoint: EndpointConfig,
    *,
    tries: int | None = TRIES,
    note: Callable[[str], None] = lambda cause: None,
) -> list[Endpoint]:
    """The addresses of `endpoint`, in the order the system prefers: at least one, and at most
    `MAX_ADDRESSES`.

    Temporary failures are tried again, `tries` times in all (None: for ever); `note` gets the cause
    of each. Raises ResolveError.
    """
    pause = FIRST_PAUSE
    attempt = 0
    while True:
        attempt += 1
        try:
            found = await trio.socket.getaddrinfo(
                endpoint.host, endpoint.port, type=socket.SOCK_DGRAM, proto=socket.IPPROTO_UDP
            )
        except OSError as error:
            cause = cause_of(error)
            note(cause)
            final = isinstance(error, socket.gaierror) and error.errno in _PERMANENT
            if final or attempt == tries:
                raise ResolveError(endpoint, cause) from error
            await trio.sleep(pause)
            pause = min(pause * 1.2, LONGEST_PAUSE)
        else:
            endpoints = endpoints_untrusted(found)
            if not endpoints:
                note(_NO_HOST)
                raise ResolveError(endpoint, _NO_HOST)
            return endpoints


def endpoints_untrusted(found: Iterable[tuple[Any, ...]]) -> list[Endpoint]:
    """What getaddrinfo has found, each address once, at most `MAX_ADDRESSES`.

    Addresses that no host can have are left out: 0.0.0.0 and ::, which name servers give for a name
    that they block, multicast, and broadcast. So is IPv6 in the form of a Python built without it.
    """
    endpoints: dict[Endpoint, None] = {}
    for *_, address in found:
        if not isinstance(address[0], str):
            continue
        try:
            endpoint = Endpoint.from_sockaddr(address)
        except ValueError:
            continue
        if is_of_one_host(ip_address(endpoint.address)):
            endpoints[endpoint] = None
        if len(endpoints) == MAX_ADDRESSES:
            break
    return list(endpoints)
