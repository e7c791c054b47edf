"""A flood of datagrams that no one asked for, as a program in a host of a lab.

    python -m tunnel.bench.junk ADDRESS PORT RATE SECONDS

Half of them are no message of WireGuard, half are initiations by one who does not know the
receiver's public key. 64 datagrams go out in one call, which the kernel cuts (UDP_SEGMENT), so that
the flood itself costs little. It ends after SECONDS at the latest.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import time

from tunnel.linux import kernel

BURST = 64
SIZE = 148
"""Bytes of an initiation."""


def datagrams(count: int) -> bytes:
    """That many back to back, of both kinds in turn."""
    kinds = itertools.cycle((b"\x07", b"\x01\x00\x00\x00"))
    return b"".join(head + os.urandom(SIZE - len(head)) for head in itertools.islice(kinds, count))


def flood(target: tuple[str, int], rate: float, seconds: float) -> int:
    """Send `rate` datagrams a second for `seconds`; how many were sent."""
    batches = itertools.cycle([datagrams(BURST) for _ in range(16)])
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(kernel.SOL_UDP, kernel.UDP_SEGMENT, SIZE)
        sock.connect(target)
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            if sent > now * rate:
                time.sleep(BURST / rate)
                continue
            try:
                sock.send(next(batches))
            except ConnectionRefusedError:
                continue  # of an earlier batch: no one listens there
            sent += BURST
    return sent


def main() -> None:
    """Flood whom the command line names."""
    address, port, rate, seconds = sys.argv[1:]
    sys.stdout.write("begins\n")
    sys.stdout.flush()
    flood((address, int(port)), float(rate), float(seconds))


if __name__ == "__main__":
    main()
