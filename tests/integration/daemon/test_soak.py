"""The soak of hours and the crashes of a `make` target, each for seconds."""

from __future__ import annotations

import pytest

from tests.soak import crashes, hours
from tests.soak.hours import LIMITS, Sample
from tunnel.lab import Lab


@pytest.mark.parametrize("what", [*LIMITS, "rate"])
def test_what_is_not_flat_is_named(what: str) -> None:
    """And one odd sample is nothing."""
    flat = {"resident": 50_000.0, "files": 24.0, "tasks": 38.0, "rate": 50.0}
    samples = [Sample(10.0 * number, **flat) for number in range(20)]
    samples[15] = Sample(150.0, **flat | {what: 0.0 if what == "rate" else 90_000.0})
    assert hours.faults("a", samples) == []
    steep = [
        Sample(10.0 * number, **flat | {what: flat[what] * (1 + number * (-1) ** (what == "rate"))})
        for number in range(20)
    ]
    (found,) = hours.faults("a", steep)
    assert ("Mbit/s" if what == "rate" else what) in found


@pytest.mark.root
@pytest.mark.foreign("iperf3", "ping")
def test_everything_at_once_for_seconds(lab: Lab) -> None:
    watches = hours.soak(lab, 12, 2, "10M", scale=30)
    for watch in watches.values():
        first, last = watch.samples[0], watch.samples[-1]
        assert last.files <= first.files + LIMITS["files"]
        assert last.tasks <= first.tasks + LIMITS["tasks"]
    # It got through in between.
    assert any(one.rate > 0 for one in watches["b"].samples)


@pytest.mark.root
@pytest.mark.foreign("nft", "wg", "ping")
@pytest.mark.parametrize("kind", ["up", "reload", "attach"])
def test_kill_at_a_random_moment_is_put_right(kind: str) -> None:
    assert crashes.run_kind(kind, trials=1, seed=1) == []
