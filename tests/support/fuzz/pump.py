"""What the compiled pump reads by itself: frames of the TUN, and datagrams of the socket."""

from __future__ import annotations

from contextlib import closing

from tests.support.datapaths import A_KEY, B_KEY, message
from tests.support.fuzz.target import Target
from tests.support.fuzz.wire import PACKETS, fields
from tests.support.pumps import A, B, End, frame
from tunnel import datapath
from tunnel.datapath.pump import Datagrams, Frames

MOST = 32
"""Pieces of an input that are tried; the buffers of the sockets have room for them."""


def run_pump(data: bytes) -> None:
    """Two ends that know each other. Nothing is lost sight of; only what the other end has sealed
    is delivered, and only from its inner address.
    """
    (mode, length), rest = fields(data, 1, 2)
    length = length % 1500 + 1
    pieces = [rest[at : at + length] for at in range(0, len(rest), length)][:MOST]
    if "native" not in datapath.available() or not pieces:
        return
    with (
        closing(End(1, 2, (A_KEY, B_KEY))) as near,
        closing(End(2, 1, (B_KEY, A_KEY))) as far,
    ):
        near.teach(A, B, far.port)
        far.teach(B, A, near.port)
        far.pump.set_mac1_key(bytes(32))
        if mode & 1:
            send_frames(near, [frame(A, B, each) if mode & 2 else each for each in pieces])
        else:
            send_datagrams(near, far, pieces, mode)
        receive(far, mode, is_sealed=bool(mode & 5))


def send_frames(end: End, frames: list[bytes]) -> None:
    """Each is sealed, dropped, or given back as it is."""
    for each in frames:
        end.kernel.send(each)
    read = 0
    while read < len(frames):
        sent = end.send()
        dropped = sum((sent.drops or {}).values())
        given_back = end.left(sent)
        assert 0 < sent.frames <= len(frames) - read
        assert all(each in frames[read : read + sent.frames] for each in given_back)
        assert len(given_back) + dropped + sum(one.packets for one in sent.sealed) >= sent.frames
        assert not sent.unsent
        assert not sent.error
        read += sent.frames


def send_datagrams(near: End, far: End, pieces: list[bytes], mode: int) -> None:
    """As they are, as data of the session with a wrong tag, or sealed by the other end."""
    for number, piece in enumerate(pieces):
        datagram = piece
        if mode & 4:
            datagram = message(piece, number)
        elif mode & 2:
            datagram = b"\4\0\0\0\2\0\0\0" + piece
        near.udp.sendto(datagram, far.udp.getsockname())


def receive(end: End, mode: int, *, is_sealed: bool) -> None:
    """Take all that has come."""
    for _ in range(2 * MOST + 1):
        incoming = end.receive(
            lone=bool(mode & 8),
            look=bool(mode & 16),
            may_answer=bool(mode & 32),
            show_forged=bool(mode & 64),
            gather=bool(mode & 128),
        )
        assert is_sealed or not incoming.opened, "one without a key has sent a packet"
        assert incoming.stop is None or isinstance(incoming.stop, Datagrams | Frames)
        if incoming.stop is None and not incoming.batches:
            break
    else:
        raise AssertionError("it does not come to an end")
    for delivered in end.delivered():
        assert is_sealed, "one without a key has sent a packet"
        assert delivered[10 + 12 : 10 + 16] == A, "from a foreign address"


TARGETS = (
    Target(
        name="pump",
        reads=(),
        run=run_pump,
        base=20_000,
        per_byte=100,
        words=(b"\1\0\0\0", b"\4\0\0\0\2\0\0\0", bytes(10), *PACKETS),
    ),
)
