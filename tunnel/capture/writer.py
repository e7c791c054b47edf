"""Where a capture is written: one file, a pipe, or a ring of files; packets in order of time."""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import stat
from collections import deque
from pathlib import Path
from typing import BinaryIO, Self

REORDERING_NS = 100_000_000
"""Nanoseconds a packet waits for earlier ones of another interface, and for keys it needs."""

KEPT_SECRETS = 256
"""Blocks of secrets repeated in the next file of a ring: handshakes may have just begun."""


class Recording:
    """Blocks on their way to a file; use as a context manager.

    `target` is a path, or a stream that is already open. `preamble` begins every file. With `ring`
    above 0, a file that has `size` bytes is followed by another, numbered, and no more than `ring`
    of them are kept. Files are readable only by their owner. Raises OSError as the disk does, and
    BrokenPipeError when the reader of a pipe has gone. No more than `limit` packets are written if
    it is above 0.
    """

    def __init__(
        self,
        target: Path | BinaryIO,
        *,
        preamble: bytes,
        ring: int = 0,
        size: int = 0,
        limit: int = 0,
    ) -> None:
        self._target = target
        self._preamble = preamble
        self._ring, self._size, self._limit = ring, size, limit
        self._waiting: list[tuple[int, int, bytes]] = []
        self._secrets: deque[bytes] = deque(maxlen=KEPT_SECRETS)
        self._files: deque[Path] = deque()
        self._numbered = 0
        self._added = 0
        self._length = 0
        self.written = 0
        """Packets in the files so far, of those that were removed too."""
        self._output = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        # Closing tries again to write what is buffered: what failed is known already.
        with contextlib.suppress(OSError if failed else BrokenPipeError):
            self._output.close()

    @property
    def full(self) -> bool:
        """Whether `limit` is reached."""
        return 0 < self._limit <= self.written

    def add_secrets(self, block: bytes) -> None:
        """Write `block` ahead of all packets that still wait."""
        self._secrets.append(block)
        self._write(block)

    def add_packet(self, time_ns: int, block: bytes) -> None:
        """Take a packet that was seen at `time_ns`."""
        self._added += 1
        heapq.heappush(self._waiting, (time_ns, self._added, block))

    def write_until(self, time_ns: int | None) -> None:
        """Write the packets seen until `time_ns`, or all."""
        waiting = self._waiting
        while waiting and not self.full and (time_ns is None or waiting[0][0] <= time_ns):
            _, _, block = heapq.heappop(waiting)
            if self._ring and self._length and self._length + len(block) > self._size:
                self._output.close()
                self._output = self._open()
            self._write(block)
            self._length += len(block)
            self.written += 1
        self._output.flush()

    def finish(self, blocks: bytes) -> None:
        """Write the packets that still wait, and then `blocks`."""
        self.write_until(None)
        self._write(blocks)
        self._output.flush()

    def _write(self, block: bytes) -> None:
        self._output.write(block)

    def _open(self) -> BinaryIO:
        if not isinstance(self._target, Path):
            output = self._target
        else:
            path = self._target
            if self._ring:
                self._numbered += 1
                path = path.with_name(f"{path.stem}-{self._numbered:05}{path.suffix}")
                self._files.append(path)
                while len(self._files) > self._ring:
                    self._files.popleft().unlink(missing_ok=True)
            output = _private_file(path)
        output.write(self._preamble + b"".join(self._secrets))
        self._length = 0
        return output


def _private_file(path: Path) -> BinaryIO:
    owners = (0, os.geteuid())
    # In a folder that others write into, such as /tmp, a link leads to a file of their choice, and
    # a file of theirs is read by them.
    link = path.lstat() if path.is_symlink() else None
    if link is not None and link.st_uid not in owners:
        raise PermissionError(errno.EPERM, "it is a symbolic link of another user", str(path))
    follow = 0 if link is not None else os.O_NOFOLLOW
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | follow, 0o600)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        if status.st_uid not in owners:
            os.close(descriptor)
            raise PermissionError(errno.EPERM, "it is a file of another user", str(path))
        os.fchmod(descriptor, 0o600)  # it may have been there, and readable by others
        os.ftruncate(descriptor, 0)
    return os.fdopen(descriptor, "wb")
