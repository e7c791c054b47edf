"""Flows: both directions in one record, whole, and bounded whatever a peer sends."""

from __future__ import annotations

from tests.support.engines import packet
from tunnel.config import PrivateKey
from tunnel.datapath.virtio import carried_untrusted
from tunnel.engine.flows import ACTIVE, IDLE, MAX_FLOWS, FlowRecord, Flows
from tunnel.engine.limits import Way

KEY = PrivateKey.from_random(bytes([1]) * 32).public_key()
NEAR, FAR = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])


class Recorded:
    def __init__(self) -> None:
        self.now = 1000.0
        self.records: list[FlowRecord] = []
        self.flows = Flows(lambda: self.now, self.records.append)

    def count(self, frame: bytes, way: Way = Way.OUT) -> None:
        self.flows.count(KEY, memoryview(frame), way, *carried_untrusted(frame))


def udp(ports: tuple[int, int], *, back: bool = False) -> bytes:
    frame = bytearray(packet(2, 1) if back else packet(1, 2))
    frame[10 + 9] = 17
    near, far = (port.to_bytes(2, "big") for port in ports)
    frame[30:34] = far + near if back else near + far
    return bytes(frame)


def test_both_directions_are_one_flow_and_idleness_ends_it() -> None:
    told = Recorded()
    told.count(udp((5000, 53)))
    told.now += 1
    told.count(udp((5000, 53), back=True), Way.IN)
    told.count(udp((5000, 53), back=True), Way.IN)
    told.count(packet(1, 2, 100))  # of another protocol, without ports
    told.now += IDLE - 1
    told.flows.sweep()
    assert told.records == []
    told.now += 1
    told.flows.sweep()
    assert told.records == [
        FlowRecord(KEY, 17, (NEAR, 5000), (FAR, 53), 1000.0, 1001.0, (1, 2), (84, 168)),
        FlowRecord(KEY, 99, (NEAR, 0), (FAR, 0), 1001.0, 1001.0, (1, 0), (100, 0)),
    ]
    assert len(told.flows) == 0


def test_a_long_flow_has_a_record_now_and_then_and_nothing_is_lost() -> None:
    told = Recorded()
    for _ in range(100):
        told.count(udp((5000, 53)))
        told.now += 10
    told.flows.end()
    assert len(told.records) > 1
    assert all(record.last - record.first <= ACTIVE for record in told.records)
    assert sum(record.packets[Way.OUT] for record in told.records) == 100


def test_the_table_is_bounded_and_the_longest_idle_makes_room() -> None:
    told = Recorded()
    for number in range(MAX_FLOWS):
        told.count(udp((number % 60_000, number // 60_000 + 1)))
    told.count(udp((0, 1)))
    told.count(udp((7, 7)))
    assert len(told.flows) == MAX_FLOWS
    assert [record.near[1] for record in told.records] == [1]


def test_what_is_no_packet_is_no_flow() -> None:
    told = Recorded()
    told.count(bytes(10) + b"\xff" * 30)
    told.count(bytes(10))
    assert len(told.flows) == 0
