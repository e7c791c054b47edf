"""Reads the published test vectors in tests/vectors (SOURCES.md there names their sources)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "vectors"


def load(name: str) -> Any:
    """Return a vector file's decoded JSON document."""
    return json.loads((FOLDER / name).read_text())


@dataclass(frozen=True)
class Case:
    """One case of a wycheproof file, with its group's settings."""

    number: int
    result: str
    flags: frozenset[str]
    fields: dict[str, Any]

    def __getitem__(self, name: str) -> bytes:
        return bytes.fromhex(self.fields[name])

    def __str__(self) -> str:
        return f"tcId {self.number} ({self.result}, {', '.join(sorted(self.flags))})"


def wycheproof(name: str) -> list[Case]:
    """Return all cases of a file; fails if the file holds another number than it says."""
    document = load(name)
    cases = [
        Case(test["tcId"], test["result"], frozenset(test["flags"]), test)
        for group in document["testGroups"]
        for test in group["tests"]
    ]
    assert len(cases) == document["numberOfTests"]
    return cases
