"""The one root of our exceptions, and the errors that belong to no single room.

`crypto` has a root of its own (`CryptoError`): it depends on nothing here, and none of its
exceptions leaves `protocol` and `config`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class TunnelError(Exception):
    """Everything that this package raises on purpose.

    `str()` is for people: what failed and what to do about it. `code` is one word for programs; it
    is part of the control protocol and stays as it is when a class gets another name.
    """

    code = "refused"


class DaemonError(TunnelError):
    """The tunnel could not be set up, changed or taken down; the text says why and what to do."""

    code = "state"


class AlreadyRunningError(DaemonError):
    """A daemon for this interface runs already."""

    code = "already_running"


def with_notes(error: object) -> str:
    """The text of an error and its notes, for one who may read both; or a text as it is."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


@contextlib.contextmanager
def unwrapped(*kinds: type[BaseException]) -> Iterator[None]:
    """Let the first exception of `kinds` out of the group that a nursery wraps it in.

    Without `kinds` that is the first TunnelError.

    A group that holds anything else too is left as it is: that is a defect, to be seen whole.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        # Not `except*`: what is raised in there comes out wrapped again in Python up to 3.11.3.
        found, others = group.split(kinds or TunnelError)
        if found is None or others is not None:
            raise
        raise _first(found) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
