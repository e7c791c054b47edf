"""The judge judged: our engine keeps every rule in virtual time, and each rule can be broken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.conformance import cases as cases
from tests.conformance.bench import Bench, BrokenRuleError, NotApplicableError
from tests.conformance.case import CASES, Case, Result, Verdict
from tests.conformance.judge import GRACE, Judge
from tests.conformance.subject import SubjectError
from tests.support.conforming import EngineSubject, judge_engine
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


def judge(
    scenario: Callable[[Bench, int], Awaitable[None]],
    *,
    seconds: float = 1.0,
    starts: bool = True,
    ends_at: float = float("inf"),
) -> tuple[Result, int]:
    """What becomes of a case whose scenario gets the number of the attempt; and how many began."""
    begun = 0

    class Mortal(EngineSubject):
        def check(self) -> None:
            if trio.current_time() >= ends_at:
                raise SubjectError("it has ended")

    @asynccontextmanager
    async def make_subject(number: int) -> AsyncIterator[EngineSubject]:
        if not starts:
            raise SubjectError("it does not start")
        subject = Mortal()
        async with trio.open_nursery() as nursery:
            await nursery.start(subject.engine.run)
            yield subject
            nursery.cancel_scope.cancel()

    async def counted(bench: Bench) -> None:
        nonlocal begun
        begun += 1
        await scenario(bench, begun)

    case = Case("a-case", "a rule", "a source", "something", "something", seconds, counted)
    clock = trio.testing.MockClock(autojump_threshold=0)
    clock.jump(1000.0)
    (result,) = trio.run(Judge(make_subject).run, [case], clock=clock)
    return result, begun


@pytest.mark.parametrize("seconds", [1.0, 100.0], ids=["short", "long"])
def test_a_rule_that_holds_once_of_twice_is_kept(seconds: float) -> None:
    async def scenario(bench: Bench, number: int) -> None:
        await trio.sleep(seconds)
        if number == 1:
            raise BrokenRuleError("by a busy machine")
        bench.note("after all")

    result, begun = judge(scenario, seconds=seconds)
    assert (result.verdict, result.evidence, begun) == (Verdict.PASS, "after all", 2)


def test_a_rule_that_is_broken_twice_is_broken() -> None:
    async def scenario(bench: Bench, number: int) -> None:
        raise BrokenRuleError(f"found in attempt {number}")

    result, begun = judge(scenario)
    assert (result.verdict, result.evidence, begun) == (Verdict.FAIL, "found in attempt 2", 2)


def test_a_short_case_that_passes_is_not_asked_again() -> None:
    async def scenario(bench: Bench, number: int) -> None:
        await trio.sleep(1)

    result, begun = judge(scenario)
    assert (result.verdict, begun) == (Verdict.PASS, 1)


def test_a_long_case_is_asked_twice_at_the_same_time() -> None:
    async def scenario(bench: Bench, number: int) -> None:
        await trio.sleep(100)
        raise BrokenRuleError("both times")

    result, begun = judge(scenario, seconds=100)
    assert (result.verdict, begun) == (Verdict.FAIL, 2)
    assert result.seconds < 101


def test_what_does_not_apply_is_no_fail() -> None:
    async def scenario(bench: Bench, number: int) -> None:
        raise NotApplicableError("there is no such thing here")

    result, begun = judge(scenario)
    assert (result.verdict, begun) == (Verdict.NOT_APPLICABLE, 1)
    assert result.evidence == "there is no such thing here"


def test_a_case_that_does_not_end_is_given_up() -> None:
    async def scenario(bench: Bench, number: int) -> None:
        await trio.sleep_forever()

    result, _ = judge(scenario)
    assert (result.verdict, result.evidence) == (Verdict.FAIL, "did not come to an end")
    assert result.seconds == pytest.approx(1 + GRACE)


def test_a_program_that_does_not_start_keeps_no_rule() -> None:
    async def scenario(bench: Bench, number: int) -> None:
        """Would pass."""

    result, begun = judge(scenario, starts=False)
    assert (result.verdict, result.evidence, begun) == (Verdict.FAIL, "it does not start", 0)


@pytest.mark.parametrize("breaks", [True, False])
def test_a_program_that_ends_is_the_evidence(breaks: bool) -> None:
    async def scenario(bench: Bench, number: int) -> None:
        if breaks:
            raise BrokenRuleError("no answer")

    result, _ = judge(scenario, ends_at=0.0)
    assert (result.verdict, result.evidence) == (Verdict.FAIL, "it has ended")
