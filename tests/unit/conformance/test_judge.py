"""The judge judged: our engine keeps every rule in virtual time, and each rule can be broken."""

from __future__ import annotations

import pytest

from tests.conformance import cases as cases
from tests.conformance.case import CASES, Case, Verdict
from tests.support.conforming import judge_engine
from tests.support.mutants import MUTANTS

ALL = [pytest.param(case, id=case.id) for case in CASES.values()]


@pytest.mark.parametrize("case", ALL)
def test_our_engine_keeps_the_rule(case: Case) -> None:
    (result,) = judge_engine([case])
    assert result.verdict is Verdict.PASS, result.evidence


@pytest.mark.parametrize("case", ALL)
def test_a_broken_rule_is_found(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[case.id](monkeypatch)
    (result,) = judge_engine([case])
    assert result.verdict is Verdict.FAIL, result.evidence


def test_there_is_a_mutant_for_each_case_and_no_other() -> None:
    assert set(MUTANTS) == set(CASES)
