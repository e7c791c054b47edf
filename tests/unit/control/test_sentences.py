"""Events in words."""

from __future__ import annotations

from typing import Any

import pytest

from tunnel.control.messages.events import TunnelEvent
from tunnel.control.messages.sentences import describe

PEER = {"peer": "KEY=", "endpoint": "192.0.2.2:51820"}
CHANGE = {"sign": "+", "subject": "route 10.0.0.0/8", "detail": ""}


@pytest.mark.parametrize(
    ("kind", "details", "words"),
    [
        ("up", {}, "the tunnel is up"),
        ("port", {"old": 51820, "new": 4321}, "the UDP port is 4321 now, was 51820"),
        (
            "handshake",
            {**PEER, "outcome": "completed", "is_initiator": True, "round_trip": 0.0123},
            "handshake with KEY= at 192.0.2.2:51820 completed on our initiative, "
            "round trip 12.3 ms",
        ),
        (
            "handshake",
            {"peer": "KEY=", "endpoint": None, "outcome": "unanswered", "attempt": 2},
            "no answer from KEY= at no known address (attempt 2)",
        ),
        (
            "handshake",
            {**PEER, "outcome": "failed", "attempts": 18, "dropped": 3, "reason": "silence"},
            "no session with KEY= at 192.0.2.2:51820 after 18 attempts: silence; "
            "3 waiting packets dropped",
        ),
        (
            "quota_reached",
            {"peer": "KEY=", "quota": 38_000_000, "used": 37_999_999, "period": "day"},
            "peer KEY= has reached its quota of 38 MB per day: what does not fit into it is "
            "dropped",
        ),
        ("roamed", {"peer": "KEY=", "old": None, "new": "1.2.3.4:5"}, "peer KEY= is at 1.2.3.4:5"),
        (
            "roamed",
            {"peer": "KEY=", "old": "1.2.3.4:4", "new": "1.2.3.4:5", "left_out": 0},
            "peer KEY= moved from 1.2.3.4:4 to 1.2.3.4:5",
        ),
        (
            "roamed",
            {"peer": "KEY=", "old": "1.2.3.4:4", "new": "1.2.3.4:5", "left_out": 7},
            "peer KEY= moved from 1.2.3.4:4 to 1.2.3.4:5 (7 earlier moves not shown)",
        ),
        ("session_expired", {"peer": "KEY="}, "the session with KEY= has expired"),
        (
            "keys_erased",
            {"peer": "KEY="},
            "the keys of KEY= were erased: too long without a new handshake",
        ),
        (
            "peer_removed",
            {"peer": "KEY=", "own_key": True},
            "peer KEY= removed: its key is now our own",
        ),
        ("peer_removed", {"peer": "KEY=", "own_key": False}, "peer KEY= removed"),
        (
            "clock",
            {"problem": "it says 1970", "refused": True},
            "the clock cannot be right: it says 1970; no handshake is sent until it is right",
        ),
        (
            "drops",
            {"new": {"no_peer": 2}, "total": {"no_peer": 5, "not_ip": 1}},
            "dropped: 2 no_peer (6 packets since the start)",
        ),
        (
            "reload",
            {"error": None, "changes": [CHANGE] * 7, "notes": ["a note"]},
            "reloaded: " + "+ route 10.0.0.0/8; " * 5 + "and 2 more; a note",
        ),
        ("reload", {"error": None, "changes": [], "notes": []}, "reloaded: nothing to change"),
        (
            "reload",
            {"error": "wg0.conf:2: Adress", "changes": [], "notes": []},
            "not reloaded, nothing was changed: wg0.conf:2: Adress",
        ),
        ("lost", {"count": 3}, "3 events were lost here: they came faster than they were read"),
        ("down", {}, "the tunnel is going down"),
        # Of a newer daemon.
        ("weather", {"sun": 1}, "weather sun=1"),
        ("handshake", {"outcome": "new"}, 'handshake outcome="new"'),
        ("clock", {"problem": "\x1b[2J", "refused": False}, "the clock cannot be right: \\x1b[2J"),
    ],
)
def test_each_type_has_its_words(kind: str, details: dict[str, Any], words: str) -> None:
    assert describe(TunnelEvent(kind, 0.0, details)) == words
