"""A daemon that goes on where another one of the tunnel has ended.

What that one left is the TUN device and the UDP sockets, which its keeper has kept, and around them
the addresses, routes and rules, which the record of the state file names. Only what fits the conf
is taken over; else everything is undone, and the tunnel comes up from the start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
import time
from dataclasses import dataclass
from typing import Final

from tunnel import host
from tunnel.config import TunnelConfig
from tunnel.daemon import attach_target
from tunnel.daemon.host_state import Location
from tunnel.daemon.keeper import Keeper
from tunnel.engine import SessionRecord, SessionRecordError
from tunnel.errors import DaemonError, TunnelError
from tunnel.io import link
from tunnel.linux import kernel
from tunnel.linux.processes import start_time

log = logging.getLogger("tunnel")

TUN: Final = "tun"
UDP: Final = {socket.AF_INET: "udp4", socket.AF_INET6: "udp6"}
LIFE: Final = "life"
SESSIONS: Final = "sessions"

_LIFE_BYTES: Final = 4096


class Life:
    """The tunnel's life over all of its daemons, in a file that has no name and is kept with it.

    `restarts` counts the daemons before this one, `since` is when the first came up, in Unix
    seconds. `basis` is of what cannot change while it lives: what hooks did on the way up, and what
    the interface is.
    """

    def __init__(self, descriptor: int, basis: str, since: float, restarts: int = 0) -> None:
        self.descriptor = descriptor
        self.basis = basis
        self.since = since
        self.restarts = restarts
        self.write()

    @classmethod
    def begin(cls, config: TunnelConfig) -> Life:
        """That of a tunnel which has just come up. Raises OSError."""
        return cls(os.memfd_create("tunnel-life", os.MFD_CLOEXEC), basis(config), time.time())

    @classmethod
    def go_on(cls, descriptor: int) -> tuple[Life, float]:
        """The one in that file, after one more restart; and when the daemon before has ended, in
        seconds of CLOCK_BOOTTIME, 0.0 if it was killed. Raises ValueError, KeyError, OSError.
        """
        found = json.loads(os.pread(descriptor, _LIFE_BYTES, 0))
        life = cls(
            descriptor, str(found["basis"]), float(found["since"]), int(found["restarts"]) + 1
        )
        return life, float(found["ended"])

    def write(self, *, ended: float = 0.0) -> None:
        """Have it in the file. `ended` is when this daemon ends, if it does so in order."""
        document = {
            "basis": self.basis,
            "since": self.since,
            "restarts": self.restarts,
            "ended": ended,
        }
        # In one write, with blanks over what was longer: a kill must not leave half of it.
        os.pwrite(self.descriptor, json.dumps(document).encode().ljust(_LIFE_BYTES), 0)


@dataclass(frozen=True, slots=True)
class Inherited:
    """What is taken over: descriptors of the device and of the sockets, the MTU in bytes, the place
    of the default route, and when there was last a daemon (seconds of CLOCK_BOOTTIME). `record` has
    the sessions, None if they begin by handshakes.
    """

    tun: int
    udp: tuple[int, ...]
    life: Life
    record: SessionRecord | None
    mtu: int
    slot: host.DefaultRouteSlot | None
    ended: float


def basis(config: TunnelConfig) -> str:
    """A digest of the keys that count only when an interface is made."""
    interface, options = config.interface, config.interface.options
    parts = (interface.pre_up, interface.post_up, options.netns, options.mode, options.bridge)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def inherit(keeper: Keeper, config: TunnelConfig, place: Location) -> Inherited | None:
    """What the daemon before has left and `config` can use; None for nothing. Blocks.

    What does not fit is closed, and not kept any more. For a caller that has the lock of the name.
    """
    found = keeper.take()
    if not found:
        return None
    try:
        return _checked(found, config, place, keeper.died_at)
    except (TunnelError, OSError, ValueError, KeyError) as error:
        log.warning(
            "%s cannot take over from the daemon before, and comes up from the start: %s",
            config.name,
            error if not isinstance(error, KeyError) else f"{error} was not kept",
        )
    for descriptor in found.values():
        with contextlib.suppress(OSError):
            os.close(descriptor)
    keeper.drop()
    return None


def _checked(
    found: dict[str, int], config: TunnelConfig, place: Location, died_at: float
) -> Inherited:
    tun = found[TUN]
    name, flags = link.name_and_flags(tun)
    life, ended = Life.go_on(found[LIFE])
    if life.basis != basis(config):
        raise DaemonError("PreUp, PostUp, NetNS, Mode or Bridge in the conf was changed")
    if not flags & kernel.IFF_VNET_HDR or bool(flags & kernel.IFF_TAP) != (
        config.interface.options.is_tap
    ):
        raise DaemonError("the TUN device is of another kind")
    if attach_target.load(config.name) is not None:
        raise DaemonError("the interface is attached")
    status = link.query(tun)
    record = host.load_record(config.name)
    if record is None or record.owner or record.ifindex != status.ifindex:
        raise DaemonError("there is no record of what was set up around it")
    if place.netns is None:
        is_there = status.here and not record.place
    else:
        is_there = record.place == place.netns and os.stat(place.netns).st_ino == status.netns
    if name != config.name or not is_there:
        raise DaemonError("the interface was moved or renamed")
    udp = tuple(found[name] for name in UDP.values() if name in found)
    if not udp:
        raise KeyError("udp")
    slot = host.slot_of(record)
    sessions = _sessions(found)
    used = {TUN, LIFE, SESSIONS, *UDP.values()}
    for other in found.keys() - used:
        os.close(found.pop(other))
    began = died_at or ended or process_start()
    return Inherited(tun, udp, life, sessions, status.mtu, slot, began)


def _sessions(found: dict[str, int]) -> SessionRecord | None:
    """The record of sessions, if it was kept and can be used."""
    if SESSIONS not in found:
        return None
    try:
        return SessionRecord.adopt(found[SESSIONS])
    except SessionRecordError as error:
        log.warning("the kept sessions end, and handshakes begin: %s", error)
        os.close(found.pop(SESSIONS))
        return None


def process_start() -> float:
    """When this process was started, in seconds of CLOCK_BOOTTIME."""
    return start_time(str(os.getpid())) / os.sysconf("SC_CLK_TCK")
