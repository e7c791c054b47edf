"""What the sender, the receiver and the engine around them all use, and their counters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from tunnel.io.tun import Tun
from tunnel.io.udp import Udp

from .common import Clock, Interface
from .histograms import Load
from .instrument import Tracer
from .metering import Metering

R = TypeVar("R", bound=str)


class Counters:
    """Packets dropped, by reason.

    Each room names its own reasons (`ProtocolDrop`, `DatapathDrop`, `EngineDrop` and those of the
    io room); here they meet as plain strings, because what is printed, scraped or asserted is a
    name and a number. `drops` only ever grows; a reason that never happened has no entry.
    """

    __slots__ = ("drops",)

    def __init__(self) -> None:
        self.drops: dict[str, int] = {}

    def drop(self, reason: str, packets: int = 1) -> None:
        """Count `packets` dropped for `reason`."""
        name = str(reason)
        self.drops[name] = self.drops.get(name, 0) + packets

    def drop_all(self, drops: Mapping[R, int]) -> None:
        """Count a whole table of drops, as one batch of the data path returns it."""
        for reason, packets in drops.items():
            self.drop(reason, packets)


class Shared:
    """One per engine.

    `tracer`, if there is one, sees every packet; `metering` those of the peers that it watches.
    `drain` carries out what the protocol asks for at the given time. `mtu` is in bytes of an inner
    packet.
    """

    __slots__ = (
        "clock",
        "counters",
        "drain",
        "interface",
        "link_up",
        "load",
        "metering",
        "mtu",
        "tracer",
        "tun",
        "udp",
    )

    def __init__(
        self,
        *,
        tun: Tun,
        udp: Udp,
        mtu: int,
        interface: Interface,
        clock: Clock,
        drain: Callable[[float], None],
        metering: Metering,
    ) -> None:
        self.tun = tun
        self.udp = udp
        self.mtu = mtu
        self.interface = interface
        self.clock = clock
        self.drain = drain
        self.metering = metering
        self.counters = Counters()
        self.load = Load()
        self.tracer: Tracer | None = None
        self.link_up = True
