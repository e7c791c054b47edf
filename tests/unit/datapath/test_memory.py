"""No call of a datapath keeps memory: what one call keeps, a busy day makes gigabytes of."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Callable, Mapping

import pytest

from tests.support.datapaths import (
    TCP,
    UDP,
    MakePair,
    datagrams,
    gso_frame,
    ip_packet,
    message,
    plain_frame,
    seal,
    tcp,
    udp,
)
from tunnel.datapath import OPEN_OUT_SIZE, SEAL_OUT_SIZE, SessionExhausted
from tunnel.datapath.interface import REJECT_AFTER_MESSAGES
from tunnel.datapath.virtio import GSO_TCPV4

CALLS = {"native": 100_000, "python": 3_000}
"""How often each call is made; with all of them that is a million with the compiled datapath."""

BYTES = 4
"""What one call may keep on average, so that caches have room. The smallest object takes 16."""


NAMES = [
    "__new__",
    "seal",
    "seal, segments",
    "seal, refused",
    "seal, spent",
    "seal_keepalive",
    "open",
    "open, replayed",
    "open, refused",
    "send_counter",
    "local_index",
    "remote_index",
    "hand_over",
    "forget_ledger",
]


class _MallInfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def allocated() -> tuple[int, int]:
    """Blocks that Python has, and bytes that the C library has given out (mallinfo(3))."""
    gc.collect()
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _MallInfo2
    return sys.getallocatedblocks(), mallinfo2().uordblks


def calls_of(make_pair: MakePair) -> Mapping[str, Callable[[], object]]:
    """Every function of a session, with large numbers wherever it takes one, and its refusals."""
    a, b = make_pair()
    # Bounds above 256: smaller integers are made once and for all.
    frames = bytes(1_000) + plain_frame(ip_packet(4, UDP, udp(bytes(400))))
    spans = [(1_000, len(frames))]
    segments = gso_frame(4, TCP, tcp(bytes(20_000)), gso_type=GSO_TCPV4, gso_size=1_200)
    out, large = bytearray(SEAL_OUT_SIZE), bytearray(SEAL_OUT_SIZE)
    opened = bytearray(OPEN_OUT_SIZE)
    sealed, buffer = seal(a, plain_frame(ip_packet(4, UDP, udp(bytes(400)))))
    datagram = bytes(1_000) + datagrams(sealed, buffer)[0]
    end = len(datagram)
    spent = make_pair(REJECT_AFTER_MESSAGES).a
    counter = 300

    def next_message() -> bytes:
        nonlocal counter
        counter += 1
        return bytes(1_000) + message(ip_packet(4, UDP, udp(bytes(400))), counter)

    def refused(error: type[Exception], call: Callable[..., object], *arguments: object) -> object:
        with contextlib.suppress(error):
            call(*arguments)
            raise AssertionError("it was not refused")
        return None

    def open_new() -> object:
        fresh = next_message()
        return b.open(fresh, 1_000, len(fresh), 500, opened)

    return {
        "__new__": lambda: make_pair(90_000),
        "seal": lambda: a.seal(frames, spans, 1_420, out, 1_000),
        "seal, segments": lambda: a.seal(segments, [(0, len(segments))], 1_420, large),
        "seal, refused": lambda: refused(ValueError, a.seal, frames, [(0, 99_999)], 1_420, out),
        "seal, spent": lambda: refused(SessionExhausted, spent.seal, frames, spans, 1_420, out),
        "seal_keepalive": a.seal_keepalive,
        "open": open_new,
        "open, replayed": lambda: b.open(datagram, 1_000, end, 500, opened),
        "open, refused": lambda: refused(ValueError, b.open, datagram, 1_000, 99_999, 500, opened),
        "send_counter": lambda: a.send_counter,
        "local_index": lambda: a.local_index,
        "remote_index": lambda: a.remote_index,
        "hand_over": spent.hand_over,
        "forget_ledger": spent.forget_ledger,
    }


@pytest.fixture
def calls(make_pair: MakePair) -> Mapping[str, Callable[[], object]]:
    return calls_of(make_pair)


def test_every_function_is_called(make_pair: MakePair) -> None:
    """A new one needs its call above."""
    public = {name for name in vars(type(make_pair().a)) if not name.startswith("_")}
    assert public
    assert public <= set(NAMES) == set(calls_of(make_pair))


@pytest.mark.parametrize("name", NAMES)
def test_no_call_keeps_memory(
    name: str, calls: Mapping[str, Callable[[], object]], request: pytest.FixtureRequest
) -> None:
    call = calls[name]
    count = CALLS[request.node.callspec.params["make_pair"][0]]
    for _ in range(count // 10):
        call()
    blocks, size = allocated()
    for _ in range(count):
        call()
    more_blocks, more_size = (
        now - then for now, then in zip(allocated(), (blocks, size), strict=True)
    )
    assert more_blocks < count / 10
    assert more_size < count * BYTES
