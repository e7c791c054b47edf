"""What every request has to pass before it is looked at, and what every answer says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunnel.linux.networks import Network

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer that does not say otherwise."""


@dataclass(frozen=True)
class Access:
    """Who may ask: by which `names`, beside addresses and localhost, and from which `networks`.

    A browser that another site has led here by its own name (DNS rebinding) calls the page by that
    name, never by an address. `networks` gives those that a client must be in, None for any.
    """

    names: frozenset[str] = frozenset()
    networks: Callable[[], Awaitable[tuple[Network, ...]]] | None = None

    async def admits(self, client: str) -> bool:
        """Whether a client of that address may ask."""
        if self.networks is None:
            return True
        address = _address(client)
        return address is not None and any(address in each for each in await self.networks())

    def knows(self, host: str) -> bool:
        """Whether a Host header is one of this page."""
        name = host_of(host)
        return name == "localhost" or name in self.names or _address(name) is not None


def host_of(value: str) -> str:
    """The host of a Host header, or of an origin, in lower case and without a port."""
    host = value.rpartition("//")[2].lower()
    return host.partition("]")[0].removeprefix("[") if "[" in host else host.partition(":")[0]


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


class Guard:
    """Lets through what comes from a member, and to a name of ours; no WebSockets."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._app
        hosts = Headers(scope=scope).getlist("host")
        client = scope.get("client")
        if not await self._access.admits(client[0] if client else ""):
            answer = PlainTextResponse("only peers of this tunnel may use its page\n", 403)
        elif len(hosts) != 1 or not self._access.knows(hosts[0]):
            answer = PlainTextResponse(
                "the page is not open to this host name; tunnel web --host NAME allows it\n", 421
            )
        await answer(scope, receive, send_guarded)
