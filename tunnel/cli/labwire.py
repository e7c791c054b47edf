"""`tunnel lab --loss 5% --delay 40ms`: the options that make the wire of a lab a bad one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated

import typer

from tunnel.cli.common import EXIT_USAGE, fail
from tunnel.lab.weather import Faults

_PANEL = "A bad wire, in place of the cable or the switch of the internet"
_UNITS = {"us": Decimal("0.000001"), "ms": Decimal("0.001"), "s": Decimal(1), "min": Decimal(60)}
_LONGEST = 2
"""Seconds of delay on one way: a handshake that is not answered within 5 s is begun again."""
_SHORTEST_REBIND = 1


def _share(flag: str, help_text: str) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(
        flag, metavar="PERCENT%", help=help_text, rich_help_panel=_PANEL
    )
    return found


def _time(flag: str, help_text: str) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(
        flag, metavar="TIME", help=help_text, rich_help_panel=_PANEL
    )
    return found


Loss = Annotated[str | None, _share("--loss", "Lose this share of the packets: 5%.")]
Delay = Annotated[str | None, _time("--delay", "Hold each packet back, on each way: 40ms.")]
Jitter = Annotated[str | None, _time("--jitter", "Add up to this much delay, at random: 5ms.")]
Reorder = Annotated[str | None, _share("--reorder", "Let others overtake this share: 1%.")]
Duplicate = Annotated[str | None, _share("--duplicate", "Deliver this share twice: 1%.")]
Corrupt = Annotated[str | None, _share("--corrupt", "Flip one bit in this share: 1%.")]
Rebind = Annotated[
    str | None, _time("--rebind", "Change one host's UDP source port, as a NAT would: 30s.")
]
Seed = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER",
        help="Repeat the faults of the lab that had this number.",
        rich_help_panel=_PANEL,
    ),
]


_NOTHING = "''"
"""An empty word as a shell takes it."""


def share(option: str, text: str | None) -> float:
    """Between 0 and 1, of `5%`; leaves with the reason if it is no share."""
    if text is None:
        return 0.0
    found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,9})?) ?%", text)
    if found is None or Decimal(found[1]) > 100:
        wanted = f"write a percentage from 0% to 100%, as in {option} 5%"
        fail(f"{option} {text or _NOTHING}: {wanted}", EXIT_USAGE)
    return float(Decimal(found[1]) / 100)


def seconds(option: str, text: str | None, example: str) -> float:
    """Of `40ms`; leaves with the reason if it is no time."""
    if text is None:
        return 0.0
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,9})?) ?(us|ms|s|min)", text)
    if found is None:
        fail(
            f"{option} {text or _NOTHING}: write a time in us, ms, s or min, as in {option} "
            f"{example}",
            EXIT_USAGE,
        )
    return float(Decimal(found[1]) * _UNITS[found[2]])


@dataclass(frozen=True)
class WireOptions:
    """The options as they were typed; None where one was not."""

    loss: str | None = None
    delay: str | None = None
    jitter: str | None = None
    reorder: str | None = None
    duplicate: str | None = None
    corrupt: str | None = None
    rebind: str | None = None
    seed: str | None = None

    def number(self) -> int | None:
        """The number of --seed; leaves with the reason if it is none."""
        if self.seed is None:
            return None
        if re.fullmatch(r"\d{1,9}", self.seed) is None:
            wanted = "write a whole number of at most nine digits, as in --seed 1"
            fail(f"--seed {self.seed or _NOTHING}: {wanted}", EXIT_USAGE)
        return int(self.seed)

    def given(self) -> list[str]:
        """The options that were typed."""
        return [f"--{name}" for name, value in vars(self).items() if value is not None]

    def faults(self) -> Faults | None:
        """What they ask for, None if for nothing; leaves with the reason if one is wrong."""
        names = self.given()
        if not names:
            return None
        if names == ["--seed"]:
            fail("--seed goes with a bad wire, as in --loss 5% --seed 1", EXIT_USAGE)
        self.number()
        faults = Faults(
            delay=seconds("--delay", self.delay, "40ms"),
            jitter=seconds("--jitter", self.jitter, "5ms"),
            loss=share("--loss", self.loss),
            duplicate=share("--duplicate", self.duplicate),
            corrupt=share("--corrupt", self.corrupt),
            reorder=share("--reorder", self.reorder),
            rebind=seconds("--rebind", self.rebind, "30s"),
        )
        for option, value in (("--delay", faults.delay), ("--jitter", faults.jitter)):
            if value > _LONGEST:
                fail(
                    f"{option} {vars(self)[option[2:]]}: at most {_LONGEST}s, as a handshake that "
                    "is not answered within 5 s begins again",
                    EXIT_USAGE,
                )
        if self.rebind is not None and faults.rebind < _SHORTEST_REBIND:
            fail(f"--rebind {self.rebind}: at least {_SHORTEST_REBIND}s", EXIT_USAGE)
        return faults
