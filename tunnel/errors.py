"""What a user can mend when a tunnel does not come up, go down or change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tunnel.config import ConfigErrors
from tunnel.device.resolve import ResolveError
from tunnel.host import HostError
from tunnel.io.errors import TunnelIOError


class DaemonError(Exception):
    """The tunnel could not be set up, changed or taken down; the text says why and what to do."""


class AlreadyRunningError(DaemonError):
    """A daemon for this interface runs already."""


SETUP_ERRORS = (ConfigErrors, DaemonError, HostError, ResolveError, TunnelIOError)
"""What `Daemon.run` and its preparation may raise for reasons a user can mend."""


@contextlib.contextmanager
def unwrapped(*kinds: type[Exception]) -> Iterator[None]:
    """Let the first exception of `kinds` out of the group that a nursery wraps it in.

    A group that holds anything else too is left as it is: that is a defect, to be seen whole.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        # Not `except*`: what is raised in there comes out wrapped again in Python up to 3.11.3.
        found, others = group.split(kinds)
        if found is None or others is not None:
            raise
        raise _first(found) from None


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
