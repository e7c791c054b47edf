"""Every byte that comes from outside: each target with its corpus, and for a short time beyond it.

`make fuzz` goes on for as long as is wanted, led by what is new in the code that an input reaches.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.fuzz.mutation import mutated
from tests.support.fuzz.registry import TARGETS
from tests.support.fuzz.target import Target, check, check_memory

LONG = 1 << 14

each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What is refused is logged, and there is much of it."""
    log = logging.getLogger("tunnel")
    before = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(before)


@each_target
def test_corpus(target: Target) -> None:
    """What is kept is read or refused as it should be; some of it is read, and some refused."""
    outcomes = set()
    for name, data in target.corpus().items():
        try:
            outcomes.add(check(target, data))
            check_memory(target, data)
        except BaseException as error:
            error.add_note(f"input: {target.folder / name}")
            raise
    assert outcomes == ({True, False} if target.refusal else {True})


@each_target
@given(seed=st.integers(0, 2**64 - 1))
@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_inputs_near_the_corpus(target: Target, seed: int) -> None:
    """The same in each run: what is new is for `make fuzz` to find."""
    data = mutated(Random(seed), list(target.corpus().values()), target.words)
    try:
        check(target, data)
    except BaseException as error:
        error.add_note(f"input: {data.hex()}")
        raise


@each_target
def test_work_and_memory_stay_in_proportion_to_the_input(target: Target) -> None:
    """The same again and again. Of a pattern that takes the square of the length, which makes no
    calls, the time limit of a test becomes aware.
    """
    for data in target.corpus().values():
        if data:
            long = (data * (LONG // len(data) + 1))[:LONG]
            check(target, long)
            check_memory(target, long)
