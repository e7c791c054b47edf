"""The protocol's events as lines of the log, and how seldom they come."""

from __future__ import annotations

import pytest

from tests.unit.test_engine import make_side
from tunnel.config import PrivateKey
from tunnel.eventlog import EventLog
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import PeerRemoved, PeerRoamed

KEYS = [PrivateKey.from_bytes(bytes([n] * 32)).public_key() for n in (7, 8)]


def at(number: int) -> Endpoint:
    return Endpoint(bytes([192, 0, 2, number]), 51820)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_peer_that_moves_all_the_time_has_one_line_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    clock = Clock()
    told = EventLog(clock)
    interface = make_side(1).engine.interface
    one, other = (interface.add_peer(key) for key in KEYS)
    for number in range(10):
        told.log(PeerRoamed(one, at(number), at(number + 1)))
        clock.now += 0.05
    told.log(PeerRoamed(other, None, at(99)))
    clock.now += 1
    told.log(PeerRoamed(one, at(10), at(11)))
    told.log(PeerRoamed(one, at(11), at(11)))
    assert caplog.messages == [
        f"{KEYS[0].to_base64()} moved from 192.0.2.0:51820 to 192.0.2.1:51820",
        f"{KEYS[1].to_base64()} is at 192.0.2.99:51820",
        f"{KEYS[0].to_base64()} moved from 192.0.2.10:51820 to 192.0.2.11:51820 "
        "(9 moves more since the last line)",
    ]


def test_removed_peer_that_comes_back_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    told = EventLog(Clock())
    peer = make_side(1).engine.interface.add_peer(KEYS[0])
    told.log(PeerRoamed(peer, None, at(1)))
    told.log(PeerRemoved(peer))
    told.log(PeerRoamed(peer, None, at(2)))
    assert len(caplog.messages) == 3
