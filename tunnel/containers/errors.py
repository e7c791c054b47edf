"""The errors of this room."""

from __future__ import annotations

from tunnel.errors import DaemonError


class ContainerError(DaemonError):
    """A namespace, or what should be in it, could not be set up; the text says what to do."""
