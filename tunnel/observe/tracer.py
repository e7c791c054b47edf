"""What the engine tells of single packets while somebody traces them.

The engine's `tracer` is None but for that time. With one it handles one frame and one datagram at
a time, so that each is known by its own counter; it asks nothing and changes nothing else.
"""

from __future__ import annotations

from typing import Any, Protocol

Peer = Any
Session = Any
Endpoint = Any


class Tracer(Protocol):
    """Gets a call for every step. Must neither block nor raise, nor keep the buffers."""

    def frame_read(self, view: memoryview, start: int, end: int, peer: Peer | None) -> None:
        """The TUN gave the frame ``view[start:end]``; it is for `peer`, or for nobody: dropped."""

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
        """`frame`, read at offset `start`, was sealed from `counter` on (`datapath.Sealed`)."""

    def sent(self, endpoint: Endpoint | None, drop: str | None) -> None:
        """The first batch of the frame sealed last left for `endpoint`, or was dropped."""

    def datagram_received(
        self, endpoint: Endpoint, buffer: bytearray, start: int, end: int
    ) -> None:
        """The datagram ``buffer[start:end]`` of data came from `endpoint`.

        `buffer` begins with the first datagram that the socket gave together with it.
        """

    def datagram_opened(self, peer: Peer | None, opened: Any, out: bytearray) -> None:
        """What became of it (`datapath.Opened`), with its packet in `out`.

        Without a session, both `peer` and `opened` are None.
        """

    def packet_delivered(self, drop: str | None) -> None:
        """The packet opened last was written into the TUN, or dropped."""
