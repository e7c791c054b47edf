"""Errors of the data path. Hostile bytes never raise any of these: they are counted as drops."""

from tunnel.datapath.drops import DatapathDrop
from tunnel.errors import TunnelError


class DatapathError(TunnelError):
    """Base of what this room raises on purpose."""

    code = "datapath"


class SessionExhausted(DatapathError):  # noqa: N818 - it names a state, not a mistake
    """The session has sealed all the messages its keys are good for.

    Remedy: a new handshake. Nothing was sealed and no frame was taken by the call that raised it.
    """

    code = "session_exhausted"


class UnknownDatapathError(DatapathError):
    """The datapath asked for by name does not exist or cannot be imported here."""

    code = "unknown_datapath"


class PacketRefusedError(DatapathError):
    """A packet or frame that is malformed; the sessions count it under `drop` and go on."""

    code = "packet_refused"

    def __init__(self, drop: DatapathDrop) -> None:
        super().__init__(drop.value)
        self.drop = drop
