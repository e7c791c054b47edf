"""The errors of CNI, by their numbers in the specification."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from tunnel.containers.errors import ContainerError


class CniCode(IntEnum):
    """Error codes: those of the specification, and from 100 on our own."""

    INCOMPATIBLE_VERSION = 1
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    UNDECODABLE = 6
    INVALID_CONFIG = 7
    TRY_AGAIN = 11
    NOT_AVAILABLE = 50
    """STATUS: ADD would fail."""
    HOST = 100
    """This host could not be set up."""
    IPAM = 101
    """The IPAM plugin cannot be run, or its answer cannot be read."""
    MISSING = 102
    """CHECK: something that ADD has made is not as it was."""


class CniError(ContainerError):
    """What is reported to the container runtime."""

    def __init__(self, number: int, message: str, details: str = "") -> None:
        super().__init__(f"{message} ({details})" if details else message)
        self.number = number
        self.message = message
        self.details = details

    def report(self, version: str) -> dict[str, Any]:
        """The error as the specification has it."""
        found: dict[str, Any] = {
            "cniVersion": version,
            "code": int(self.number),
            "msg": self.message,
        }
        return found | ({"details": self.details} if self.details else {})
