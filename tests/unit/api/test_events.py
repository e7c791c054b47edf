"""Each type of docs/control.md as an object of `tunnel.events`, and what is not known."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from tunnel import events
from tunnel.control.messages.changes import Change
from tunnel.control.messages.events import TunnelEvent

CONTROL = Path(__file__).parents[3] / "docs" / "control.md"
PEER = {"peer": "KEY", "endpoint": "192.0.2.1:7"}

RECORDS: dict[type[events.AnyEvent], tuple[str, dict[str, Any]]] = {
    events.Up: ("up", {}),
    events.Restarted: ("restarted", {"restarts": 1, "pause": 0.5, "sessions": 2}),
    events.HandshakeDone: (
        "handshake",
        {**PEER, "outcome": "completed", "is_initiator": True, "round_trip": 0.0125},
    ),
    events.NoAnswer: ("handshake", {**PEER, "outcome": "unanswered", "attempt": 3}),
    events.PeerUnreachable: (
        "handshake",
        {**PEER, "outcome": "failed", "attempts": 20, "dropped": 4, "reason": "no answer"},
    ),
    events.HandshakeDropped: ("refused", {**PEER, "peer": None, "reason": "bad_mac1"}),
    events.Roamed: ("roamed", {"peer": "KEY", "old": None, "new": "192.0.2.9:7", "left_out": 0}),
    events.PeerOnline: ("connected", {**PEER, "rx_bytes": 1, "tx_bytes": 2}),
    events.PeerOffline: (
        "disconnected",
        {**PEER, "reason": "no session is left", "rx_bytes": 1, "tx_bytes": 2},
    ),
    events.QuotaUsedUp: (
        "quota_reached",
        {"peer": "KEY", "quota": 5000, "used": 4990, "period": "month"},
    ),
    events.SessionExpired: ("session_expired", {"peer": "KEY"}),
    events.KeysForgotten: ("keys_erased", {"peer": "KEY"}),
    events.PeerGone: ("peer_removed", {"peer": "KEY", "own_key": False}),
    events.LoopingRoute: ("routing_loop", dict(PEER)),
    events.WrongClock: ("clock", {"problem": "it is 1970", "refused": True}),
    events.Dropped: ("drops", {"new": {"replay": 1}, "total": {"replay": 3}}),
    events.Reloaded: (
        "reload",
        {
            "error": None,
            "changes": [Change("+", "route 10.0.0.0/8").to_json()],
            "more_changes": 0,
            "notes": [],
        },
    ),
    events.Missing: ("missing", {"items": ["route 10.0.0.0/8"], "more_items": 0}),
    events.PortChanged: ("port", {"old": 7, "new": 8}),
    events.AttachedTo: ("attached", {"target": "container web", "netns": ""}),
    events.WaitingFor: ("waiting", {"target": "container web", "reason": ""}),
    events.DetachedFrom: ("detached", {"target": "container web"}),
    events.EventsLost: ("lost", {"count": 9}),
    events.Down: ("down", {"failures": [], "notes": ["a note"], "restarting": False}),
}


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_a_record_as_an_object(kind: type[events.AnyEvent]) -> None:
    name, details = RECORDS[kind]
    event = events.typed(TunnelEvent(name, 7.0, details))
    assert type(event) is kind
    assert (event.type, event.time, event.details) == (name, 7.0, details)
    fields = {each.name for each in dataclasses.fields(kind)} - {"time", "details", "name"}
    assert fields <= details.keys()
    for field in fields:
        value = getattr(event, field)
        assert isinstance(value, tuple) or value == details[field]
    # In words, and not as fields.
    assert "=" not in str(event)


def test_the_name_of_a_peer_stands_in_its_events() -> None:
    details = {"peer": "KEY", "name": "laptop"}
    event = events.typed(TunnelEvent("session_expired", 7.0, details))
    assert (event.name, str(event)) == ("laptop", "the session with laptop (KEY) has expired")


def test_the_changes_of_a_reload_are_objects_too() -> None:
    name, details = RECORDS[events.Reloaded]
    match events.typed(TunnelEvent(name, 7.0, details)):
        case events.Reloaded(changes=(Change(sign="+", subject=subject),), error=None):
            assert subject == "route 10.0.0.0/8"
        case other:
            pytest.fail(repr(other))


@pytest.mark.parametrize("details", [{"outcome": "of another version"}, {}])
def test_what_is_not_known_keeps_all_that_it_says(details: dict[str, Any]) -> None:
    event = events.typed(TunnelEvent("handshake", 7.0, details))
    assert isinstance(event, events.UnknownEvent)
    assert (event.kind, event.details) == ("handshake", details)
    assert str(event).startswith("handshake")


def test_every_type_that_is_documented_has_a_class() -> None:
    blocks = CONTROL.read_text().partition("## Events")[2].split("\n\n")
    table = next(block for block in blocks if block.startswith("| type |"))
    documented = set()
    for line in table.splitlines():
        if line.startswith("| `"):
            documented |= set(re.findall(r"`(\w+)`", line.split("|")[1]))
    assert documented == {name for name, _ in RECORDS.values()}
    classes = {each for each in events.AnyEvent.__subclasses__() if each is not events.UnknownEvent}
    assert classes == set(RECORDS)
    assert {each.__name__ for each in classes} < set(events.__all__)
