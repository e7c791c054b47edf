"""What a running tunnel says of itself: one snapshot, the same for people, JSON and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tunnel.control.messages import Message

SHORT_TAIL: Final = "short-tail"
"""Stands among the offloads of the UDP sockets if an empty message ends equal batches."""

LINK_MULTICAST: Final = "link_multicast"
"""The reason of drops that tell nothing: every host sends such packets on every interface."""

MANY_RIGHTS: Final = 10
"""More capabilities than this are counted: nothing was given up."""


def telling(drops: Mapping[str, int]) -> dict[str, int]:
    """The drops, by reason, without those that are no sign of a fault."""
    return {reason: packets for reason, packets in drops.items() if reason != LINK_MULTICAST}


@dataclass(frozen=True, slots=True)
class PeerLimits(Message):
    """What a peer may transfer, and has.

    `rate_to` and `rate_from` are in bits a second, 0 for no limit; `rate` says it in words. `quota`
    is in bytes, 0 for none, `quota_used` those used since `quota_since` (Unix seconds), and
    `quota_period` "day", "week", "month", or "" for all time. `over_rate` and `over_quota` are
    packets dropped.
    """

    rate_to: int = 0
    rate_from: int = 0
    rate: str = ""
    quota: int = 0
    quota_used: int = 0
    quota_period: str = ""
    quota_since: int = 0
    over_rate: int = 0
    over_quota: int = 0


NO_LIMITS: Final = PeerLimits()


@dataclass(frozen=True, slots=True)
class PeerStatus(Message):
    """One peer at one moment.

    Keys are base64 text. `preshared_key` is None unless secrets were asked for and one is set.
    `latest_handshake` is Unix time in seconds, 0.0 before the first. `rx_bytes` and `tx_bytes`
    count UDP payload, as `wg show` does. `persistent_keepalive` is in seconds, 0 for off.
    `path_mtu` is the largest outer packet that the way to the endpoint takes, as far as the kernel
    knows; None if that was not asked for or there is no way. `macs` is how many MAC addresses are
    known to be at it, None in a tunnel of packets. `name` is the friendly_name of the conf, empty
    if it gives none; `expires` is the Unix time at which the daemon removes it, 0.0 for never.
    `connected` says whether there is a session that both sides have confirmed.
    """

    public_key: str
    has_preshared_key: bool
    preshared_key: str | None
    endpoint: str | None
    allowed_ips: tuple[str, ...]
    latest_handshake: float
    rx_bytes: int
    tx_bytes: int
    persistent_keepalive: int
    path_mtu: int | None = None
    macs: int | None = None
    name: str = ""
    expires: float = 0.0
    connected: bool = False
    limits: PeerLimits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class RefusedHandshake(Message):
    """The latest handshake message that was reported as dropped for `reason`, one a minute at most.

    `time` is Unix time in seconds, `endpoint` that of the sender, `peer` its key if that is known.
    """

    reason: str
    time: float
    endpoint: str
    peer: str | None


@dataclass(frozen=True, slots=True)
class DaemonRights(Message):
    """What the daemon may do on its machine, as the kernel has it; see SECURITY.md.

    `uid` is its user. `capabilities` are those in force, `reserve` those that it can take for a
    moment, without CAP_. `seccomp` says whether a filter of system calls is in force,
    `memory_locked` whether no page of its memory gets into swap space.
    """

    uid: int = 0
    capabilities: tuple[str, ...] = ()
    reserve: tuple[str, ...] = ()
    no_new_privs: bool = False
    seccomp: bool = False
    memory_locked: bool = False

    def words(self) -> str:
        """The same in a few words."""
        found = f"{len(self.capabilities)} capabilities"
        if len(self.capabilities) <= MANY_RIGHTS:
            found = ", ".join(f"CAP_{name}" for name in self.capabilities) or "no capability"
        if self.reserve:
            found += f" (in reserve: {', '.join(f'CAP_{name}' for name in self.reserve)})"
        if self.uid:
            found = f"user {self.uid}, {found}"
        found += ", no_new_privs" if self.no_new_privs else ""
        found += ", seccomp" if self.seccomp else ""
        return found + (", memory locked" if self.memory_locked else "")


@dataclass(frozen=True, slots=True)
class TunnelStatus(Message):
    """One interface at one moment. `private_key` is None unless secrets were asked for.

    `cipher` is whose ChaCha20-Poly1305 the datapath uses, empty if not known. `offloads` are those
    in use, by where: of the TUN device, and of the UDP sockets, where `SHORT_TAIL` says that no
    batch is of equally long datagrams only. `cpu_seconds` is the time that the daemon has computed
    so far. `device` is what the interface is called now, empty if not known, `here` whether it is
    in the daemon's network namespace, and `device_netns` the inode of the one it is in (0: not
    known). `conf` is the path of the file it was set up from, empty if there is none. `nested_in`
    names the other tunnels through which datagrams to the first few peers leave this host.
    `missing` are routes, rules and the like that another program removed, `refused` handshakes by
    reason. `netns` is the path of the network namespace that the interface was put into, empty for
    the daemon's; `attached` says in words to what it was attached, empty for nothing. `mode` is
    "tun" or "tap", and `bridge` the Linux bridge that the interface is a port of, empty for none.
    `rights` is what the daemon may do. `since` is when the tunnel came up, in Unix seconds (0.0:
    not known), `restarts` how many daemons it has had before this one. `is_kept` says whether it
    would survive the end of this daemon; `holder` is the process that keeps its descriptors, 0 if
    there is none, and `lost_holders` how many of these have ended while this daemon went on.
    `lost` says in words what of quotas and records could not be written to the disk.
    """

    name: str
    public_key: str | None
    private_key: str | None
    listen_port: int
    fwmark: int
    mtu: int
    addresses: tuple[str, ...]
    datapath: str
    offloads: dict[str, str]
    pid: int
    peers: tuple[PeerStatus, ...]
    drops: dict[str, int]
    cpu_seconds: float = 0.0
    device: str = ""
    here: bool = True
    conf: str = ""
    nested_in: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    refused: tuple[RefusedHandshake, ...] = ()
    netns: str = ""
    attached: str = ""
    device_netns: int = 0
    mode: str = "tun"
    bridge: str = ""
    rights: DaemonRights = DaemonRights()
    cipher: str = ""
    since: float = 0.0
    restarts: int = 0
    holder: int = 0
    lost_holders: int = 0
    is_kept: bool = False
    lost: tuple[str, ...] = ()
