"""What a case is: a rule, where it stands, what is sent, what must come of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from .bench import Bench

Scenario = Callable[[Bench], Awaitable[None]]

QUICK = 30.0
"""Seconds; a case that takes longer is left out by --quick."""


class Verdict(Enum):
    """What came of a case."""

    PASS = "pass"
    FAIL = "fail"
    NOT_APPLICABLE = "not applicable"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Case:
    """`seconds` is how long it takes with an implementation that keeps the rule."""

    id: str
    rule: str
    source: str
    sends: str
    expects: str
    seconds: float
    scenario: Scenario

    @property
    def quick(self) -> bool:
        return self.seconds < QUICK


@dataclass(frozen=True)
class Result:
    """A verdict, what it rests on, and the seconds it took."""

    case: Case
    verdict: Verdict
    evidence: str
    seconds: float = 0.0


CASES: dict[str, Case] = {}
"""All cases by their IDs, in the order in which the modules of `cases` declare them."""


def case(
    id_: str, *, rule: str, source: str, sends: str, expects: str, seconds: float = 2.0
) -> Callable[[Scenario], Scenario]:
    """Declare a scenario as a case. It raises `BrokenRuleError` if the rule is broken."""

    def declare(scenario: Scenario) -> Scenario:
        if id_ in CASES:
            raise ValueError(f"two cases are called {id_}")
        CASES[id_] = Case(id_, rule, source, sends, expects, seconds, scenario)
        return scenario

    return declare
