"""The protocol's events as lines of the log, and how seldom they come."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tunnel.config import PrivateKey
from tunnel.device.event_log import EventLog
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import (
    HandshakeRefused,
    KeypairExpired,
    PeerRemoved,
    PeerRoamed,
    ProtocolDrop,
)

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
    told = EventLog(clock=clock)
    one, other = KEYS
    for number in range(10):
        told.log(PeerRoamed(one, at(number), at(number + 1)))
        clock.now += 0.05
    told.log(PeerRoamed(other, None, at(99)))
    clock.now += 1
    told.log(PeerRoamed(one, at(10), at(11)))
    told.log(PeerRoamed(one, at(11), at(11)))
    assert caplog.messages == [
        f"peer {KEYS[0].to_base64()} moved from 192.0.2.0:51820 to 192.0.2.1:51820",
        f"peer {KEYS[1].to_base64()} is at 192.0.2.99:51820",
        f"peer {KEYS[0].to_base64()} moved from 192.0.2.10:51820 to 192.0.2.11:51820 "
        "(9 earlier moves not shown)",
    ]


def test_records_are_as_seldom_as_lines_and_say_how_many_were_left_out() -> None:
    clock = Clock()
    records: list[tuple[str, dict[str, Any]]] = []
    told = EventLog(lambda kind, details: records.append((kind, details)), clock)
    peer = KEYS[0]
    for number in range(1, 101):
        told.log(PeerRoamed(peer, at(number - 1), at(number)))
    told.log(KeypairExpired(peer, 1, 2))
    clock.now += 1
    told.log(PeerRoamed(peer, at(100), at(101)))
    key = KEYS[0].to_base64()
    assert records == [
        ("roamed", {"peer": key, "old": str(at(0)), "new": str(at(1)), "left_out": 0}),
        ("session_expired", {"peer": key}),
        ("roamed", {"peer": key, "old": str(at(100)), "new": str(at(101)), "left_out": 99}),
    ]


@pytest.mark.parametrize("removed", [False, True])
def test_where_a_peer_came_to_rest_is_reported_in_the_end(
    removed: bool,
) -> None:
    peer = KEYS[0]
    records: list[dict[str, Any]] = []

    async def main() -> None:
        told = EventLog(lambda kind, details: records.append(details), trio.current_time)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(told.run)
            for number in range(1, 6):
                told.log(PeerRoamed(peer, at(number - 1), at(number)))
            if removed:
                told.log(PeerRemoved(peer, own_key=False))
            await trio.sleep(2.5)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    told = [(details["new"], details["left_out"]) for details in records if "new" in details]
    assert told == [(str(at(1)), 0), (str(at(5)), 3)][: 1 if removed else 2]


def test_removed_peer_that_comes_back_starts_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    told = EventLog(clock=Clock())
    peer = KEYS[0]
    told.log(PeerRoamed(peer, None, at(1)))
    told.log(PeerRemoved(peer, own_key=False))
    told.log(PeerRoamed(peer, None, at(2)))
    # Both moves at one moment have a line: nothing of the first is remembered.
    assert caplog.messages == [f"peer {peer.to_base64()} is at {at(n)}" for n in (1, 2)]


def test_a_refused_handshake_is_a_warning_with_address_key_and_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("WARNING")
    records: list[tuple[str, dict[str, Any]]] = []
    log = EventLog(lambda kind, details: records.append((kind, details)))
    log.log(HandshakeRefused(ProtocolDrop.BAD_MAC1, at(1), None))
    log.log(HandshakeRefused(ProtocolDrop.OLD_TIMESTAMP, at(2), KEYS[0]))
    key = KEYS[0].to_base64()
    assert caplog.messages == [
        "a handshake from 192.0.2.1:51820 was dropped (bad_mac1): its sender has another public "
        "key for this host, or is no peer",
        f"a handshake from 192.0.2.2:51820 by key {key} was dropped (old_timestamp): the clock of "
        "this peer was set back, or an old handshake is replayed",
    ]
    refused = {"peer": key, "endpoint": "192.0.2.2:51820", "reason": "old_timestamp"}
    assert records[1] == ("refused", refused)
