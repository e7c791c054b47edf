"""What all of the engine has in common: its types, bounds, reasons of drops, and its clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

from tunnel import protocol
from tunnel.datapath import Session
from tunnel.io.endpoint import Endpoint

Interface: TypeAlias = protocol.Interface[Endpoint, Session]
Peer: TypeAlias = protocol.Peer[Endpoint, Session]

Span: TypeAlias = tuple[int, int]
"""Where something begins and ends in a buffer."""

Clock: TypeAlias = Callable[[], float]
"""Seconds that never go back and run on in suspend."""

DRAIN_BYTES = 1 << 19
"""Read from one descriptor per wake-up before the other tasks get their turn, which is after less
than a millisecond."""
READ_COST = 1 << 14
"""What any read takes off `DRAIN_BYTES` besides its bytes: as much time as these."""
LOOK_COST = 1 << 12
"""The same for a receive of which nothing was written to the TUN."""

LONE_AFTER = 0.0002
"""Seconds since the last wake-up after which a packet is taken to come alone, and no other is
looked for: it does not wait for that look."""
LONE_ROW = 4
"""Wake-ups in a row that may do without a look. Then one looks, or a slow machine, for which every
wake-up is long after the last one, would take a flood packet by packet."""

HANDSHAKE_SLICE = 0.0006
"""Seconds of work on handshake messages before the other tasks get their turn: half a dozen of
peers, so that more than one core is of use, or twice as many that are answered by a cookie."""
HANDSHAKES_TOGETHER = 16
"""Messages in a slice at most. The compiled part opens what comes together on other cores."""
HANDSHAKE_REST = 0.002
"""Seconds between two such slices while many wait: they get a quarter of the time at most."""

PREPARED_TOGETHER = 8
"""Peers whose shared secrets are computed in one go, ahead: a fraction of a millisecond."""
PREPARE_REST = 0.001
"""Seconds between two such goes."""


class EngineDrop(StrEnum):
    """Reasons of the engine itself."""

    NOT_IP = "not_ip"
    """What a TUN gave is neither IPv4 nor IPv6; or what a TAP gave, or a peer sent, is no frame."""
    NO_ENDPOINT = "no_endpoint"
    """The peer's address is not known (yet)."""
    HANDSHAKE_QUEUE_FULL = "handshake_queue_full"
    """More handshake messages with a valid mac2 than can be answered: one of them, at random."""
    SEND_QUEUE_FULL = "send_queue_full"
    """The UDP socket's buffer was full, and the message could not wait."""
    MESSAGE_LIMIT = "message_limit"
    """The keypair has sealed as many messages as it may."""
    TUN_BUSY = "tun_busy"
    """The TUN device had no room for a frame at that moment."""


def boot_time() -> float:
    """Seconds since boot, suspend included: the clock of all key ages."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
