"""How the changes of a reload are printed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import pytest

from tunnel.cli import manage
from tunnel.cli.manage import FEW, MANY, summary
from tunnel.control.messages.changes import Change
from tunnel.control.messages.events import TunnelEvent


def printed(changes: list[Change]) -> list[str]:
    return [line for _, line in summary(changes)]


def test_few_changes_are_printed_each() -> None:
    changes = [Change("+", f"peer k{n}", "10.0.0.1/32") for n in range(MANY)]
    changes += [Change("~", "mtu", "1420 becomes 1380"), Change("-", "route 10.0.0.0/8")]
    assert printed(changes) == [str(change) for change in changes]


def test_many_of_a_kind_are_summed_up() -> None:
    count = 200
    changes = []
    for n in range(count):
        changes.append(Change("+", f"peer k{n}", "10.0.0.1/32"))
        changes.append(Change("+", f"peer k{n} endpoint", "192.0.2.1:51820"))
    changes += [Change("-", f"address 10.0.{n}.1/24") for n in range(MANY + 1)]
    lines = printed(changes)
    assert len(lines) == 3 * (FEW + 1)
    assert lines[FEW] == f"+ {count - FEW} peers more (all of them: --json)"
    assert lines[2 * FEW + 1] == f"+ {count - FEW} peers more: endpoint (all of them: --json)"
    assert lines[-1] == f"- {MANY + 1 - FEW} addresses more (all of them: --json)"


def test_a_change_of_a_peer_has_its_name() -> None:
    change = Change("~", "peer KEY allowed IPs", "10.0.0.1/32", name="lap\x1btop")
    assert str(change).startswith("~ peer lap")
    assert str(change).endswith("top (KEY) allowed IPs: 10.0.0.1/32")
    assert "\x1b" not in str(change)
    assert str(Change("-", "peer KEY", name="my laptop")) == "- peer my laptop (KEY)"


@pytest.mark.parametrize("last", ["down", "port"])
def test_events_that_end_without_down_say_so(
    last: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Client:
        name = "wg0"

        def __init__(self, name: str) -> None:
            assert name == self.name

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def events(self) -> Iterator[TunnelEvent]:
            yield TunnelEvent(last, 0.0, {})

    monkeypatch.setattr(manage, "TunnelClient", Client)
    manage.events("wg0", as_json=True)
    said = "the daemon of wg0 has ended; tunnel show wg0" in capsys.readouterr().err
    assert said == (last != "down")
