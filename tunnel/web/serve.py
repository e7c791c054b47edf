"""The page as a server: where it listens, what it serves, and for how long."""

from __future__ import annotations

import logging
import signal
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tunnel.control.unix_socket import bind_unix_socket
from tunnel.errors import TunnelError
from tunnel.linux.files import state_folder
from tunnel.linux.ports import port_holder
from tunnel.web.api import Api, failed, refused
from tunnel.web.guard import Access, Guard
from tunnel.web.hub import Hub
from tunnel.web.journal import Journal
from tunnel.web.login import PasswordFile

PORT: Final = 51821
"""Of the page, if none is given."""

STATE: Final = Path("/var/lib/tunnel/web")
"""Where the log of each page is."""

_FRONT: Final = Path(__file__).parent / "front"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}

_IP_FREEBIND, _IPV6_FREEBIND = 15, 78
"""linux/in.h, linux/in6.h"""

_UNREAD: Final = 20_000
"""Milliseconds after which a client that takes nothing loses its connection."""

_log = logging.getLogger(__name__)


class WebServerError(TunnelError):
    """The page cannot be served; the text says why and what to do."""

    code = "web"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the page is served: at `path` a unix socket, or at an address and a port."""

    path: Path | None = None
    address: IPv4Address | IPv6Address | None = None
    port: int = PORT

    @classmethod
    def parse(cls, text: str) -> Listen:
        """From unix:PATH, ADDRESS or ADDRESS:PORT. Raises WebServerError."""
        if text.startswith("unix:"):
            path = Path(text.removeprefix("unix:"))
            if not path.is_absolute():
                raise WebServerError(f"{text}: the path of the socket must begin with /")
            return cls(path=path)
        host, port = text, str(PORT)
        if text.count(":") == 1 or "]:" in text:
            host, _, port = text.rpartition(":")
        try:
            address = ip_address(host.removeprefix("[").removesuffix("]"))
            number = int(port)
            if not 0 < number < 65536:
                raise ValueError
        except ValueError:
            raise WebServerError(
                f"{text} is no place to listen: write ADDRESS, ADDRESS:PORT or unix:PATH"
            ) from None
        return cls(address=address, port=number)

    def __str__(self) -> str:
        """As a URL, as far as there is one."""
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.address}]" if isinstance(self.address, IPv6Address) else self.address
        return f"http://{host}:{self.port}/"

    def open(self, *, may_come: bool = False) -> socket.socket:
        """A socket that listens there. Raises WebServerError.

        With `may_come` the address need not be there yet, as that of a tunnel, and may go and come.
        """
        try:
            if self.path is not None:
                return bind_unix_socket(self.path)
            is_v6 = isinstance(self.address, IPv6Address)
            listener = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if is_v6:
                    listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, may_come)
                else:
                    listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, may_come)
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD)
                listener.bind((str(self.address), self.port))
                listener.listen(100)
            except BaseException:
                listener.close()
                raise
        except OSError as error:
            holder = port_holder(self.port, "tcp") if self.path is None else ""
            held = f", which {holder} has" if holder else ""
            raise WebServerError(f"cannot listen on {self}{held}: {error.strerror}") from None
        return listener


@dataclass(frozen=True, slots=True)
class Page:
    """A page to serve. `names` are hosts it may be called by, beside its addresses and localhost.

    `is_own` says whether it listens at an address of the tunnel. With `members_only`, only clients
    with an address of the tunnel are answered: others reach that one, too, as Linux answers on each
    interface for all its addresses.
    """

    conf: Path
    listen: Listen
    names: frozenset[str] = frozenset()
    is_own: bool = True
    members_only: bool = True
    has_login: bool = True


def application(api: Api, access: Access) -> Guard:
    """The ASGI application of a page."""
    front = [_file(path) for path in sorted(_FRONT.iterdir()) if path.suffix in _TYPES]
    app = Starlette(
        routes=[*api.routes(), *front],
        exception_handlers={HTTPException: refused, Exception: failed},
    )
    return Guard(app, access)


def _file(path: Path) -> Route:
    content = path.read_bytes()

    async def answer(_: Request) -> Response:
        headers = {"Cache-Control": "no-cache"}
        return Response(content, media_type=_TYPES[path.suffix], headers=headers)

    return Route("/" if path.name == "index.html" else f"/{path.name}", answer)


async def run(page: Page) -> None:
    """Serve a page until SIGINT or SIGTERM. Raises WebServerError."""
    password = PasswordFile(page.conf) if page.has_login else None
    state = state_folder(STATE)
    name = page.conf.name.removesuffix(".conf")
    hub = Hub(page.conf, Journal(state / f"{name}.log"))
    access = Access(page.names, hub.networks if page.members_only else None)
    app = application(Api(hub, password), access)
    listener = page.listen.open(may_come=page.is_own)
    config = Config()
    # Hypercorn closes its own copy.
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = logging.getLogger("hypercorn.error")
    config.errorlog.setLevel(logging.WARNING)
    config.include_server_header = False
    config.read_timeout = 60
    config.graceful_timeout = 1.0
    _log.info("the page of %s is at %s", name, page.listen)
    try:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hub.watch)
                await serve(app, config, shutdown_trigger=signals.__anext__)  # type: ignore[arg-type]
                nursery.cancel_scope.cancel()
    finally:
        if page.listen.path is not None:
            page.listen.path.unlink(missing_ok=True)
