"""Frames of one peer that wait for a keypair: a bounded queue, oldest dropped first."""

from collections import deque

from .constants import MAX_STAGED_BYTES, MAX_STAGED_BYTES_PER_PEER, MAX_STAGED_FRAMES
from .context import InterfaceState


class Staged:
    """At most 128 frames and 1 MiB, and 32 MiB together with all other peers of the interface."""

    __slots__ = ("_bytes", "_frames", "_shared")

    def __init__(self, shared: InterfaceState) -> None:
        self._shared = shared
        # Most peers never stage anything, and an empty deque takes 700 bytes.
        self._frames: deque[bytes] | None = None
        self._bytes = 0

    def __len__(self) -> int:
        return 0 if self._frames is None else len(self._frames)

    def push(self, frame: bytes) -> int:
        """Append `frame`; how many frames had to be dropped, this one included if none was left."""
        size = len(frame)
        if self._frames is None:
            self._frames = deque()
        frames = self._frames
        dropped = 0
        while frames and (len(frames) >= MAX_STAGED_FRAMES or not self._fits(size)):
            self._account(-len(frames.popleft()))
            dropped += 1
        if not self._fits(size):
            return dropped + 1
        frames.append(frame)
        self._account(size)
        return dropped

    def take(self) -> tuple[bytes, ...]:
        """All frames, oldest first; none is left."""
        if not self._frames:
            return ()
        frames = tuple(self._frames)
        self._frames = None
        self._account(-self._bytes)
        return frames

    def _fits(self, size: int) -> bool:
        return (
            self._bytes + size <= MAX_STAGED_BYTES_PER_PEER
            and self._shared.staged_bytes + size <= MAX_STAGED_BYTES
        )

    def _account(self, change: int) -> None:
        self._bytes += change
        self._shared.staged_bytes += change
