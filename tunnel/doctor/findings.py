"""What the doctor says: findings with evidence and remedy, and the report they make up."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

STAYS_SYSCTL = "   # to stay: a line in /etc/sysctl.d"
"""Behind a remedy that sets a sysctl, which lasts until the machine is restarted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    `code` is one word for programs, and stays the same from version to version. `what` says what
    is wrong, `evidence` what shows it, `remedy` the command that fixes it, or what to do
    where no command on this host can. `peer` is the public key of the peer that it concerns, None
    if it concerns the whole tunnel, and `name` its friendly name, if it has one.
    """

    code: str
    what: str
    evidence: str
    remedy: str
    peer: str | None = None
    name: str = ""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Finding:
        """The reverse of `asdict`."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found of one tunnel.

    `findings` are faults. `notes` are what may be intended. `in_use` names what the tunnel runs
    with (datapath, offloads); `skipped` says what could not be looked at, and why.
    """

    interface: str
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...] = ()
    in_use: dict[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether there is no fault."""
        return not self.findings

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Report:
        """The reverse of `to_json`."""
        return cls(
            data["interface"],
            tuple(map(Finding.from_json, data["findings"])),
            tuple(map(Finding.from_json, data["notes"])),
            data["in_use"],
            tuple(data["skipped"]),
        )

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-ready types."""
        return {"healthy": self.healthy, **asdict(self)}
