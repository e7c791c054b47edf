"""One difference between a running tunnel and its conf, as `tunnel diff` and reload tell it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

Sign = Literal["+", "-", "~"]


@dataclass(frozen=True, slots=True)
class Change:
    """`sign` is + for what is added, - for what is removed, ~ for what becomes another.

    `subject` names the object ("peer …", "route 10.0.0.0/8"), `detail` what of it changes, in
    words; both are fit for a terminal and hold no secret.
    """

    sign: Sign
    subject: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.sign} {self.subject}" + (f": {self.detail}" if self.detail else "")

    def to_json(self) -> dict[str, Any]:
        """The change as JSON-ready types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(data["sign"], str(data["subject"]), str(data.get("detail", "")))
