"""Memory that a process has and does not use: madvise(2), proc_pid_smaps(5)."""

from __future__ import annotations

import contextlib
import ctypes
import re
from typing import Final

_libc = ctypes.CDLL(None)
_MADV_DONTNEED: Final = 4
_MADV_DONTNEED_LOCKED: Final = 24
"""Since Linux 5.18. The other one refuses what mlockall has locked."""

_CLEAN: Final = re.compile(
    # First to last address, rights, offset, device, inode, path; then a line of each figure.
    rb"^([0-9a-f]+)-([0-9a-f]+) r-.. \S+ \S+ [1-9]\d* .*\n"
    rb"(?:[A-Z].*\n)*?Anonymous: +0 kB\n(?:[A-Z].*\n)*?Swap: +0 kB$",
    re.MULTILINE,
)
"""Mappings of files of which no page was written: each page is as it is in the file. One that was
written and is in swap space does not count as anonymous."""


def release_unused() -> None:
    """Give back what starting took: free memory, and code and constants of files.

    What is used again of the files comes back by itself out of the page cache. The rest no longer
    counts as memory of this process, and the kernel may use it for something else, which it may not
    while it is locked. Without /proc, only free memory is given back.
    """
    # Other C libraries have no such function.
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)
    with contextlib.suppress(OSError), open("/proc/self/smaps", "rb") as file:
        for found in _CLEAN.finditer(file.read()):
            start, end = (int(word, 16) for word in found.groups())
            place = ctypes.c_void_p(start), ctypes.c_size_t(end - start)
            if _libc.madvise(*place, _MADV_DONTNEED_LOCKED):
                _libc.madvise(*place, _MADV_DONTNEED)
