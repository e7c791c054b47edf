"""Values of RateLimit and Quota: how fast a peer may be, and how much it may transfer."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

from tunnel.config.problems import Mistake, quote

__all__ = ["PERIODS", "Period", "Quota", "RateLimit"]

Period = Literal["", "day", "week", "month"]
PERIODS: Final[tuple[Period, ...]] = ("day", "week", "month")

_RATE: Final = re.compile(
    r"(?:(?P<way>to|from)\s+)?(?P<number>[0-9]{1,15}(?:\.[0-9]{1,6})?)\s*"
    r"(?P<prefix>[kmgt]?)(?P<unit>bits?(?:/s)?|bps)?",
    re.IGNORECASE,
)
_QUOTA: Final = re.compile(
    r"(?P<number>[0-9]{1,18}(?:\.[0-9]{1,6})?)\s*(?P<prefix>[kmgtp]?)(?P<binary>i)?(?P<unit>b)?"
    r"(?:\s*(?:per\s|/)\s*(?P<period>\w+))?",
    re.IGNORECASE,
)
_PREFIXES: Final = ("", "k", "m", "g", "t", "p")
_LEAST_RATE: Final = 8_000
_MOST_RATE: Final = 10**12
_MOST_QUOTA: Final = 10**18


class RateLimit(NamedTuple):
    """Bits a second of inner packets, to the peer and from it; 0 for no limit."""

    to: int = 0
    from_: int = 0

    def __str__(self) -> str:
        if self.to == self.from_:
            return _rate_text(self.to) if self.to else "off"
        ways = {"to": self.to, "from": self.from_}
        return ", ".join(f"{way} {_rate_text(rate)}" for way, rate in ways.items() if rate)


class Quota(NamedTuple):
    """Bytes of inner packets, both ways together, in each period, or in all with the period ""."""

    size: int = 0
    period: Period = ""

    def __str__(self) -> str:
        if not self.size:
            return "off"
        return bytes_text(self.size) + (f" per {self.period}" if self.period else "")

    def span(self, unix: float) -> tuple[int, float]:
        """When the period around that time began, and when it ends, in Unix seconds (UTC)."""
        if not self.period:
            return 0, float("inf")
        day = datetime.fromtimestamp(unix, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if self.period == "day":
            end = day + timedelta(days=1)
        elif self.period == "week":
            day -= timedelta(days=day.weekday())
            end = day + timedelta(days=7)
        else:
            day = day.replace(day=1)
            end = (day + timedelta(days=31)).replace(day=1)
        return int(day.timestamp()), end.timestamp()


def rate_limit(text: str) -> RateLimit:
    """Read a rate for both directions, or one for each."""
    remedy = "write 20 Mbit/s, or: to 20 Mbit/s, from 5 Mbit/s"
    if text.lower() == "off":
        return RateLimit()
    rates: dict[str, int] = {}
    for part in text.split(","):
        found = _RATE.fullmatch(part.strip())
        if found is None:
            raise Mistake(f"must be a number of bits a second, not {quote(text)}", remedy)
        rate = _number(found)
        if not _LEAST_RATE <= rate <= _MOST_RATE:
            raise Mistake(f"must be from 8 kbit/s to 1 Tbit/s, not {quote(part.strip())}", remedy)
        for way in [found["way"].lower()] if found["way"] else ["to", "from"]:
            if way in rates:
                raise Mistake(f'says twice what holds "{way}" the peer: {quote(text)}', remedy)
            rates[way] = rate
    return RateLimit(rates.get("to", 0), rates.get("from", 0))


def quota(text: str) -> Quota:
    """Read a number of bytes, and the period in which it is the most."""
    remedy = "write 50 GB per month, per week or per day, or 50 GB alone"
    if text.lower() == "off":
        return Quota()
    found = _QUOTA.fullmatch(text)
    if found is None:
        raise Mistake(f"must be a number of bytes, not {quote(text)}", remedy)
    size = _number(found, 1024 if found["binary"] else 1000)
    if not 1 <= size <= _MOST_QUOTA:
        raise Mistake(f"must be from 1 byte to 1000 PB, not {quote(text)}", remedy)
    period = (found["period"] or "").lower()
    for known in ("", *PERIODS):
        if period == known:
            return Quota(size, known)
    raise Mistake(f"must be per day, week or month, not per {quote(period)}", remedy)


def _number(found: re.Match[str], step: int = 1000) -> int:
    unit: int = step ** _PREFIXES.index(found["prefix"].lower())
    whole, _, decimals = found["number"].partition(".")
    scale: int = 10 ** len(decimals)
    return int(whole + decimals) * unit // scale


def _rate_text(rate: int) -> str:
    return f"{_scaled(rate)}bit/s"


def bytes_text(size: int) -> str:
    """Bytes, exactly: the largest decimal unit with up to three decimals that says it."""
    return f"{_scaled(size)}B"


def _scaled(number: int) -> str:
    for prefix in ("P", "T", "G", "M", "k"):
        unit = 1000 ** _PREFIXES.index(prefix.lower())
        if number >= unit and number * 1000 % unit == 0:
            return f"{f'{number / unit:.3f}'.rstrip('0').rstrip('.')} {prefix}"
    return f"{number} "
