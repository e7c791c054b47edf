from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from tunnel.trace.nftrace import TraceType, Verdict, decode

TRACE = 10 << 8 | 17


def attribute(kind: int, data: bytes) -> bytes:
    length = 4 + len(data)
    return struct.pack("=HH", length, kind) + data + bytes(-length % 4)


def message(body: bytes, kind: int = TRACE) -> bytes:
    payload = struct.pack("=BBH", 2, 0, 0) + body
    return struct.pack("=IHHII", 16 + len(payload), kind, 0, 0, 0) + payload


def drop_event() -> bytes:
    verdict = attribute(1, (0).to_bytes(4, "big"))
    return message(
        attribute(1, b"user\0")
        + attribute(2, b"inp\0")
        + attribute(3, (2).to_bytes(8, "big"))
        + attribute(4, (3).to_bytes(4, "big"))
        + attribute(5 | 0x8000, verdict)
        + attribute(6, (7).to_bytes(4, "big"))
        + attribute(8, b"E" + bytes(19))
        + attribute(10, (1).to_bytes(4, "big"))
        + attribute(15, (2).to_bytes(4, "big"))
    )


def test_a_drop_is_told_with_its_place() -> None:
    (event,) = decode(drop_event(), 1.5)
    assert event.time == 1.5
    assert (event.table, event.chain, event.rule_handle) == ("user", "inp", 2)
    assert event.type is TraceType.RULE
    assert event.verdict is Verdict.DROP
    assert (event.packet_id, event.iif, event.oif, event.family) == (7, 1, 0, 2)
    assert event.network_header[0] == 0x45


def test_a_jump_names_its_chain_and_a_policy_its_verdict() -> None:
    jump = attribute(1, (-3).to_bytes(4, "big", signed=True)) + attribute(2, b"docker\0")
    data = message(attribute(4, (3).to_bytes(4, "big")) + attribute(5, jump))
    data += message(attribute(4, (1).to_bytes(4, "big")) + attribute(16, (1).to_bytes(4, "big")))
    first, second = decode(data, 0.0)
    assert first.verdict is Verdict.JUMP
    assert first.jump_to == "docker"
    assert second.type is TraceType.POLICY
    assert second.verdict is Verdict.ACCEPT


def test_other_messages_are_passed_over() -> None:
    assert len(list(decode(message(b"", kind=3) + drop_event(), 0.0))) == 1


@given(st.binary(max_size=200))
def test_broken_messages_raise_nothing(data: bytes) -> None:
    list(decode(data, 0.0))
    list(decode(message(data), 0.0))


@given(st.integers(0, 200))
def test_cut_messages_raise_nothing(length: int) -> None:
    list(decode(drop_event()[:length], 0.0))
