"""The exceptions of this room. Lost packets are not among them, but for `TunWriteDropped`."""

from tunnel.io.drops import Drop


class TunnelIOError(Exception):
    """Base of everything that `tunnel.io` raises."""


class TunError(TunnelIOError):
    """The TUN device cannot be opened, adopted or asked; the text names the remedy."""


class TunDeleted(TunError):  # noqa: N818 - an event more than a mistake
    """The device behind the descriptor is gone for good (EBADFD): time to leave."""


class TunWriteDropped(TunError):  # noqa: N818 - an event more than a mistake
    """The device refused one frame, which is lost and counted; the next may pass.

    `reason` is the `Drop` it was counted under.
    """

    def __init__(self, reason: Drop) -> None:
        super().__init__(reason.value)
        self.reason = reason


class UdpError(TunnelIOError):
    """The UDP sockets cannot be opened, bound or marked.

    `errno` is the kernel's error number (e.g. EADDRINUSE), for callers that pass it on.
    """

    def __init__(self, message: str, errno: int) -> None:
        super().__init__(message)
        self.errno = errno
