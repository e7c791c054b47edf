"""The command `tunnel` with a wall clock of its own, and rights that can be taken from it.

python -m tests.support.doctor_program SECONDS ARGUMENTS…

The clock is SECONDS ahead of the machine's; one that begins with = is that Unix time. After SIGUSR1
the process lacks CAP_NET_ADMIN.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import time

CAP_NET_ADMIN = 12
VERSION_3 = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3 (linux/capability.h)."""


def shift_clock(words: str) -> None:
    """Before anything takes `time.time` or `time.time_ns` for itself."""
    ahead = float(words.removeprefix("=")) - (time.time() if words.startswith("=") else 0.0)
    seconds, nanoseconds = time.time, time.time_ns
    time.time = lambda: seconds() + ahead
    time.time_ns = lambda: nanoseconds() + int(ahead * 1e9)


def drop_net_admin(*_: object) -> None:
    """Give it away, for this thread and those that it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    for place in range(3):
        sets[place] &= ~(1 << CAP_NET_ADMIN)
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    shift_clock(sys.argv.pop(1))
    signal.signal(signal.SIGUSR1, drop_net_admin)
    from tunnel.cli.entry import run

    run()
