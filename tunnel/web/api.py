"""What the page asks its server: one table of operations, served, and described as OpenAPI."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import trio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tunnel.control.messages import Message
from tunnel.errors import TunnelError
from tunnel.web import messages
from tunnel.web.errors import WebError
from tunnel.web.guard import host_of
from tunnel.web.hub import Hub
from tunnel.web.login import Attempts, PasswordFile, Sessions, WebSession, is_same
from tunnel.web.schema import read_untrusted, reference, schema_of

MAX_BODY: Final = 65536
"""Bytes of a request's body."""

PATIENCE: Final = 10.0
"""Seconds for a request's body to come."""


@dataclass(slots=True)
class WebCall:
    """One request: what it is about, who makes it, and the cookie that goes out with the answer."""

    path: dict[str, str]
    body: Any
    address: str
    token: str
    session: WebSession | None
    new_token: str | None = None


Handler = Callable[["Api", WebCall], Awaitable[Message | None]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked. Without `answer` there is no content.

    `is_public` needs no session; `failures` are what may come of it beside what any may refuse.
    """

    method: str
    path: str
    summary: str
    run: Handler
    body: type[Message] | None = None
    answer: type[Message] | None = None
    failures: tuple[int, ...] = ()
    is_public: bool = False


class Api:
    """The operations on a hub. Without `password`, everyone who comes as far is logged in."""

    def __init__(
        self,
        hub: Hub,
        password: PasswordFile | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hub = hub
        self._password = password
        self._clock = clock
        stamp = password.stamp if password else lambda: (0, 0)
        self._sessions = Sessions(stamp, clock)
        self._everyone = None if password else self._sessions.open()[1]
        self._attempts = Attempts(clock)
        self._hashing = trio.CapacityLimiter(2)
        # Cookies are the same at all ports of a host, where another hub may have its page.
        self.cookie = f"tunnel-{hub.name.replace('=', '_')}"

    def routes(self) -> list[Route]:
        """A route for each operation, and one for their description."""
        found = [
            Route(operation.path, self._answering(operation), methods=[operation.method])
            for operation in OPERATIONS
        ]
        described = description(self.cookie)

        async def describe(_: Request) -> Response:
            return JSONResponse(described)

        return [*found, Route("/api/openapi.json", describe)]

    def _answering(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                call = await self._admitted(operation, request)
                found = await operation.run(self, call)
            except WebError as error:
                return failure(error)
            except TunnelError as error:
                return failure(WebError(409, error.code, str(error)))
            response = Response(status_code=204) if found is None else JSONResponse(found.to_json())
            if call.new_token is not None:
                self._set_cookie(response, request, call.new_token)
            return response

        return answer

    async def _admitted(self, operation: Operation, request: Request) -> WebCall:
        """The call, if whoever makes it may. Raises WebError."""
        is_change = operation.method != "GET"
        if is_change:
            _check_origin(request)
        token = request.cookies.get(self.cookie, "")
        session = self._everyone or self._sessions.find(token)
        if not operation.is_public:
            if session is None:
                raise WebError(401, "login", "log in first")
            given = request.headers.get("x-csrf-token", "")
            if is_change and not is_same(given, session.csrf):
                raise WebError(403, "csrf", "this request does not come from the page: reload it")
        body = None
        if operation.body is not None:
            body = read_untrusted(operation.body, await _body(request))
        address = request.client.host if request.client else ""
        return WebCall(dict(request.path_params), body, address, token, session)

    def _set_cookie(self, response: Response, request: Request, token: str) -> None:
        # A proxy on this host is all that comes by a unix socket, and may say how it was asked.
        is_local = request.client is None or not request.client.host
        secure = is_local and request.headers.get("x-forwarded-proto") == "https"
        response.set_cookie(
            self.cookie,
            token,
            max_age=None if token else 0,
            httponly=True,
            samesite="strict",
            secure=secure,
        )

    def _info(self, session: WebSession) -> messages.SessionInfo:
        left = 0.0 if self._everyone else time.time() + session.until - self._clock()
        return messages.SessionInfo(session.csrf, left, self.hub.name)

    def _log(self, kind: str, peer: str, call: WebCall) -> None:
        self.hub.journal.add(messages.LogEntry(time.time(), kind, peer, call.address))

    async def log_in(self, call: WebCall) -> messages.SessionInfo:
        """Check the password."""
        if self._password is None:
            assert self._everyone is not None
            return self._info(self._everyone)
        self._attempts.take(call.address)
        is_right = await trio.to_thread.run_sync(
            self._password.check, call.body.password, limiter=self._hashing
        )
        if not is_right:
            self._log("login_refused", "", call)
            raise WebError(401, "password", "this is not the password")
        self._attempts.succeeded(call.address)
        self._sessions.close(call.token)
        call.new_token, session = self._sessions.open()
        self._log("login", "", call)
        return self._info(session)

    async def session(self, call: WebCall) -> messages.SessionInfo:
        """The session of the cookie."""
        assert call.session is not None
        return self._info(call.session)

    async def log_out(self, call: WebCall) -> None:
        """End the session of the cookie."""
        self._sessions.close(call.token)
        call.new_token = ""

    async def state(self, _: WebCall) -> messages.State:
        """The hub and its peers."""
        return await self.hub.state()

    async def traffic(self, _: WebCall) -> messages.Traffic:
        """The counters of the last minutes."""
        return await self.hub.traffic()

    async def log(self, _: WebCall) -> messages.Log:
        """The newest entries of the log."""
        return self.hub.journal.newest()

    async def add(self, call: WebCall) -> messages.Handout:
        """Add a peer."""
        handout = await self.hub.add(call.body)
        self._log("added", call.body.name, call)
        return handout

    async def change(self, call: WebCall) -> messages.Done:
        """Change a peer."""
        name, kinds, done = await self.hub.change(call.path["id"], call.body)
        for kind in kinds:
            self._log(kind, name, call)
        return done

    async def remove(self, call: WebCall) -> messages.Done:
        """Remove a peer."""
        name, done = await self.hub.remove(call.path["id"])
        self._log("removed", name, call)
        return done

    async def renew(self, call: WebCall) -> messages.Handout:
        """Give a peer new keys."""
        handout = await self.hub.renew(call.path["id"], call.body)
        self._log("new_keys", handout.name, call)
        return handout

    async def make_link(self, call: WebCall) -> messages.LinkMade:
        """Make a one-time link."""
        token, until, handout = self.hub.links.make(call.body.handout, call.body.seconds)
        self._log("link_made", handout.name, call)
        return messages.LinkMade(token, until)

    async def take_link(self, call: WebCall) -> messages.Handout:
        """Open a one-time link."""
        handout = self.hub.links.take(call.body.token)
        self._log("link_taken", handout.name, call)
        return handout


OPERATIONS: Final[Sequence[Operation]] = (
    Operation(
        "POST",
        "/api/login",
        "Log in",
        Api.log_in,
        body=messages.Password,
        answer=messages.SessionInfo,
        failures=(401, 429, 503),
        is_public=True,
    ),
    Operation("GET", "/api/session", "Who is logged in", Api.session, answer=messages.SessionInfo),
    Operation("POST", "/api/logout", "Log out", Api.log_out),
    Operation("GET", "/api/state", "The hub and its peers", Api.state, answer=messages.State),
    Operation(
        "GET",
        "/api/traffic",
        "The counters of the last minutes",
        Api.traffic,
        answer=messages.Traffic,
    ),
    Operation("GET", "/api/log", "Who connected when", Api.log, answer=messages.Log),
    Operation(
        "POST",
        "/api/peers",
        "Add a peer, and get its conf, which is shown only once",
        Api.add,
        body=messages.Wanted,
        answer=messages.Handout,
        failures=(409,),
    ),
    Operation(
        "PATCH",
        "/api/peers/{id}",
        "Rename, disable, enable or expire a peer",
        Api.change,
        body=messages.Changes,
        answer=messages.Done,
        failures=(404, 409),
    ),
    Operation(
        "DELETE",
        "/api/peers/{id}",
        "Remove a peer",
        Api.remove,
        answer=messages.Done,
        failures=(404, 409),
    ),
    Operation(
        "POST",
        "/api/peers/{id}/keys",
        "Give a peer new keys, and get its new conf; the old one is void",
        Api.renew,
        body=messages.Wanted,
        answer=messages.Handout,
        failures=(404, 409),
    ),
    Operation(
        "POST",
        "/api/links",
        "Make a one-time link to a conf that was just made",
        Api.make_link,
        body=messages.LinkRequest,
        answer=messages.LinkMade,
        failures=(410,),
    ),
    Operation(
        "POST",
        "/api/links/open",
        "Open a one-time link, which works once, without a login",
        Api.take_link,
        body=messages.LinkToken,
        answer=messages.Handout,
        failures=(410,),
        is_public=True,
    ),
)
"""All of them; the page uses no others."""

_ALWAYS = {
    400: "the body is not what is expected",
    401: "no one is logged in, or this is not the password",
    403: "the request does not come from the page, or not from a member",
    404: "there is no such peer",
    408: "the body did not come in time",
    409: "the conf or the tunnel refused it, and nothing was changed",
    410: "used, expired or withdrawn",
    413: "the body is too large",
    415: "the body is not application/json",
    421: "the page has another name than the Host header says",
    429: "too many tries; Retry-After says when to come back",
    503: "the file of the password cannot be used",
}


def description(cookie: str) -> dict[str, Any]:
    """The operations in OpenAPI 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    bodies: set[type[Message]] = {messages.Failure, messages.PeerView, messages.PeerTraffic}
    bodies.add(messages.LogEntry)
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
        bodies |= {each for each in (operation.body, operation.answer) if each is not None}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tunnel web",
            "version": "1",
            "description": "The peers of a hub. The page of `tunnel web` uses nothing else.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                each.__name__: schema_of(each)
                for each in sorted(bodies, key=lambda each: each.__name__)
            },
            "securitySchemes": {
                "session": {"type": "apiKey", "in": "cookie", "name": cookie},
                "csrf": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-CSRF-Token",
                    "description": "`csrf` of the session. Origin must be the page's own, too.",
                },
            },
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    is_change = operation.method != "GET"
    refusals = {421, *operation.failures}
    if is_change or not operation.is_public:
        refusals.add(403)
    if not operation.is_public:
        refusals.add(401)
    if operation.body is not None:
        refusals |= {400, 408, 413, 415}
    answers: dict[str, Any] = {"204": {"description": "done"}}
    if operation.answer is not None:
        content = {"application/json": {"schema": reference(operation.answer)}}
        answers = {"200": {"description": "done", "content": content}}
    for status in sorted(refusals):
        answers[str(status)] = {"description": _ALWAYS[status]}
        if status != 421:
            content = {"application/json": {"schema": reference(messages.Failure)}}
            answers[str(status)]["content"] = content
    found: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": operation.run.__name__,
        "responses": answers,
        "security": [],
    }
    if not operation.is_public:
        found["security"] = [{"session": [], **({"csrf": []} if is_change else {})}]
    if "{id}" in operation.path:
        schema = {"type": "string"}
        found["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": schema}]
    if operation.body is not None:
        content = {"application/json": {"schema": reference(operation.body)}}
        found["requestBody"] = {"required": True, "content": content}
    return found


