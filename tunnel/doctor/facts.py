"""All that the doctor knows when it judges: gathered once, and never changed.

Addresses are text as `ip` writes them, sizes bytes of whole IP packets, times seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from tunnel.config import Problem, TunnelConfig
from tunnel.control.messages.changes import Change
from tunnel.control.messages.status import PeerStatus, TunnelStatus
from tunnel.host import Obstacle
from tunnel.trace.journey import Journey

Network = IPv4Network | IPv6Network
IpAddress = IPv4Address | IPv6Address

WIDE = 8
"""The prefix length up to which a network says nothing of who is in it: the Internet, its halves,
and what is left of it without one's own LAN.
"""

DEFAULT_WAIT = 12.0
"""Seconds: a peer that got data sends some, or a keepalive, within 10 (Keepalive-Timeout)."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for: an `address` that should be reached through the tunnel, whether
    this host should `forward` for others, and how many seconds to wait for answers at most.
    `inside` says that the interface was moved, without its daemon, into the network namespace that
    this doctor is in: what is around it here is looked at, and no more.
    """

    address: str | None = None
    forward: bool = False
    wait: float = DEFAULT_WAIT
    inside: bool = False


@dataclass(frozen=True, slots=True)
class LookUp:
    """An endpoint's name, what it stands for now (`addresses`), or why it stands for nothing."""

    host: str
    addresses: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """Where the kernel sends packets to one destination; `error` if nowhere.

    `local` says that the destination is this host itself. Of a sample, `network` is that of the
    route, with its type if it leads nowhere, and `rule` the one that leads to it, in the words of
    `ip rule`, if it is another program's and asked before the tunnel's.
    """

    device: str = ""
    local: bool = False
    error: str = ""
    network: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """A network interface. `networks` are its addresses with prefix length, of every scope.

    `master` is the bridge or VRF that it belongs to, empty if none. `unrouted` are those addresses
    that have the flag noprefixroute: the kernel adds no route for them.
    """

    name: str
    up: bool
    mtu: int
    networks: tuple[str, ...] = ()
    master: str = ""
    unrouted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FirewallChain:
    """A chain of netfilter at one of its hooks; `hook` and `policy` as nftables writes them.

    `devices` are those of a chain at ingress or egress.
    """

    family: str
    table: str
    name: str
    hook: str
    policy: str = "accept"
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FirewallRule:
    """A netfilter rule as nftables lists it."""

    family: str
    table: str
    chain: str
    text: str


