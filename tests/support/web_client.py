"""The page's application, asked in this process as by a browser."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import trio
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from tunnel.web.api import Api
from tunnel.web.guard import Access
from tunnel.web.hub import Hub
from tunnel.web.journal import Journal
from tunnel.web.login import PasswordFile
from tunnel.web.serve import application

PASSWORD = "correct horse battery"
ORIGIN = "http://10.9.0.1:51821"

HUB = """\
[Interface]
# endpoint = vpn.example.com:51820
PrivateKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=
Address = 10.9.0.1/24
ListenPort = 51820

[Peer]
# friendly_name = desk
PublicKey = zo060OyViEs9zwR0WtFqrd7GlR7I4d9vJ0sMlzuVaQQ=
AllowedIPs = 10.9.0.2/32
"""


CHEAP = {"n": 2, "r": 8, "p": 1}
"""Of scrypt: what matters in a test is not how long it takes."""

SALT = bytes(16)
DIGEST = Scrypt(salt=SALT, length=32, **CHEAP).derive(PASSWORD.encode())
STORED = {**CHEAP, "salt": b64encode(SALT).decode(), "hash": b64encode(DIGEST).decode()}


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Site:
    """A page of a conf, and one browser."""

    hub: Hub
    clock: Clock
    http: httpx.AsyncClient
    csrf: str = ""

    async def ask(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> httpx.Response:
        """Ask as the page does; headers are given with _ for -, and one that is empty is left
        out.
        """
        said: dict[str, str] = {}
        if method != "GET":
            said = {"origin": ORIGIN, "x-csrf-token": self.csrf}
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        said = {name: value for name, value in said.items() if value}
        content: Any = {} if body is None else {"json": body}
        return await self.http.request(method, path, headers=said, **content)

    async def log_in(self) -> None:
        """Log in."""
        answer = await self.ask("POST", "/api/login", {"password": PASSWORD})
        assert answer.status_code == 200, answer.text
        self.csrf = answer.json()["csrf"]


def browse(
    folder: Path,
    visit: Callable[[Site], Awaitable[None]],
    *,
    access: Access | None = None,
    has_login: bool = True,
    client: str = "10.9.0.2",
) -> None:
    """Let a browser with that address visit the page of a hub, which does not run."""
    conf = folder / "no-such-tunl.conf"
    if not conf.exists():
        conf.write_text(HUB)
        conf.chmod(0o600)
    password = PasswordFile(conf)
    if not password.is_there():
        password.path.write_text(json.dumps({"scrypt": STORED}))

    async def main() -> None:
        clock = Clock()
        hub = Hub(conf, Journal(folder / "state" / "log"))
        api = Api(hub, password if has_login else None, clock=clock)
        app = application(api, access or Access(networks=hub.networks))
        transport = httpx.ASGITransport(app=app, client=(client, 4000))
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as http:
            await visit(Site(hub, clock, http))

    trio.run(main)
