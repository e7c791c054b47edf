"""Runs cases, all at the same time, each with a subject of its own, and asks twice before a fail.

A case that takes longer than a minute is asked twice at once, so that the whole takes no longer
than the slowest case; a shorter one is asked again. The better of the two verdicts counts: a rule
that holds was kept, but a busy machine can make it look broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import trio

from .bench import Bench, BrokenRuleError, NotApplicableError
from .case import Case, Result, Verdict
from .subject import Subject, SubjectError

LONG = 60.0
"""Seconds; such a case is asked twice at once."""

GRACE = 60.0
"""Seconds that a case may take longer than it says, before it is given up."""

MakeSubject = Callable[[int], AbstractAsyncContextManager[Subject]]
"""A subject of its own for each attempt; the number is that of the attempt, from 0 up."""

Report = Callable[[Result], None]


@dataclass
class Judge:
    """`at_once` quick cases run at a time; long ones all do."""

    make_subject: MakeSubject
    on_result: Report = lambda _: None
    at_once: int = 8
    attempts: int = 2

    def __post_init__(self) -> None:
        self._count = 0

    async def run(self, cases: Iterable[Case]) -> list[Result]:
        """The results in the order of `cases`."""
        chosen = list(cases)
        results: dict[str, Result] = {}
        limit = trio.CapacityLimiter(self.at_once)

        async def judge(case: Case) -> None:
            if case.seconds > LONG:
                result = await self._ask_at_once(case)
            else:
                async with limit:
                    result = await self._ask_in_turn(case)
            results[case.id] = result
            self.on_result(result)

        async with trio.open_nursery() as nursery:
            for case in sorted(chosen, key=lambda case: -case.seconds):
                nursery.start_soon(judge, case)
        return [results[case.id] for case in chosen]

    async def _ask_in_turn(self, case: Case) -> Result:
        result = await self.ask(case)
        for _ in range(1, self.attempts):
            if result.verdict is not Verdict.FAIL:
                break
            result = await self.ask(case)
        return result

    async def _ask_at_once(self, case: Case) -> Result:
        results: list[Result] = []
        async with trio.open_nursery() as nursery:

            async def attempt() -> None:
                results.append(await self.ask(case))
                if results[-1].verdict is not Verdict.FAIL:
                    nursery.cancel_scope.cancel()

            for _ in range(self.attempts):
                nursery.start_soon(attempt)
        return results[-1]

    async def ask(self, case: Case) -> Result:
        """One attempt."""
        number, self._count = self._count, self._count + 1
        begin = trio.current_time()
        verdict, evidence = Verdict.FAIL, "did not come to an end"
        try:
            async with self.make_subject(number) as subject:
                begin = trio.current_time()
                with trio.move_on_after(case.seconds + GRACE):
                    verdict, evidence = await _run(case, subject, number)
        except SubjectError as error:
            evidence = str(error)
        return Result(case, verdict, evidence, trio.current_time() - begin)


async def _run(case: Case, subject: Subject, number: int) -> tuple[Verdict, str]:
    async with trio.open_nursery() as nursery:
        bench = Bench(subject, nursery, number)
        try:
            await bench.begin()
            await case.scenario(bench)
            verdict, evidence = Verdict.PASS, "; ".join(bench.notes)
        except (BrokenRuleError, SubjectError) as error:
            verdict, evidence = Verdict.FAIL, str(error)
        except NotApplicableError as error:
            verdict, evidence = Verdict.NOT_APPLICABLE, str(error)
        finally:
            nursery.cancel_scope.cancel()
    bench.close()
    try:
        subject.check()
    except SubjectError as error:
        # The cause of a rule that looks broken, too.
        return Verdict.FAIL, str(error)
    return verdict, evidence
