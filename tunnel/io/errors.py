"""The exceptions of this room. Lost packets are not among them, but for `TunWriteDropped`."""

from tunnel.errors import TunnelError
from tunnel.io.drops import IoDrop


class TunnelIOError(TunnelError):
    """Base of everything that `tunnel.io` raises."""

    code = "io"


class TunError(TunnelIOError):
    """The TUN device cannot be opened, adopted or asked; the text names the remedy."""

    code = "tun"


class TunDeleted(TunError):  # noqa: N818 - an event more than a mistake
    """The device behind the descriptor is gone for good (EBADFD): time to leave."""

    code = "tun_deleted"


class TunWriteDropped(TunError):  # noqa: N818 - an event more than a mistake
    """The device refused one frame, which is lost and counted; the next may pass.

    `reason` is the `IoDrop` it was counted under.
    """

    code = "tun_write_dropped"

    def __init__(self, reason: IoDrop) -> None:
        super().__init__(reason.value)
        self.reason = reason


class TunMergeRefused(TunError):  # noqa: N818 - an event more than a mistake
    """The device refused a frame of several packets, which is not counted: write each by itself."""

    code = "tun_merge_refused"


class UdpError(TunnelIOError):
    """The UDP sockets cannot be opened, bound or marked.

    `errno` is the kernel's error number (e.g. EADDRINUSE), for callers that pass it on, `reason`
    what went wrong and `remedy` what a person can do about it; the text is both.
    """

    code = "udp"

    def __init__(self, reason: str, errno: int, remedy: str = "") -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.reason = reason
        self.remedy = remedy
        self.errno = errno