def failure(error: WebError) -> Response:
    """A refusal as the page gets it."""
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else None
    body = messages.Failure(error.code, str(error)).to_json()
    return JSONResponse(body, error.status, headers=headers)


async def refused(_: Request, error: Exception) -> Response:
    """What starlette refuses, such as an unknown path, in the same form."""
    assert isinstance(error, HTTPException)
    return failure(WebError(error.status_code, "http", error.detail))


async def failed(_: Request, error: Exception) -> Response:
    """A defect: the log has its traceback."""
    return failure(WebError(500, "internal", f"this failed ({type(error).__name__}): see the log"))


def _check_origin(request: Request) -> None:
    """Refuse what another site made the browser send. Programs need not say an origin."""
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    own = request.headers.get("host", "").lower()
    if (origin is not None and origin.rpartition("//")[2].lower() != own) or (
        site not in ("same-origin", "none")
    ):
        raise WebError(403, "origin", f"{host_of(origin or site)} may not change anything here")


async def _body(request: Request) -> bytearray:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise WebError(415, "body", "the body must be application/json")
    data = bytearray()
    try:
        with trio.fail_after(PATIENCE):
            async with contextlib.aclosing(request.stream()) as pieces:
                async for piece in pieces:
                    data += piece
                    if len(data) > MAX_BODY:
                        raise WebError(413, "body", f"the body is larger than {MAX_BODY} bytes")
    except ClientDisconnect:
        raise WebError(400, "body", "the body was cut off") from None
    except trio.TooSlowError:
        raise WebError(408, "body", "the body did not come in time") from None
    return data
