"""What a flood of handshake messages may fill of the socket's queue, in which data waits, too.

Where they come faster than they can be read, the kernel drops whatever comes last: data as well. So
in a flood a filter of the socket keeps some of them out, at random, as many as it takes to keep the
queue short. Those are of the kind that the flood is of: initiations without a mac2, or all others.
"""

from __future__ import annotations

from typing import Final

from tunnel.io.udp import Udp
from tunnel.linux import bpf

PERIOD = 0.01
"""Seconds between two looks at the queue."""
FLOOD = 32
"""So many messages in that time that are not data are a flood: more than can be answered."""
LONG = 1 / 8
SHORT = 1 / 32
"""Parts of the receive queue. The whole of it is 0.2 s of a flood, in which data would wait."""
LESS = 0.8
MORE = 1.2
"""By what the part that is let in changes while the queue is long, and short."""
LEAST = 1 / 256

_UDP_HEADER: Final = 8
_INITIATION_LENGTH: Final = 148
_INITIATION: Final = 0x01_00_00_00
_TRANSPORT: Final = 0x04_00_00_00
"""The first four bytes of a message, as the kernel loads them."""
_MAC2: Final = range(_UDP_HEADER + 132, _UDP_HEADER + 148, 4)
"""Where the four words of mac2 are."""


class Thinning:
    """Keeps the queue short. `bare` and `rest` are the parts that are let in of initiations without
    a mac2, and of all else that is not data.
    """

    def __init__(self, udp: Udp) -> None:
        self._udp = udp
        self.bare = self.rest = 1.0

    @property
    def is_on(self) -> bool:
        """Whether anything is kept out."""
        return self.bare < 1.0 or self.rest < 1.0

    def adjust(self, bare: int, rest: int) -> None:
        """Look at the queue, and let in less or more: less only in a flood, and of the kind that it
        is of. So many of each kind came since the last look.
        """
        queued = self._udp.queued_part()
        if queued > LONG and bare + rest >= FLOOD:
            if bare >= rest:
                self.bare = max(LEAST, self.bare * LESS)
            else:
                self.rest = max(LEAST, self.rest * LESS)
        elif queued < SHORT and self.is_on:
            self.bare = min(1.0, self.bare * MORE)
            self.rest = min(1.0, self.rest * MORE)
        else:
            return
        self._udp.set_filter(program(self.bare, self.rest) if self.is_on else ())


def program(bare: float, rest: float) -> list[bpf.Instruction]:
    """A filter that lets in transport messages, and those parts of the others."""
    words = [
        step
        for left, place in zip((8, 6, 4, 2), _MAC2, strict=True)
        for step in ((bpf.LD_W, 0, 0, place), (bpf.JEQ, 0, left, 0))
    ]
    return [
        (bpf.LD_W, 0, 0, _UDP_HEADER),
        (bpf.JEQ, 15, 0, _TRANSPORT),
        (bpf.JEQ, 0, 12, _INITIATION),
        (bpf.LD_H, 0, 0, 4),
        (bpf.JEQ, 0, 10, _UDP_HEADER + _INITIATION_LENGTH),
        *words,
        (bpf.LD_W, 0, 0, bpf.RANDOM),
        (bpf.JGE, 3, 2, _threshold(bare)),
        (bpf.LD_W, 0, 0, bpf.RANDOM),
        (bpf.JGE, 1, 0, _threshold(rest)),
        (bpf.RET, 0, 0, bpf.ALL),
        (bpf.RET, 0, 0, 0),
    ]


def _threshold(part: float) -> int:
    """What that part of all 32-bit numbers is below."""
    return min(0xFFFF_FFFF, int(part * (1 << 32)))
