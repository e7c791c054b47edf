"""The instrument seam: single packets on their way through the engine, for those who watch.

The engine has one tracer or none. Without one, each step costs the data path one `is None`. With
one, the engine seals and opens together only what the tracer allows, so that each packet is known
by its own counter; nothing else of what the engine does depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tunnel.datapath import Opened, Sealed, Session
from tunnel.io.endpoint import Endpoint

from .common import Peer, Span


class Tracer(Protocol):
    """Called at every step. Must neither block nor raise, nor keep the buffers."""

    def frame_read(self, view: memoryview, start: int, end: int, drop: str | None) -> None:
        """The TUN gave the frame ``view[start:end]``; with `drop`, it was dropped."""

    def together(self, frames: memoryview, spans: list[Span]) -> int:
        """How many of the first `spans` to seal in one go; asked just before that is done."""

    @property
    def opens_apart(self) -> bool:
        """Whether datagrams are to be opened one at a time; asked before each opening."""

    def frames_staged(self, peer: Peer, view: memoryview, spans: list[Span]) -> None:
        """There is no keypair with `peer`: these frames wait for one."""

    def frame_sealed(
        self,
        peer: Peer,
        session: Session,
        frame: memoryview,
        start: int,
        counter: int,
        sealed: Sealed,
    ) -> None:
        """`frame`, read at offset `start`, was sealed from `counter` on.

        Those that `together` allowed with it were sealed, too, as far as there was room.
        """

    def sending(self) -> None:
        """A batch is about to be passed to the kernel."""

    def sent(self, endpoint: Endpoint | None, drop: str | None) -> None:
        """The first batch of the frame sealed last was sent to `endpoint`, or was dropped."""

    def datagrams_received(
        self, endpoint: Endpoint, buffer: bytearray, start: int, end: int, stride: int
    ) -> None:
        """Datagrams of data, ``buffer[start:end]`` cut every `stride` bytes, came from `endpoint`.

        It is one if they have to be `opens_apart`. `buffer` begins with the first datagram that the
        socket gave together with it; it stays as it is until they are opened.
        """

    def datagrams_opened(self, peer: Peer | None, opened: Opened | None, out: bytearray) -> None:
        """What became of them, with their packets in `out`.

        Without a keypair, both `peer` and `opened` are None.
        """

    def source_allowed(self) -> None:
        """The packet opened last comes from an allowed source, and is about to be written."""

    def packet_delivered(self, drop: str | None) -> None:
        """The packet opened last was written into the TUN, or dropped."""


class TracerGroup:
    """Several tracers as one: each call goes to one after the other."""

    def __init__(self, tracers: Sequence[Tracer]) -> None:
        self._tracers = tracers

    def frame_read(self, view: memoryview, start: int, end: int, drop: str | None) -> None:
        """Call all."""
        for tracer in self._tracers:
            tracer.frame_read(view, start, end, drop)

    def together(self, frames: memoryview, spans: list[Span]) -> int:
        """As many as all allow."""
        return min(tracer.together(frames, spans) for tracer in self._tracers)

    @property
    def opens_apart(self) -> bool:
        """Whether one of them wants that."""
        return any(tracer.opens_apart for tracer in self._tracers)

    def frames_staged(self, peer: Peer, view: memoryview, spans: list[Span]) -> None:
        """Call all."""
        for tracer in self._tracers:
            tracer.frames_staged(peer, view, spans)

    def frame_sealed(
        self,
        peer: Peer,
        session: Session,
        frame: memoryview,
        start: int,
        counter: int,
        sealed: Sealed,
    ) -> None:
        """Call all."""
        for tracer in self._tracers:
            tracer.frame_sealed(peer, session, frame, start, counter, sealed)

    def sending(self) -> None:
        """Call all."""
        for tracer in self._tracers:
            tracer.sending()

    def sent(self, endpoint: Endpoint | None, drop: str | None) -> None:
        """Call all."""
        for tracer in self._tracers:
            tracer.sent(endpoint, drop)

    def datagrams_received(
        self, endpoint: Endpoint, buffer: bytearray, start: int, end: int, stride: int
    ) -> None:
        """Call all."""
        for tracer in self._tracers:
            tracer.datagrams_received(endpoint, buffer, start, end, stride)

    def datagrams_opened(self, peer: Peer | None, opened: Opened | None, out: bytearray) -> None:
        """Call all."""
        for tracer in self._tracers:
            tracer.datagrams_opened(peer, opened, out)

    def source_allowed(self) -> None:
        """Call all."""
        for tracer in self._tracers:
            tracer.source_allowed()

    def packet_delivered(self, drop: str | None) -> None:
        """Call all."""
        for tracer in self._tracers:
            tracer.packet_delivered(drop)


def joined(*tracers: Tracer | None) -> Tracer | None:
    """One tracer for all those that are not None; None if none is."""
    present = [tracer for tracer in tracers if tracer is not None]
    return TracerGroup(present) if len(present) > 1 else next(iter(present), None)
