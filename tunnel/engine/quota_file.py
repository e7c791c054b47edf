"""The file in which it is kept how much of its quota a peer has used, beyond daemon and boot.

Entries of 64 bytes, one for each peer that ever had a quota here: digest of the rest, 16 bytes;
public key, 32 bytes; when the period began, in Unix seconds, and the bytes used since, u64 each,
little-endian. An entry is written in place before the packets that it counts go on, so what a
killed process let through is counted; of a machine that loses its power, the last half minute or so
may not be. A damaged entry counts as none. The digest is BLAKE2s.
"""

from __future__ import annotations

import contextlib
import logging
import os
from hashlib import blake2s
from pathlib import Path
from struct import Struct
from typing import Final

log = logging.getLogger("tunnel")

_DIGEST: Final = 16
_BODY: Final = Struct("<32sQQ")
_ENTRY: Final = _DIGEST + _BODY.size
_MAX_ENTRIES: Final = 1 << 20


class QuotaFile:
    """What each peer has used, by its public key: the start of the period, and bytes.

    The file at `path` is read, or made, when the first peer is asked for; without a path there is
    none. What cannot be kept there is known in memory, and `problem` says why, in words.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._fd = -1
        self._places: dict[bytes, int] = {}
        self._used: dict[bytes, tuple[int, int]] = {}
        self._next = 0
        self.problem = ""

    def _open(self, path: Path) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o600)
            self._read()
        except OSError as error:
            self._fail(path, error)

    def _fail(self, path: Path, error: OSError) -> None:
        if not self.problem:
            log.warning("%s: %s; what peers use of their quotas may be lost", path, error.strerror)
        self.problem = f"{path}: {error.strerror}"

    def _read(self) -> None:
        size = min(os.fstat(self._fd).st_size, _MAX_ENTRIES * _ENTRY)
        data = os.pread(self._fd, size, 0)
        self._next = -(-len(data) // _ENTRY)
        for number in range(len(data) // _ENTRY):
            found = _entry_untrusted(data[number * _ENTRY : (number + 1) * _ENTRY])
            if found is not None:
                key, begun, used = found
                self._places[key] = number
                self._used[key] = begun, used

    def close(self) -> None:
        """Write all to the disk, and close it."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):
                os.fsync(fd)
            os.close(fd)

    def get(self, key: bytes) -> tuple[int, int]:
        """When the period of this peer began, and what it has used; zeros if that is not known."""
        if self._path is not None and self._fd < 0:
            self._open(self._path)
        return self._used.get(key, (0, 0))

    def set(self, key: bytes, begun: int, used: int) -> None:
        """Keep that of a peer that was asked for."""
        self._used[key] = begun, used
        if self._path is None or self._fd < 0:
            return
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = self._next
            self._next += 1
        body = _BODY.pack(key, begun, used)
        try:
            os.pwrite(self._fd, _digest(body) + body, place * _ENTRY)
        except OSError as error:
            self._fail(self._path, error)
        else:
            self.problem = ""


def _entry_untrusted(entry: bytes) -> tuple[bytes, int, int] | None:
    digest, body = entry[:_DIGEST], entry[_DIGEST:]
    return _BODY.unpack(body) if digest == _digest(body) else None


def _digest(body: bytes) -> bytes:
    return blake2s(body, digest_size=_DIGEST).digest()
