"""What the page is told when something is not done."""

from __future__ import annotations

from tunnel.errors import TunnelError


class WebError(TunnelError):
    """A request that is refused. `status` is that of HTTP, `code` one word, for the page."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after
