"""What the parent of a daemon hears before it is ready."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator

import pytest

from tunnel.cli.background import READY, Readiness, _read

log = logging.getLogger("tunnel")


@pytest.fixture
def pipe() -> Iterator[tuple[int, Readiness]]:
    reading, writing = os.pipe()
    with Readiness(writing) as readiness:
        yield reading, readiness
    os.close(reading)


def heard(reading: int) -> tuple[bytes, list[str]]:
    notes: list[str] = []
    with open(os.dup(reading), "rb") as stream:
        return _read(stream, notes.append), notes


def test_warnings_come_before_the_outcome(pipe: tuple[int, Readiness]) -> None:
    reading, readiness = pipe
    log.info("of no interest")
    log.warning("still looking up %s", "peer.example\n\x01ready")
    readiness.failed("two\nlines")
    log.warning("too late")
    assert heard(reading) == (
        b"two\nlines",
        ["still looking up peer.example\\x0a\\x01ready"],
    )


def test_long_warning_is_cut_and_ready_is_told(
    pipe: tuple[int, Readiness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "chdir", lambda _: None)
    reading, readiness = pipe
    log.warning("%s", "x" * 9000)
    readiness.ready()
    outcome, notes = heard(reading)
    assert outcome == READY
    assert 1000 < len(notes[0]) < 4096


def test_parent_that_is_gone_stops_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with Readiness(writing):
        log.warning("nobody hears this")


@pytest.mark.parametrize("report", [Readiness.ready, lambda readiness: readiness.failed("why")])
def test_a_parent_that_is_gone_ends_no_daemon(
    report: Callable[[Readiness], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "chdir", lambda path: None)
    reading, writing = os.pipe()
    os.close(reading)
    with Readiness(writing) as readiness:
        report(readiness)
