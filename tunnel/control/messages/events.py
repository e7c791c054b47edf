"""What happened to a running tunnel, as subscribers get it: the same for Python and for JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class TunnelEvent:
    """One event. `time` is Unix time in seconds.

    `type` is one of those that docs/control.md lists (`handshake`, `roamed`, `drops`, `reload`,
    `down`, …), `details` what it says there, as JSON-ready types.
    """

    type: str
    time: float
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The event as JSON-ready types, the details beside type and time."""
        return {"type": self.type, "time": self.time, **self.details}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        details = {key: value for key, value in data.items() if key not in ("type", "time")}
        return cls(str(data["type"]), float(data["time"]), details)
