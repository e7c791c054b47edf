"""Numbered packets that are sent back: what a fault costs, in packets and in seconds."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from types import TracebackType

from tunnel.lab import Host, wait_for

PORT = 7
"""That of the echo service."""

_NUMBER = struct.Struct("!Q")


@dataclass(frozen=True)
class Mark:
    """A moment of a stream: the number of the next packet, and the time."""

    number: int
    time: float


@dataclass(frozen=True)
class Recovery:
    """What a fault has cost.

    `seconds` is from the end of the fault to the first answer to a packet sent since. `lost` are
    packets without an answer, of `sent` since the fault began; `refused` are those of them that
    the sender was refused by an error of its own kernel.
    """

    seconds: float
    lost: int
    sent: int
    refused: int


class Stream:
    """From `near` to `target`, an address of `far`, and back; runs while the `with` block does.

    One UDP packet of `size` bytes of payload leaves every `interval` seconds, whatever happens.
    """

    def __init__(
        self, near: Host, far: Host, target: str, *, interval: float = 0.01, size: int = 64
    ) -> None:
        self._target = (target, PORT)
        self._interval = interval
        self._padding = bytes(size - _NUMBER.size)
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        self._near = near.socket(family, socket.SOCK_DGRAM)
        self._far = far.socket(family, socket.SOCK_DGRAM)
        self._far.bind(("", PORT))
        for used in (self._near, self._far):
            used.setblocking(False)
        self._sent: list[float] = []
        self._refused: set[int] = set()
        self._answered: dict[int, float] = {}
        self.doubled = 0
        """Answers that came a second time."""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ending.set()
        self._thread.join()
        self._near.close()
        self._far.close()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ending.is_set():
            now = time.monotonic()
            if now >= due:
                self._send(now)
                # One that was held up goes on from here: a burst would be another load.
                due = max(due + self._interval, now)
            ready, _, _ = select.select([self._near, self._far], [], [], max(0.0, due - now))
            if self._far in ready:
                self._echo()
            if self._near in ready:
                self._collect()

    def _send(self, now: float) -> None:
        number = len(self._sent)
        self._sent.append(now)
        try:
            self._near.sendto(_NUMBER.pack(number) + self._padding, self._target)
        except OSError:
            self._refused.add(number)

    def _echo(self) -> None:
        try:
            data, sender = self._far.recvfrom(65_535)
            self._far.sendto(data, sender)
        except OSError:  # it has no way back at this moment, or an ICMP error came
            return

    def _collect(self) -> None:
        try:
            data = self._near.recv(65_535)
        except OSError:
            return
        (number,) = _NUMBER.unpack_from(data)
        self.doubled += number in self._answered
        self._answered.setdefault(number, time.monotonic())

    # What is asked of it

    def mark(self) -> Mark:
        """This moment."""
        return Mark(len(self._sent), time.monotonic())

    def flow(self, count: int = 5, bound: float = 30.0) -> Mark:
        """Wait for so many answers to packets that are sent from here on; the moment after."""
        wanted = self.mark().number
        wait_for(
            lambda: sum(number >= wanted for number in list(self._answered)) >= count,
            bound,
            f"{count} answers",
        )
        return self.mark()

    def wait_sent(self, count: int, bound: float = 30.0) -> None:
        """Wait until so many more packets were sent, answered or not."""
        wanted = self.mark().number + count
        wait_for(lambda: len(self._sent) >= wanted, bound, f"{count} packets to be sent")

    def recovery(self, begun: Mark, healed: Mark, bound: float = 30.0) -> Recovery:
        """Wait for the first answer to a packet that was sent since `healed`; what `begun` cost.

        On a wire that keeps the order, all before that packet is then answered or lost.
        """
        first: list[int] = []

        def answered() -> bool:
            first[:] = sorted(number for number in list(self._answered) if number >= healed.number)
            return bool(first)

        wait_for(answered, bound, "packets to come through again")
        numbers = range(begun.number, first[0])
        return Recovery(
            seconds=self._answered[first[0]] - healed.time,
            lost=sum(number not in self._answered for number in numbers),
            sent=len(numbers),
            refused=sum(number in self._refused for number in numbers),
        )

    def round_trip(self, since: Mark) -> float:
        """Seconds of the fastest answer since then."""
        return min(
            when - self._sent[number]
            for number, when in list(self._answered.items())
            if number >= since.number
        )
