"""Times at which a peer is shut out, as users and confs give them."""

from __future__ import annotations

import pytest

from tunnel.config.expiry import expiry, expiry_from, expiry_text
from tunnel.config.problems import Mistake

NOW = 1.8e9


@pytest.mark.parametrize("text", ["7d", "100000w", "9998-12-31T23:59:59Z"])
def test_a_time_that_is_taken_can_be_written(text: str) -> None:
    until = expiry_from(text, NOW)
    assert expiry(expiry_text(until)) == until


@pytest.mark.parametrize("text", ["999999w", "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59Z"])
def test_no_time_is_taken_that_no_calendar_has(text: str) -> None:
    with pytest.raises(Mistake):
        expiry_from(text, NOW)


def test_nor_in_a_conf() -> None:
    with pytest.raises(Mistake):
        expiry("9999-12-31T23:59:59-23:59")
