"""tunnel's own control socket: one JSON object per line over a unix stream socket, root only.

Request     {"v": 1, "id": 7, "method": "status", "params": {…}}
Reply       {"v": 1, "id": 7, "result": …}
Refusal     {"v": 1, "id": 7, "error": {"code": "unknown_method", "message": "…"}}

A connection may carry any number of requests, answered in order, until one asks for a stream:

Stream      {"v": 1, "id": 7, "result": {"streaming": true}}
            {"v": 1, "id": 7, "event": {…}}

From then on it carries nothing but that stream; one that fails ends with an `error`. A request
whose client has closed the connection before its turn came is not carried out. Protocol version 1;
a request of another version is refused with the code `version`. A request is at most
1 MiB, an answer as long as it has to be. docs/control.md describes the methods.
"""

from __future__ import annotations

from tunnel.errors import TunnelError

VERSION = 1


class ControlError(TunnelError):
    """A control request that could not be answered. `code` is one word for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
