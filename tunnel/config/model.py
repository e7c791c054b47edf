"""What a conf says, as values that cannot change. Reading is parser.py's, writing render.py's."""

import os
import re
from dataclasses import dataclass, field
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path
from typing import Literal, NamedTuple

from crypto.keys import PresharedKey, PrivateKey, PublicKey
from tunnel.config.problems import Problem

__all__ = ["AllowedIP", "EndpointConfig", "InterfaceConfig", "PeerConfig", "TunnelConfig"]
__all__ += ["Datapath", "Metrics", "Modifier", "Table", "TunnelOptions"]

Datapath = Literal["auto", "python", "native"]
Modifier = Literal["", "+", "-"]
Table = Literal["auto", "off"] | int


class AllowedIP(NamedTuple):
    """One entry of AllowedIPs: the network, host bits cleared, and wg's modifier.

    `+` adds to what the peer has, `-` takes away from it; without one the list replaces.
    """

    network: IPv4Network | IPv6Network
    modifier: Modifier = ""

    def __str__(self) -> str:
        return f"{self.modifier}{self.network}"


class EndpointConfig(NamedTuple):
    """Where a peer is reached: `host` is a name or an address (IPv6 with its %scope, no
    brackets), `port` 1–65535. Names are not resolved here.
    """

    host: str
    port: int

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The address, or None if the host is a name."""
        try:
            return IPv6Address(self.host) if ":" in self.host else IPv4Address(self.host)
        except AddressValueError:
            return None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Metrics = Literal["unix", "off"] | EndpointConfig


# `ip route`, `ip -6 r`, `route del`; not `ip rule`.
_ROUTES = re.compile(r"\brout|\bip\s+(?:-\S+\s+)*ro?u?\b")


@dataclass(frozen=True, slots=True)
class TunnelOptions:
    """Our own options, from section [Tunnel] or from `#! tunnel: Key = value` lines.

    An offload is used if neither its own switch nor the one over it (`tun_offload` for the
    two of the TUN, `udp_offload` for the two of the socket) is off, and the kernel has it.

    `metrics` is where they can be scraped: at a unix socket, at an address, or nowhere.
    """

    datapath: Datapath = "auto"
    tun_offload: bool = True
    tun_tso: bool = True
    tun_uso: bool = True
    udp_offload: bool = True
    udp_gso: bool = True
    udp_gro: bool = True
    metrics: Metrics = "unix"

    @property
    def use_tso(self) -> bool:
        """Whether TCP segments may be left unsplit by the kernel (TSO4, TSO6)."""
        return self.tun_offload and self.tun_tso

    @property
    def use_uso(self) -> bool:
        """Whether UDP datagrams may be left unsplit by the kernel (USO4, USO6)."""
        return self.tun_offload and self.tun_uso

    @property
    def use_gso(self) -> bool:
        """Whether batches may leave by UDP_SEGMENT."""
        return self.udp_offload and self.udp_gso

    @property
    def use_gro(self) -> bool:
        """Whether batches may arrive by UDP_GRO."""
        return self.udp_offload and self.udp_gro


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """Section [Interface].

    `private_key_file` is the value of PrivateKeyFile as written, None if the key stands in the
    conf itself; `private_key` holds the key either way. `listen_port` 0 means any, `fwmark` 0
    none, `mtu` None computed. Hooks are shell commands with `%i` not yet replaced.
    """

    private_key: PrivateKey
    private_key_file: str | None = None
    listen_port: int = 0
    fwmark: int = 0
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    mtu: int | None = None
    table: Table = "auto"
    dns: tuple[IPv4Address | IPv6Address, ...] = ()
    dns_search: tuple[str, ...] = ()
    pre_up: tuple[str, ...] = ()
    post_up: tuple[str, ...] = ()
    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()
    save_config: bool = False
    options: TunnelOptions = TunnelOptions()

    @property
    def hooks_change_routes(self) -> bool:
        """Whether PreUp or PostUp speak of routes: what there is and is not may be meant so."""
        return any(_ROUTES.search(command) for command in (*self.pre_up, *self.post_up))


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """A section [Peer].

    `preshared_key` is None without one (all zeros count as none), `persistent_keepalive` is in
    seconds, 0 means off. `friendly_name` is that of a comment `# friendly_name = …` in the section,
    as WireGuard exporters read it, for labels only.
    """

    public_key: PublicKey
    preshared_key: PresharedKey | None = None
    preshared_key_file: str | None = None
    allowed_ips: tuple[AllowedIP, ...] = ()
    endpoint: EndpointConfig | None = None
    persistent_keepalive: int = 0
    friendly_name: str = field(default="", compare=False)

    @property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The allowed networks of a fresh peer: modifiers applied in order, each once."""
        networks: dict[IPv4Network | IPv6Network, None] = {}
        for network, modifier in self.allowed_ips:
            if modifier == "-":
                networks.pop(network, None)
            else:
                networks[network] = None
        return tuple(networks)


@dataclass(frozen=True, slots=True)
class TunnelConfig:
    """A whole conf. Two are equal if they mean the same, wherever they were read from.

    `name` is the interface's, `path` the file (None for text), `status` that of the file as it was
    read, `warnings` what is doubtful.
    """

    name: str
    interface: InterfaceConfig
    peers: tuple[PeerConfig, ...] = ()
    path: Path | None = field(default=None, compare=False)
    status: os.stat_result | None = field(default=None, compare=False, repr=False)
    warnings: tuple[Problem, ...] = field(default=(), compare=False, repr=False)
