"""Finds the published test vectors, which are kept beside the project and not in it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[3].parent / "shared" / "vectors"


def load(name: str) -> Any:
    """Read a vector file, or skip the test, saying what is missing."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"test vectors not found: expected ../shared/vectors/{name}")
    return json.loads(path.read_text())


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
