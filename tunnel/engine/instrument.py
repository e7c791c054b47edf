"""What the engine tells of single packets while somebody wants to know.

Nobody is told but for that time. While somebody is, the engine seals and opens together only what
the tracer lets it, so that each is known by its own counter; it asks nothing and changes nothing
else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Peer = Any
Session = Any
Endpoint = Any


class Tracer(Protocol):
    """Gets a call for every step. Must neither block nor raise, nor keep the buffers."""

    def frame_read(self, view: memoryview, start: int, end: int, peer: Peer | None) -> None:
        """The TUN gave the frame ``view[start:end]``; it is for `peer`, or for nobody: dropped."""

    def together(self, frames: memoryview, spans: list[tuple[int, int]]) -> int:
        """How many of the first `spans` to seal in one go; asked just before that is done."""

    @property
    def opens_apart(self) -> bool:
        """Whether datagrams are to be opened one at a time; asked before each opening."""

    def frames_staged(self, peer: Peer, view: memoryview, spans: list[tuple[int, int]]) -> None:
        """There is no session with `peer`: these frames wait for one."""

    def frame_sealed(
        self,
        peer: Peer,
        session: Session,
        frame: memoryview,
        start: int,
        counter: int,
        sealed: Any,
    ) -> None:
        """`frame`, read at offset `start`, was sealed from `counter` on (`datapath.Sealed`).

        Those that `together` let go with it were sealed, too, as far as there was room.
        """

    def sent(self, endpoint: Endpoint | None, drop: str | None) -> None:
        """The first batch of the frame sealed last left for `endpoint`, or was dropped."""

    def datagrams_received(
        self, endpoint: Endpoint, buffer: bytearray, start: int, end: int, stride: int
    ) -> None:
        """Datagrams of data, ``buffer[start:end]`` cut every `stride` bytes, came from `endpoint`.

        It is one if they have to be `opens_apart`. `buffer` begins with the first datagram that the
        socket gave together with it; it stays as it is until they are opened.
        """

    def datagrams_opened(self, peer: Peer | None, opened: Any, out: bytearray) -> None:
        """What became of them (`datapath.Opened`), with their packets in `out`.

        Without a session, both `peer` and `opened` are None.
        """

    def packet_delivered(self, drop: str | None) -> None:
        """The packet opened last was written into the TUN, or dropped."""


class Both:
    """Tells several tracers, one after the other; a Tracer itself."""

    def __init__(self, tracers: Sequence[Tracer]) -> None:
        self._tracers = tracers

    def frame_read(self, view: memoryview, start: int, end: int, peer: Peer | None) -> None:
        """Tell all."""
        for tracer in self._tracers:
            tracer.frame_read(view, start, end, peer)

    def together(self, frames: memoryview, spans: list[tuple[int, int]]) -> int:
        """As many as suits all."""
        return min(tracer.together(frames, spans) for tracer in self._tracers)

    @property
    def opens_apart(self) -> bool:
        """If that is what one of them wants."""
        return any(tracer.opens_apart for tracer in self._tracers)

    def frames_staged(self, peer: Peer, view: memoryview, spans: list[tuple[int, int]]) -> None:
        """Tell all."""
        for tracer in self._tracers:
            tracer.frames_staged(peer, view, spans)

    def frame_sealed(
        self,
        peer: Peer,
        session: Session,
        frame: memoryview,
        start: int,
        counter: int,
        sealed: Any,
    ) -> None:
        """Tell all."""
        for tracer in self._tracers:
            tracer.frame_sealed(peer, session, frame, start, counter, sealed)

    def sent(self, endpoint: Endpoint | None, drop: str | None) -> None:
        """Tell all."""
        for tracer in self._tracers:
            tracer.sent(endpoint, drop)

    def datagrams_received(
        self, endpoint: Endpoint, buffer: bytearray, start: int, end: int, stride: int
    ) -> None:
        """Tell all."""
        for tracer in self._tracers:
            tracer.datagrams_received(endpoint, buffer, start, end, stride)

    def datagrams_opened(self, peer: Peer | None, opened: Any, out: bytearray) -> None:
        """Tell all."""
        for tracer in self._tracers:
            tracer.datagrams_opened(peer, opened, out)

    def packet_delivered(self, drop: str | None) -> None:
        """Tell all."""
        for tracer in self._tracers:
            tracer.packet_delivered(drop)


def joined(*tracers: Tracer | None) -> Tracer | None:
    """One that tells all those there are; None if there are none."""
    present = [tracer for tracer in tracers if tracer is not None]
    return Both(present) if len(present) > 1 else next(iter(present), None)
