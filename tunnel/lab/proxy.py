"""A UDP proxy that is a bad network: delay, reordering, duplicates, damage and loss, seeded.

It stands in a host of the lab and forwards what comes to its port to one target, and the
answers back to the last sender of each port, as a NAT would:

    with UdpProxy(router, ("192.0.2.2", 51820), faults=Faults(delay=0.05, reorder=0.1)) as proxy:
        ...  # peers send to proxy.address
"""

from __future__ import annotations

import heapq
import random
import selectors
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType

from tunnel.lab.host import Host

_LARGEST = 65_535
_QUEUE_LIMIT = 10_000
_CLIENT_LIMIT = 1_000

Address = tuple[str, int]


@dataclass(frozen=True)
class Faults:
    """What happens to each datagram, in both directions; the shares are between 0 and 1.

    `delay` is in seconds, `jitter` is added to it, uniformly up to that many seconds.
    A reordered datagram is held back for `reorder_delay` seconds more.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0
    reorder_delay: float = 0.01


class UdpProxy:
    """A proxy in `host` to `target`; runs in a thread from `__enter__` to `__exit__`.

    `faults` may be replaced at any time. `counts` says what was done: "forwarded" (copies
    sent), "lost", "duplicated", "corrupted", "reordered", "overflowed" (the queue or the
    number of clients was at its limit), "refused" (the kernel did not take it).
    """

    def __init__(
        self,
        host: Host,
        target: Address,
        *,
        listen: Address | None = None,
        faults: Faults | None = None,
        seed: int = 0,
    ) -> None:
        self.target = target
        self.faults = faults or Faults()
        self.counts: Counter[str] = Counter()
        self._host = host
        self._random = random.Random(seed)
        self._family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        any_address = "::" if self._family == socket.AF_INET6 else "0.0.0.0"
        self._selector = selectors.DefaultSelector()
        self._front = self._socket(listen or (any_address, 0))
        self._clients: dict[Address, socket.socket] = {}
        self._queue: list[tuple[float, int, socket.socket, bytes, Address | None]] = []
        self._count = 0
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="lab-udp-proxy", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._front.getsockname()[1]
        return port

    @property
    def waiting(self) -> int:
        """Datagrams held back at this moment."""
        return len(self._queue)

    def _socket(self, address: Address | None) -> socket.socket:
        made = self._host.socket(self._family, socket.SOCK_DGRAM)
        made.setblocking(False)
        if address is not None:
            made.bind(address)
        self._selector.register(made, selectors.EVENT_READ)
        return made

    def __enter__(self) -> UdpProxy:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._wake.send(b"x")
        self._thread.join()
        self._selector.close()
        for used in (self._front, *self._clients.values(), self._wake, self._woken):
            used.close()

    def _run(self) -> None:
        while True:
            bound = max(0.0, self._queue[0][0] - time.monotonic()) if self._queue else None
            for key, _ in self._selector.select(bound):
                if key.fileobj is self._woken:
                    return
                assert isinstance(key.fileobj, socket.socket)
                self._receive(key.fileobj)
            now = time.monotonic()
            while self._queue and self._queue[0][0] <= now:
                _, _, out, data, address = heapq.heappop(self._queue)
                self._send(out, data, address)

    def _receive(self, source: socket.socket) -> None:
        try:
            data, sender = source.recvfrom(_LARGEST)
        except OSError:  # an ICMP error for something sent before
            self.counts["refused"] += 1
            return
        if source is self._front:
            client = self._clients.get(sender[:2])
            if client is None:
                if len(self._clients) >= _CLIENT_LIMIT:
                    self.counts["overflowed"] += 1
                    return
                client = self._clients[sender[:2]] = self._socket(None)
                client.connect(self.target)
            self._schedule(client, data, None)
            return
        for address, client in self._clients.items():
            if client is source:
                self._schedule(self._front, data, address)
                return

    def _schedule(self, out: socket.socket, data: bytes, address: Address | None) -> None:
        faults, chance = self.faults, self._random.random
        if chance() < faults.loss:
            self.counts["lost"] += 1
            return
        copies = 1
        if chance() < faults.duplicate:
            self.counts["duplicated"] += 1
            copies = 2
        if data and chance() < faults.corrupt:
            self.counts["corrupted"] += 1
            damaged = bytearray(data)
            damaged[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
            data = bytes(damaged)
        due = time.monotonic() + faults.delay
        if chance() < faults.reorder:
            self.counts["reordered"] += 1
            due += faults.reorder_delay
        for _ in range(copies):
            if len(self._queue) >= _QUEUE_LIMIT:
                self.counts["overflowed"] += 1
                return
            self._count += 1
            late = due + faults.jitter * chance()
            heapq.heappush(self._queue, (late, self._count, out, data, address))

    def _send(self, out: socket.socket, data: bytes, address: Address | None) -> None:
        try:
            if address is None:
                out.send(data)
            else:
                out.sendto(data, address)
        except OSError:
            self.counts["refused"] += 1
        else:
            self.counts["forwarded"] += 1
