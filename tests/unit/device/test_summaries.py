"""A thousand peers that are switched off: a handful of lines, and one that sums up the rest."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tunnel.config import PublicKey
from tunnel.device.event_log import EventLog
from tunnel.device.summaries import MAX_LINES, PERIOD
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import (
    Event,
    HandshakeCompleted,
    HandshakeFailed,
    HandshakeUnanswered,
    PeerRoamed,
)

PLACE = Endpoint(bytes([192, 0, 2, 1]), 51820)


def key(number: int) -> PublicKey:
    return PublicKey.from_bytes(number.to_bytes(4, "big") + bytes([9] * 28))


def failed(number: int) -> Event:
    return HandshakeFailed(key(number), None, 0, 3, "the peer's endpoint is not known")


def run(events: list[list[Event]], gap: float) -> list[tuple[str, dict[str, Any]]]:
    """Log a list of events every `gap` seconds; the records that were published."""
    records: list[tuple[str, dict[str, Any]]] = []

    async def main() -> None:
        log = EventLog(lambda kind, details: records.append((kind, details)), trio.current_time)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.run)
            for some in events:
                for event in some:
                    log.log(event)
                await trio.sleep(gap)
            await trio.sleep(2 * PERIOD)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return records


def test_a_thousand_peers_without_an_answer_have_one_line_about_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    # Every 5 s, for two periods.
    rounds = int(2 * PERIOD / 5)
    peers = range(1000)
    records = run([[HandshakeUnanswered(key(n), PLACE, 1) for n in peers]] * rounds, 5.0)
    assert len(records) == 1000 * rounds, "subscribers get all of them"
    lines = caplog.messages
    assert len(lines) == 2 * (MAX_LINES + 1)
    assert lines[0].startswith(f"no answer from {key(0).to_base64()}")
    left_out = 12 * 1000 - MAX_LINES
    assert (
        lines[MAX_LINES]
        == lines[-1]
        == (
            f"handshakes that were not answered: {left_out:,} more of these lines in 60 s, "
            "about 1,000 peers, not shown; tunnel show lists them"
        )
    )


def test_failures_are_summed_up_by_themselves_and_as_warnings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    unanswered: list[Event] = [HandshakeUnanswered(key(n), PLACE, 1) for n in range(MAX_LINES)]
    completed = [HandshakeCompleted(key(n), PLACE, True, 1, 2, 0.1) for n in range(MAX_LINES)]
    failures = [failed(n) for n in range(MAX_LINES)] + [failed(7)] * 2
    run([[*unanswered, *completed, *failures]], 1.0)
    (summary,) = [r for r in caplog.records if "more of these lines" in r.message]
    assert summary.levelname == "WARNING"
    assert summary.message == (
        "handshakes that failed: 2 more of these lines in 60 s, about 1 peer, not shown; "
        "tunnel show lists them"
    )
    assert len(caplog.records) == 3 * MAX_LINES + 1


def test_the_handshakes_and_moves_of_a_thousand_peers_that_come_back_are_summed_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    moved: list[Event] = [PeerRoamed(key(n), None, PLACE) for n in range(1000)]
    completed: list[Event] = [
        HandshakeCompleted(key(n), PLACE, False, 1, 2, 0.1) for n in range(1000)
    ]
    records = run([moved, completed], 1.0)
    assert len(records) == 2000, "subscribers get all of them"
    assert len(caplog.messages) == 2 * (MAX_LINES + 1)
    more = "940 more of these lines in 60 s, about 940 peers, not shown; tunnel show lists them"
    assert caplog.messages[-2:] == [
        f"peers that moved: {more}",
        f"handshakes that completed: {more}",
    ]


def test_a_handful_of_peers_keeps_all_its_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run([[HandshakeUnanswered(key(n), PLACE, 1) for n in range(4)]] * 100, 5.0)
    assert len(caplog.messages) == 400
    assert not any("not shown" in message for message in caplog.messages)


def test_a_log_for_debugging_has_every_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    run([[failed(n) for n in range(1000)]], 1.0)
    assert len(caplog.messages) == 1000
