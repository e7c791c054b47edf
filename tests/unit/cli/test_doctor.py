"""What `tunnel doctor` prints: words from outside never act on the terminal."""

from __future__ import annotations

from tunnel.cli.doctor import lines
from tunnel.doctor import Finding, Report

EVIL = "\x1b]0;gone\x07\x1b[2J\nwg0: nothing wrong\u202e"


def test_what_comes_from_outside_is_quoted() -> None:
    finding = Finding("conf_invalid", EVIL, EVIL, EVIL, EVIL)
    report = Report(EVIL, (finding,), (finding,), {"datapath": EVIL}, (EVIL,))
    printed = [line.plain for line in lines(report)]
    assert len(printed) == 11
    assert all(line.isprintable() for line in printed)
    assert "\\x1b]0;gone" in printed[0]
