"""A bad wire in user space: TAP devices, and what carries frames between them.

Two of them are the ends of a cable, more are the ports of a switch. `UserWire` runs in a thread,
for tests, with a device in each host:

    with UserWire([a, b], Faults(delay=0.05, reorder=0.1)) as wire:
        a.add_addresses(wire.interfaces[0], ["192.0.2.1/24"])
        ...

`Lab.wire` starts the same as a process of the lab, which stays as long as the lab does:

    python -m tunnel.lab.wire SEED FAULTS NETNS INTERFACE NETNS INTERFACE …
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import json
import os
import secrets
import select
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Protocol

from tunnel.io.tun import VNET_HDR_LEN, Tun, TunOffload
from tunnel.lab.weather import Faults, Rebinding, Spoiler
from tunnel.linux.netns import call_inside

_LARGEST = 65_535
_QUEUE_LIMIT = 10_000
_BUDGET = 64
"""Frames that are read from one device before the others are looked at."""

READY = "the wire carries"
"""What the process prints when frames pass."""


class WiredHost(Protocol):
    """What a wire has to know of a host."""

    @property
    def netns_path(self) -> str:
        """Path of its network namespace."""

    def next_interface(self) -> str:
        """A name for a new interface."""

    def ip(self, *lines: str) -> None:
        """Run lines of `ip` commands."""


class Carrier:
    """Carries frames between devices until it is stopped. `faults` may be replaced at any time.

    `counts` are those of a `Spoiler`, and "carried" (frames that arrived), "forgotten" (for a
    mapping of a NAT that there is no more), "overflowed" (the queue was full) and "refused" (by
    the device).
    """

    def __init__(self, taps: Sequence[Tun], faults: Faults, seed: int) -> None:
        self.faults = faults
        self.counts: Counter[str] = Counter()
        self._taps = taps
        self._spoilers = [Spoiler(f"{seed}/{number}", self.counts) for number in range(len(taps))]
        self._rebinding = Rebinding(f"{seed}/ports")
        self._start = time.monotonic()
        self._behind: dict[bytes, int] = {}
        self._queue: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    @property
    def waiting(self) -> int:
        """Frames held back at this moment."""
        return len(self._queue)

    def run(self, stop: int) -> None:
        """Carry until the descriptor `stop` can be read."""
        ports = {tap.fileno(): number for number, tap in enumerate(self._taps)}
        while True:
            bound = max(0.0, self._queue[0][0] - time.monotonic()) if self._queue else None
            ready, _, _ = select.select([*ports, stop], [], [], bound)
            if stop in ready:
                return
            for descriptor in ready:
                if not self._read(descriptor, ports[descriptor]):
                    del ports[descriptor]
            now = time.monotonic()
            while self._queue and self._queue[0][0] <= now:
                _, _, port, frame = heapq.heappop(self._queue)
                self._write(port, frame)

    def _read(self, descriptor: int, port: int) -> bool:
        """Take what waits there; False if the device is gone."""
        for _ in range(_BUDGET):
            try:
                frame = os.read(descriptor, _LARGEST)[VNET_HDR_LEN:]
            except BlockingIOError:
                return True
            except OSError as error:
                return error.errno != errno.EBADFD
            self._take(port, frame)
        return True

    def _take(self, port: int, frame: bytes) -> None:
        now, faults = time.monotonic(), self.faults
        target, source = frame[:6], frame[6:12]
        self._behind[source] = port
        if faults.rebind and port == 0:
            frame = self._rebinding.outward(frame, faults.rebind, now - self._start)
        # To the port behind which that address was seen, or to all.
        found = self._behind.get(target)
        targets = range(len(self._taps)) if found is None else [found]
        for late, spoiled in self._spoilers[port].spoil(frame, faults, now):
            for other in targets:
                if other == port:
                    continue
                if len(self._queue) >= _QUEUE_LIMIT:
                    self.counts["overflowed"] += 1
                    continue
                self._count += 1
                heapq.heappush(self._queue, (late, self._count, other, spoiled))

    def _write(self, port: int, frame: bytes) -> None:
        if self.faults.rebind and port == 0:
            elapsed = time.monotonic() - self._start
            inward = self._rebinding.inward(frame, self.faults.rebind, elapsed)
            if inward is None:
                self.counts["forgotten"] += 1
                return
            frame = inward
        try:
            os.write(self._taps[port].fileno(), bytes(VNET_HDR_LEN) + frame)
        except OSError:  # the interface is down, or its queue is full
            self.counts["refused"] += 1
        else:
            self.counts["carried"] += 1


def plug_in(netns: str, interface: str) -> Tun:
    """A TAP device in a namespace, of which the kernel wants whole frames with their checksums."""
    mac = b"\x02" + secrets.token_bytes(5)
    return call_inside(netns, lambda: Tun.open(interface, offloads=TunOffload.NONE, mac=mac))


class UserWire:
    """A wire between hosts, each of which has one more interface; carries in a thread."""

    def __init__(self, hosts: Sequence[WiredHost], faults: Faults, *, seed: int = 0) -> None:
        self.interfaces = [host.next_interface() for host in hosts]
        with contextlib.ExitStack() as stack:
            taps = []
            for host, interface in zip(hosts, self.interfaces, strict=True):
                taps.append(plug_in(host.netns_path, interface))
                stack.callback(taps[-1].close)
                host.ip(f"link set {interface} up")
            self.carrier = Carrier(taps, faults, seed)
            self._stop, self._stopper = os.pipe()
            stack.callback(os.close, self._stop)
            stack.callback(os.close, self._stopper)
            self._stack = stack.pop_all()
        self._thread = threading.Thread(
            target=self.carrier.run, args=(self._stop,), name="lab-wire", daemon=True
        )

    def __enter__(self) -> UserWire:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.write(self._stopper, b"x")
        self._thread.join()
        self._stack.close()


def command(seed: int, faults: Faults, ends: Sequence[tuple[str, str]]) -> list[str]:
    """The words that start the process, for (namespace, interface) pairs."""
    words = [word for end in ends for word in end]
    return [sys.executable, "-m", "tunnel.lab.wire", str(seed), json.dumps(asdict(faults)), *words]


def main(seed: str, faults: str, *ends: str) -> None:
    """Carry until the process is ended."""
    taps = [plug_in(*end) for end in zip(ends[::2], ends[1::2], strict=True)]
    never, _ = os.pipe()
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    Carrier(taps, Faults(**json.loads(faults)), int(seed)).run(never)


if __name__ == "__main__":
    main(*sys.argv[1:])
