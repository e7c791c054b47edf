"""The lab's one exception family."""

from __future__ import annotations

from tunnel.errors import TunnelError


class LabError(TunnelError):
    """Something in a lab failed; the text says what, and what a program printed about it."""

    code = "lab"


class LabTimeoutError(LabError):
    """A program or an awaited event took longer than its bound."""

    code = "lab_timeout"


class LabUnavailableError(LabError):
    """This machine (or this user) cannot build a lab.

    `remedy` is the command or the step that fixes it.
    """

    code = "lab_unavailable"

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}\n  remedy: {remedy}")
        self.problem = problem
        self.remedy = remedy
