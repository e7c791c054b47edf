"""The table of keys: the dataclasses of a conf, whose fields say how each key is handled.

A new key is one field here. Its `key(...)` gives the name as the manual spells it, the functions
that read and write the value, what a reload does about a change, and a line of documentation. The
parser, `dump`, `strip`, `save`, the hint at a misspelled key, the notes of a reload and
docs/conf.md all follow this table.
"""

import os
import re
from dataclasses import dataclass, field, replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path
from typing import Final, Self

from crypto.keys import PresharedKey, PrivateKey, PublicKey
from tunnel.config import values
from tunnel.config.keys import ConfKey, Reload, comma_separated, key, keys_of, whole_line, words
from tunnel.config.limits import Quota, RateLimit, quota, rate_limit
from tunnel.config.options import TunnelOptions
from tunnel.config.problems import Problem
from tunnel.config.values import AllowedIP, EndpointConfig, Table

__all__ = [
    "SECTIONS",
    "InterfaceConfig",
    "PeerConfig",
    "Section",
    "TunnelConfig",
    "TunnelOptions",
    "changed_keys",
]


def _base64(secret: PrivateKey | PublicKey | PresharedKey) -> str:
    return secret.to_base64()


def _hook(name: str, meaning: str, reload: Reload, example: str) -> dict[str, ConfKey]:
    return key(
        name,
        values.hook,
        meaning,
        reload=reload,
        example=example,
        split=whole_line,
        empty="fine",  # programs that generate confs write all four, used or not
    )


