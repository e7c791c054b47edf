"""Which kernels damage batches of datagrams that are all equally long.

Linux 7.0 segments such a batch (UDP_SEGMENT) with wrong lengths and checksums in its UDP headers,
if the network interface leaves a part of it to the kernel; 7.1.5 has the fixes. The send succeeds,
and nothing that a sender can see shows the loss; a batch whose last datagram is shorter arrives.
Source: commit b10b446 of Linux 7.0-rc1, "udp: gso: Use single MSS length in UDP header for
GSO_PARTIAL", and those that fix it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

_FIRST: Final = (7, 0, 0)
_FIXED: Final = (7, 1, 5)
_VERSION: Final = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_SIGNATURE: Final = Path("/proc/version_signature")


def kernel_version() -> str:
    """The version of Linux that runs: the release's name, or what Ubuntu says it was made from.

    Ubuntu calls a release 7.0.0-14-generic whatever stable version is in it; the last word of
    `/proc/version_signature` is that version.
    """
    try:
        words = _SIGNATURE.read_text().split()
    except OSError:
        words = []
    return words[2] if len(words) == 3 else os.uname().release


def damages_equal_batches(version: str) -> bool:
    """Whether a Linux of that version (`7.0.2-6-pve`) may damage batches of equal datagrams.

    A distribution that has taken over the fixes earlier is not recognized, as its number does not
    say so: then a batch gets a tail that it does not need.
    """
    found = _VERSION.match(version)
    if found is None:
        return False
    return _FIRST <= tuple(int(number or 0) for number in found.groups()) < _FIXED