@dataclass(frozen=True, slots=True)
class FirewallRules:
    """Netfilter's rules, without those of a trace. `docker` holds its (family, table, chain)."""

    chains: tuple[FirewallChain, ...] = ()
    rules: tuple[FirewallRule, ...] = ()
    docker: frozenset[tuple[str, str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Probe:
    """Echo requests through the tunnel to `address`, which belongs to `peer` (None: to no peer).

    `guessed`: the user did not ask for this address, so its silence alone means nothing. `sent`
    says whether requests were sent at all, `error` why the kernel did not take them. `tried` is the
    size of the largest packet sent, `passed` of the largest answered; 0 if not measured, which is
    so as long as small ones are lost.
    """

    address: str
    peer: str | None
    guessed: bool
    sent: bool = False
    answered: bool = False
    error: str = ""
    tried: int = 0
    passed: int = 0


@dataclass(frozen=True, slots=True)
class Behind:
    """Echo requests from this host to `address`, out of `device`, past the tunnel.

    `answered` says whether one was answered, `answered_tunnel` whether one was that came from
    `source`, our address in the tunnel.
    """

    address: str
    device: str
    source: str
    answered: bool
    answered_tunnel: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """One tunnel and the machine around it. What is not known is empty or None.

    `before` and `after` are the daemon's status before and after the probes. `killed` says that it
    is gone and could not clean up, `shut` that its kill switch stands without it, `hangs` is its
    process if it does not answer (else 0), `busy` says that it is on its way up or down,
    `refused` that it answers root alone, and we are not,
    `conf_path` is where its conf is, or should be, `conf_gone` says that it is not there,
    `elsewhere` that it is in another network namespace than we: then nothing of the machine is
    known. `differences` are what `tunnel diff` says, None if it was
    not asked or failed. `samples` are the routes to addresses anywhere in the default routes of the
    allowed IPs. `unmarked` are the routes to endpoints for packets without the tunnel's fwmark,
    `own_routes` those to probed addresses for packets from our own address in the tunnel.
    `probe_id` is the ICMP identifier of the probes, `behind` what was seen of an address that this
    host should forward to. `spoofed` counts the packets that rp_filter dropped meanwhile,
    `refusals` are ICMP errors by the destination of the datagram (`address port`). `networks` are
    those to which table main has routes by the interface, None if that is not known, `dead_ends`
    its routes that drop, as in "blackhole 10.0.0.0/8". `missing` are
    capabilities that we lack, `daemon_missing` those that the daemon lacks. `obstacles` are what
    `tunnel up` would fail at, if no daemon runs.
    """

    name: str
    now: float
    options: Options = Options()
    conf: TunnelConfig | None = None
    conf_path: str = ""
    problems: tuple[Problem, ...] = ()
    before: TunnelStatus | None = None
    after: TunnelStatus | None = None
    daemon_error: str = ""
    killed: bool = False
    shut: bool = False
    hangs: int = 0
    busy: bool = False
    refused: bool = False
    conf_gone: bool = False
    elsewhere: bool = False
    look_ups: tuple[LookUp, ...] = ()
    links: dict[str, LinkFacts] = field(default_factory=dict)
    routes: dict[str, RouteFacts] = field(default_factory=dict)
    unmarked: dict[str, RouteFacts] = field(default_factory=dict)
    own_routes: dict[str, RouteFacts] = field(default_factory=dict)
    samples: dict[str, RouteFacts] = field(default_factory=dict)
    differences: tuple[Change, ...] | None = None
    networks: tuple[str, ...] | None = None
    dead_ends: tuple[str, ...] = ()
    sysctls: dict[str, str] = field(default_factory=dict)
    firewall: FirewallRules = FirewallRules()
    journeys: tuple[Journey, ...] = ()
    spoofed: int = 0
    probes: tuple[Probe, ...] = ()
    probe_id: int | None = None
    behind: Behind | None = None
    refusals: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    daemon_missing: tuple[str, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def is_down(self) -> bool:
        """Whether no daemon runs, as far as that is known."""
        return self.before is None and not self.daemon_error

    @property
    def is_tap(self) -> bool:
        """Whether the tunnel carries Ethernet frames: no route leads to its AllowedIPs."""
        status = self.after or self.before
        if status is not None:
            return status.mode == "tap"
        return self.conf is not None and self.conf.interface.options.is_tap

    @property
    def addressed(self) -> str:
        """The name of the interface that has the tunnel's addresses: its own, or its bridge's."""
        status = self.after or self.before
        return (status.bridge if status is not None else "") or self.name

    @property
    def peers(self) -> tuple[PeerStatus, ...]:
        """The peers of the running tunnel as they were at last."""
        return self.after.peers if self.after is not None else ()

    def grown(self, reason: str) -> int:
        """Packets dropped for this reason while the doctor looked."""
        if self.before is None or self.after is None:
            return 0
        return self.after.drops.get(reason, 0) - self.before.drops.get(reason, 0)

    def is_alive(self, peer: PeerStatus) -> bool:
        """Whether something authentic came from the peer while the doctor looked, or its session
        is fresh and nothing was asked of it.
        """
        if any(probe.peer == peer.public_key and probe.sent for probe in self.probes):
            return self.heard(peer) or any(
                probe.answered for probe in self.probes if probe.peer == peer.public_key
            )
        return is_fresh(peer, self.now)

    def heard(self, peer: PeerStatus) -> bool:
        """Whether the peer has shown that it receives: by a handshake, or by data and keepalives.

        Its initiations alone show nothing: they come, too, from a peer that gets none of ours.
        """
        if peer.latest_handshake > self._earlier(peer).latest_handshake:
            return True
        return self.received(peer) % INITIATION != 0

    def received(self, peer: PeerStatus) -> int:
        """Bytes that came from the peer while the doctor looked."""
        return peer.rx_bytes - self._earlier(peer).rx_bytes

    def sent(self, peer: PeerStatus) -> int:
        """Bytes that went to the peer while the doctor looked."""
        return peer.tx_bytes - self._earlier(peer).tx_bytes

    def over_quota(self, peer: PeerStatus) -> int:
        """Packets of the peer that its quota has dropped while the doctor looked."""
        return peer.limits.over_quota - self._earlier(peer).limits.over_quota

    def _earlier(self, peer: PeerStatus) -> PeerStatus:
        for earlier in self.before.peers if self.before is not None else ():
            if earlier.public_key == peer.public_key:
                return earlier
        return peer

    def is_expected(self, peer: PeerStatus) -> bool:
        """Whether the peer's silence is a fault: the conf has its Endpoint, or it was asked for.

        One that initiates by itself may as well sleep.
        """
        asked = any(not probe.guessed and probe.peer == peer.public_key for probe in self.probes)
        return asked or has_written_place(self.conf, peer)

    @property
    def silent(self) -> tuple[PeerStatus, ...]:
        """Peers that should answer, that we sent to, and from which nothing came."""
        probed = {probe.peer for probe in self.probes if probe.sent}
        return tuple(
            peer
            for peer in self.peers
            if peer.endpoint
            and (peer.public_key in probed or self.is_unanswered(peer))
            and self.is_expected(peer)
            and not self.is_alive(peer)
        )

    def is_unanswered(self, peer: PeerStatus) -> bool:
        """Whether handshakes must have gone to the peer without an answer, also without a probe.

        So it is if there was never one, or none although keepalives alone call for one.
        """
        if not peer.latest_handshake:
            return peer.tx_bytes >= INITIATION
        return peer.persistent_keepalive > 0 and not is_fresh(peer, self.now)

    def taken_away(self, *kinds: str) -> tuple[Change, ...]:
        """What was taken away, as `tunnel diff` says; of these kinds, by the first word."""
        return tuple(
            change
            for change in self.differences or ()
            if change.was_taken and (not kinds or change.subject.split()[0] in kinds)
        )

    @property
    def absent(self) -> tuple[PeerStatus, ...]:
        """Peers that have to initiate, and have no session."""
        return tuple(
            peer for peer in self.peers if not self.is_expected(peer) and not self.is_alive(peer)
        )

    @property
    def calling(self) -> tuple[PeerStatus, ...]:
        """Absent peers from which something came while the doctor looked: they do not sleep."""
        return tuple(peer for peer in self.absent if self.received(peer) > 0)


INITIATION = 148
"""Bytes of a handshake initiation (whitepaper, section 5.4.2)."""

SESSION_LIFE = 180.0
"""Seconds for which a session lasts (whitepaper, section 6.1: Reject-After-Time)."""


def is_fresh(peer: PeerStatus, now: float) -> bool:
    """Whether the latest session with the peer may still be used."""
    return now - peer.latest_handshake < SESSION_LIFE


def has_written_place(conf: TunnelConfig | None, peer: PeerStatus) -> bool:
    """Whether the conf has the peer's endpoint; if not, only the peer's own packets can show it.

    Of a peer that is in no conf, an endpoint before any handshake was given by hand, and who sends
    keepalives means to reach it.
    """
    if not peer.endpoint:
        return False
    for written in conf.peers if conf is not None else ():
        if written.public_key.to_base64() == peer.public_key:
            return written.endpoint is not None
    return not peer.latest_handshake or peer.persistent_keepalive > 0


def endpoint_address(peer: PeerStatus) -> str | None:
    """The address in a peer's endpoint, without port, brackets and scope."""
    if not peer.endpoint:
        return None
    return peer.endpoint.rpartition(":")[0].strip("[]").partition("%")[0]


def networks_of(peer: PeerStatus) -> list[Network]:
    """A peer's allowed IPs."""
    return [ip_network(text) for text in peer.allowed_ips]


def covering(peers: tuple[PeerStatus, ...], address: str) -> tuple[PeerStatus, Network] | None:
    """The peer that gets packets to `address`, and the network by which it does."""
    wanted = ip_address(address)
    found = [
        (network.prefixlen, place, network)
        for place, peer in enumerate(peers)
        for network in networks_of(peer)
        if network.version == wanted.version and wanted in network
    ]
    if not found:
        return None
    _, place, network = max(found, key=lambda entry: entry[:2])
    return peers[place], network
