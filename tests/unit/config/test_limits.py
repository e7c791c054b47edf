"""RateLimit and Quota: what is read, written and refused, and when a period begins."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.support.confs import WITH_PEER, read
from tunnel import config as confs
from tunnel.config.limits import Quota, RateLimit, quota, rate_limit
from tunnel.config.phone import for_phone
from tunnel.config.problems import Mistake


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("20 Mbit/s", (20_000_000, 20_000_000)),
        ("20M", (20_000_000, 20_000_000)),
        ("20mbit", (20_000_000, 20_000_000)),
        ("1.5 Gbps", (1_500_000_000, 1_500_000_000)),
        ("64k", (64_000, 64_000)),
        ("8000", (8000, 8000)),
        ("to 20M, from 5M", (20_000_000, 5_000_000)),
        ("from 5 Mbit/s", (0, 5_000_000)),
        ("TO 5 MBIT/S", (5_000_000, 0)),
        ("off", (0, 0)),
    ],
)
def test_rates_are_read_and_written(text: str, rates: tuple[int, int]) -> None:
    found = rate_limit(text)
    assert found == rates
    assert rate_limit(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fast",
        "20 MB/s",
        "-5M",
        "0",
        "7999",
        "2T",
        "20M 5M",
        "to 5M, to 6M",
        "5M, from 6M",
        "up 5M",
    ],
)
def test_other_rates_are_refused(text: str) -> None:
    with pytest.raises(Mistake):
        rate_limit(text)


@pytest.mark.parametrize(
    ("text", "size", "period", "written"),
    [
        ("50 GB per month", 50 * 10**9, "month", "50 GB per month"),
        ("50G", 50 * 10**9, "", "50 GB"),
        ("1.5 GiB per day", 1_610_612_736, "day", "1610612.736 kB per day"),
        ("500mb/week", 500 * 10**6, "week", "500 MB per week"),
        ("12345", 12345, "", "12.345 kB"),
        ("1", 1, "", "1 B"),
        ("off", 0, "", "off"),
    ],
)
def test_quotas_are_read_and_written(text: str, size: int, period: str, written: str) -> None:
    found = quota(text)
    assert found == (size, period)
    assert str(found) == written
    assert quota(written) == found


@pytest.mark.parametrize(
    "text", ["", "much", "0", "5 GB per year", "5 GB monthly", "-1", "9999 PB"]
)
def test_other_quotas_are_refused(text: str) -> None:
    with pytest.raises(Mistake):
        quota(text)


@pytest.mark.parametrize(
    ("period", "begin", "end"),
    [
        ("day", (2026, 12, 31), (2027, 1, 1)),
        ("week", (2026, 12, 28), (2027, 1, 4)),
        ("month", (2026, 12, 1), (2027, 1, 1)),
    ],
)
def test_a_period_is_that_of_the_calendar(
    period: str, begin: tuple[int, int, int], end: tuple[int, int, int]
) -> None:
    last = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
    expected = [datetime(*day, tzinfo=UTC).timestamp() for day in (begin, end)]
    found = quota(f"1 GB per {period}")
    assert list(found.span(last)) == expected
    assert found.span(expected[1])[0] == expected[1]


def test_a_conf_with_limits_is_one_for_wg_without_them() -> None:
    text = f"{WITH_PEER}RateLimit = to 20M, from 5M # slow\nQuota = 50G per month\n"
    config = read(text)
    (peer,) = config.peers
    assert peer.rate_limit == RateLimit(20_000_000, 5_000_000)
    assert peer.quota == Quota(50 * 10**9, "month")
    assert "Limit" not in confs.strip(config)
    assert "Quota" not in confs.strip(config)
    assert read(confs.dump(config)) == config
    assert confs.merge(text, config) == text


def test_a_mistake_names_its_line_and_what_to_write() -> None:
    with pytest.raises(confs.ConfigErrors) as failure:
        read(f"{WITH_PEER}RateLimit = 20 MB/s\n")
    assert str(failure.value).startswith("peer.conf:5: RateLimit must be a number of bits a second")
    assert "write 20 Mbit/s" in str(failure.value)


def test_a_phone_gets_neither_and_that_is_said() -> None:
    """Its app refuses a conf with keys that it does not know."""
    text, left_out = for_phone(read(f"{WITH_PEER}RateLimit = 20M\nQuota = 50G\n"))
    assert left_out == ("RateLimit", "Quota")
    assert "RateLimit" not in text
    assert "Quota" not in text
