"""What both ways through the engine have in common: state, bounds, and reasons of drops."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

from tunnel.datapath import Session
from tunnel.engine.counters import Counters
from tunnel.engine.histograms import Load
from tunnel.engine.instrument import Tracer
from tunnel.io.endpoint import Endpoint
from tunnel.io.tun import Tun
from tunnel.io.udp import Udp
from tunnel.protocol import Interface
from tunnel.protocol import Peer as ProtocolPeer

Peer: TypeAlias = ProtocolPeer[Endpoint, Session]

DRAIN_BYTES = 1 << 19
"""Read from one descriptor per wake-up before the other tasks get their turn, which is after less
than a millisecond."""
READ_COST = 1 << 14
"""What any read takes off `DRAIN_BYTES` besides its bytes: as much time as these."""

LONE_AFTER = 0.0002
"""Seconds since the last wake-up after which a packet is taken to come alone, and no other is
looked for: it does not wait for that look."""
LONE_ROW = 4
"""Wake-ups in a row that may do without a look. Then one looks, or a slow machine, for which every
wake-up is long after the last one, would take a flood packet by packet."""


class Drop(StrEnum):
    """Reasons of the engine itself."""

    NOT_IP = "not_ip"
    """A frame from the TUN that is neither IPv4 nor IPv6."""
    NO_ENDPOINT = "no_endpoint"
    """The peer's address is not known (yet)."""
    HANDSHAKE_QUEUE_FULL = "handshake_queue_full"
    """More handshake messages than can be answered."""
    SEND_QUEUE_FULL = "send_queue_full"
    """The UDP socket was full, and what was to be sent cannot wait."""
    MESSAGE_LIMIT = "message_limit"
    """The session has sealed as many messages as it may."""
    TUN_BUSY = "tun_busy"
    """The TUN device would not take a frame now."""


def boot_time() -> float:
    """Seconds since boot, suspend included: the clock of all key ages."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Shared:
    """What the sender, the receiver and the engine around them all use.

    `tracer`, if there is one, is told of every packet; `drain` carries out what the protocol asks
    for, and is given the time. `mtu` is in bytes of an inner packet.
    """

    __slots__ = ("counters", "drain", "interface", "link_up", "load", "mtu", "tracer", "tun", "udp")

    def __init__(
        self,
        tun: Tun,
        udp: Udp,
        mtu: int,
        interface: Interface[Endpoint, Session],
        drain: Callable[[float], None],
    ) -> None:
        self.tun = tun
        self.udp = udp
        self.mtu = mtu
        self.interface = interface
        self.drain = drain
        self.counters = Counters()
        self.load = Load()
        self.tracer: Tracer | None = None
        self.link_up = True