# `ip route`, `ip -6 r`, `route del`; not `ip rule`.
_ROUTES = re.compile(r"\brout|\bip\s+(?:-\S+\s+)*ro?u?\b")


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """Section [Interface].

    `private_key_file` is the value of PrivateKeyFile as written, None if the key stands in the
    conf itself; `private_key` holds the key either way, None if it is left to a hook. `listen_port`
    0 means any, `fwmark` 0 none, `mtu` None computed. Hooks are shell commands with `%i` not yet
    replaced.
    """

    private_key: PrivateKey | None = field(
        default=None,
        metadata=key(
            "PrivateKey",
            values.private_key,
            "this host's private key, as `tunnel genkey` prints it; optional where PreUp or PostUp "
            "may set it (`wg set %i private-key FILE`)",
            reload=Reload.LIVE,
            example="EM4C6YRDMx8FfeZmHxr1f7nLhQSUIEVmN1gkSRqcWUE=",
            write=_base64,
            wg=True,
            file="private_key_file",
            required="create a key with `tunnel genkey` and add it",
            unless=("PreUp", "PostUp"),
        ),
    )
    private_key_file: str | None = field(
        default=None,
        metadata=key(
            "PrivateKeyFile",
            values.file_name,
            "a file with the private key, in place of PrivateKey; relative to the conf's folder",
            reload=Reload.LIVE,
            example="private.key",
            is_file=True,
        ),
    )
    listen_port: int = field(
        default=0,
        metadata=key(
            "ListenPort",
            values.listen_port,
            "the UDP port to receive on; 0 for any free port",
            reload=Reload.SOCKET,
            example="51820",
            wg=True,
        ),
    )
    fwmark: int = field(
        default=0,
        metadata=key(
            "FwMark",
            values.fwmark,
            "the mark of packets sent to peers, decimal or 0x…; 0 or `off` for none, or for one "
            "chosen by the tunnel if a peer has a default route",
            reload=Reload.SOCKET,
            example="0xca6c",
            write=hex,
            wg=True,
        ),
    )
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = field(
        default=(),
        metadata=key(
            "Address",
            values.address,
            "addresses of the interface, each with its prefix length",
            reload=Reload.HOST,
            example="10.0.0.1/24, fd00::1/64",
            split=words,
            empty="warning",
            unique=True,
        ),
    )
    mtu: int | None = field(
        default=None,
        metadata=key(
            "MTU",
            values.mtu,
            f"bytes of the largest packet, {values.MTU_MIN} to {values.MTU_MAX}; without the key, "
            "what the route to the peers allows minus 80 (by a relay on this host: 1420), and with "
            "Mode = tap minus 20 more",
            reload=Reload.HOST,
            example="1420",
            empty="warning",
        ),
    )
    table: Table = field(
        default="auto",
        metadata=key(
            "Table",
            values.table,
            "the routing table for the routes to AllowedIPs: `auto` (main; rules of its own for a "
            "default route), `off` for no routes, a number, or a name of iproute2's `rt_tables`",
            reload=Reload.HOST,
            example="off",
            empty="warning",
        ),
    )
    dns_entries: tuple[IPv4Address | IPv6Address | str, ...] = field(
        default=(),
        metadata=key(
            "DNS",
            values.dns,
            "addresses of DNS servers, and search domains, while the tunnel is up",
            reload=Reload.HOST,
            example="10.0.0.53, corp.example",
            split=words,
            empty="warning",
        ),
    )
    pre_up: tuple[str, ...] = field(
        default=(),
        metadata=_hook(
            "PreUp",
            "a shell command to run before the interface is set up; `%i` is the interface",
            Reload.UP,
            "echo %i starts",
        ),
    )
    post_up: tuple[str, ...] = field(
        default=(),
        metadata=_hook(
            "PostUp",
            "a shell command to run once packets can flow",
            Reload.UP,
            "iptables -A FORWARD -i %i -j ACCEPT",
        ),
    )
    pre_down: tuple[str, ...] = field(
        default=(),
        metadata=_hook(
            "PreDown",
            "a shell command to run before the tunnel goes down",
            Reload.DOWN,
            "echo %i stops",
        ),
    )
    post_down: tuple[str, ...] = field(
        default=(),
        metadata=_hook(
            "PostDown",
            "a shell command to run after the interface is gone",
            Reload.DOWN,
            "iptables -D FORWARD -i %i -j ACCEPT",
        ),
    )
    save_config: bool = field(
        default=False,
        metadata=key(
            "SaveConfig",
            values.boolean,
            "whether the running state is written back into the conf when the tunnel goes down",
            reload=Reload.DOWN,
            example="true",
            write=lambda value: "true" if value else "false",
        ),
    )
    options: TunnelOptions = field(default_factory=TunnelOptions)

    @property
    def dns(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """The addresses of DNS servers."""
        return tuple(entry for entry in self.dns_entries if not isinstance(entry, str))

    @property
    def dns_search(self) -> tuple[str, ...]:
        """The search domains."""
        return tuple(entry for entry in self.dns_entries if isinstance(entry, str))

    @property
    def hooks(self) -> tuple[tuple[str, str], ...]:
        """The shell commands to run, each with the name of its key."""
        return tuple(
            (key.name, command)
            for section in (self, self.options)
            for key in keys_of(type(section)).values()
            if key.read is values.hook
            for command in getattr(section, key.field)
        )

    @property
    def hooks_change_routes(self) -> bool:
        """Whether PreUp or PostUp change routes, which may then differ from AllowedIPs."""
        return any(_ROUTES.search(command) for command in (*self.pre_up, *self.post_up))


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """A section [Peer].

    `preshared_key` is None without one (all zeros count as none), `persistent_keepalive` is in
    seconds, 0 means off. `friendly_name` is that of a comment `# friendly_name = …` in the section,
    as WireGuard exporters read it, for labels only. `expires` is the Unix time of a comment
    `# expires = …`, from which on the daemon does without the peer; None for never.
    """

    public_key: PublicKey = field(
        metadata=key(
            "PublicKey",
            values.public_key,
            "the peer's public key, as `tunnel pubkey` prints it there",
            reload=Reload.LIVE,
            example="nu27NTFqyF4vHsb3pXyQy0b1GxppWnieUOy5+xEdzz8=",
            write=_base64,
            wg=True,
            required="add the key that `tunnel pubkey` printed on the peer",
        )
    )
    preshared_key: PresharedKey | None = field(
        default=None,
        metadata=key(
            "PresharedKey",
            values.preshared_key,
            "a secret that both sides share on top of their keys, as `tunnel genpsk` prints it",
            reload=Reload.LIVE,
            example="/UwcSPg38hW/D9Y3tcS1FOV0K1wuURMbS0sesJEP5ak=",
            write=_base64,
            wg=True,
            file="preshared_key_file",
        ),
    )
    preshared_key_file: str | None = field(
        default=None,
        metadata=key(
            "PresharedKeyFile",
            values.file_name,
            "a file with the preshared key, in place of PresharedKey",
            reload=Reload.LIVE,
            example="office.psk",
            is_file=True,
        ),
    )
    allowed_ips: tuple[AllowedIP, ...] = field(
        default=(),
        metadata=key(
            "AllowedIPs",
            values.allowed_ip,
            "networks that are sent to the peer and accepted from it; `+` and `-` before one add "
            "to the list and take away from it; with Mode = tap, none means any",
            reload=Reload.LIVE,
            example="10.0.0.2/32, fd00::/64",
            split=comma_separated,
            empty="fine",
            wg=True,
        ),
    )
    endpoint: EndpointConfig | None = field(
        default=None,
        metadata=key(
            "Endpoint",
            values.endpoint,
            "the peer's address or host name, and its port; without the key the peer must come "
            "forward",
            reload=Reload.LIVE,
            example="vpn.example.com:51820",
            wg=True,
        ),
    )
    persistent_keepalive: int = field(
        default=0,
        metadata=key(
            "PersistentKeepalive",
            values.keepalive,
            "seconds between empty packets that keep a NAT open, 1 to 65535; 0 or `off` for none",
            reload=Reload.LIVE,
            example="25",
            wg=True,
        ),
    )
    rate_limit: RateLimit = field(
        default=RateLimit(),
        metadata=key(
            "RateLimit",
            rate_limit,
            "rate of packets to the peer and of those from it; set separately as "
            "`to 20 Mbit/s, from 5 Mbit/s`; packets above the rate are queued, then dropped",
            reload=Reload.LIVE,
            example="20 Mbit/s",
        ),
    )
    quota: Quota = field(
        default=Quota(),
        metadata=key(
            "Quota",
            quota,
            "bytes of packets to and from the peer together, `per day`, `per week` or `per month` "
            "(UTC), or in total; then its packets are dropped",
            reload=Reload.LIVE,
            example="50 GB per month",
        ),
    )
    friendly_name: str = field(default="", compare=False)
    expires: float | None = field(default=None, compare=False)

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

    def as_wireguard(self) -> Self:
        """What any WireGuard program knows of the peer, a file's secret as text; and its name."""
        return replace(
            self,
            preshared_key_file=None,
            allowed_ips=tuple(AllowedIP(network) for network in self.networks),
            rate_limit=RateLimit(),
            quota=Quota(),
            expires=None,
        )


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

    @property
    def networks(self) -> list[IPv4Network | IPv6Network]:
        """The allowed networks of all peers, in order."""
        return [network for peer in self.peers for network in peer.networks]


Section = InterfaceConfig | PeerConfig | TunnelOptions

SECTIONS: Final[dict[str, type[Section]]] = {
    "Interface": InterfaceConfig,
    "Peer": PeerConfig,
    "Tunnel": TunnelOptions,
}
"""The title of each section and the class of what it says."""


def changed_keys(old: TunnelConfig, new: TunnelConfig, reload: Reload) -> list[ConfKey]:
    """The keys of [Interface] and [Tunnel] with that `reload` whose values differ."""
    return [
        each
        for one, other in (
            (old.interface, new.interface),
            (old.interface.options, new.interface.options),
        )
        for each in keys_of(type(one)).values()
        if each.reload is reload and getattr(one, each.field) != getattr(other, each.field)
    ]
