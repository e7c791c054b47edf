"""The line that `tunnel up` prints on a terminal."""

from __future__ import annotations

from dataclasses import replace

from tests.support.statuses import STATUS
from tunnel.cli.arrival import asks_at_once, line

START = "wg0 is up: 10.77.0.1/24, fd77::1/64, port 51820, public key PUB="


def test_who_answered_is_named() -> None:
    (peer,) = STATUS.peers
    assert line(STATUS) == f"{START}; PEER= answered"
    named = replace(STATUS, peers=(replace(peer, name="ho\x1bme"), peer, peer))
    assert line(named).startswith(f"{START}; ho")
    assert line(named).endswith("me and 2 more answered")
    assert "\x1b" not in line(named)


def test_silence_names_the_doctor_where_an_answer_is_due() -> None:
    (peer,) = STATUS.peers
    silent = replace(peer, latest_handshake=0.0)
    due = replace(STATUS, peers=(silent,))
    assert asks_at_once(due)
    assert line(due) == f"{START}; no peer has answered yet: tunnel doctor wg0"
    for other in (replace(silent, persistent_keepalive=0), replace(silent, endpoint=None)):
        idle = replace(STATUS, peers=(other,))
        assert not asks_at_once(idle)
        assert line(idle) == START
