"""How the changes of a reload are printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tunnel.cli import manage
from tunnel.cli.manage import FEW, MANY, summary
from tunnel.control.json_client import NotRunningError
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


def test_events_of_a_daemon_that_ends_and_has_no_successor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def follow(name: str, waiting: Callable[[bool], None]) -> Iterator[TunnelEvent]:
        yield TunnelEvent("port", 0.0, {})
        waiting(False)
        raise NotRunningError(name)

    monkeypatch.setattr(manage, "follow", follow)
    manage.events("wg0", as_json=True)
    out, err = capsys.readouterr()
    assert json.loads(out)["type"] == "port"
    assert [line.partition(" wg0")[0] for line in err.splitlines()] == [
        "following the events of",
        "the daemon of",
        "the daemon of",
    ]
    assert err.endswith("no other one has come\n")
