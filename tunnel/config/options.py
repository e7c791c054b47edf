"""Section [Tunnel] of a conf: what WireGuard and wg-quick do not have."""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from tunnel.config import gateway, values
from tunnel.config.gateway import Allowance, Netmap, Publication
from tunnel.config.keys import ConfKey, Reload, key, whole_line
from tunnel.config.values import AutoSwitch, Datapath, LogLevel, Metrics, RecordKind

__all__ = ["RecordKind", "TunnelOptions"]


def _switch(
    name: str, meaning: str, *, reload: Reload = Reload.UP, example: str = "off"
) -> dict[str, ConfKey]:
    return key(
        name,
        values.switch,
        meaning,
        reload=reload,
        example=example,
        write=lambda value: "on" if value else "off",
    )


_gate_switch = partial(_switch, reload=Reload.HOST, example="on")


@dataclass(frozen=True, slots=True)
class TunnelOptions:
    """Our own options, from section [Tunnel] or from `#! tunnel: Key = value` lines.

    An offload is used if neither its own switch nor the one over it (`tun_offload` for the
    two of the TUN, `udp_offload` for the two of the socket) is off, and the kernel has it.
    """

    datapath: Datapath = field(
        default="auto",
        metadata=key(
            "Datapath",
            values.datapath,
            "which code handles packets: `native` (compiled), `python`, or the best there is",
            reload=Reload.UP,
            example="python",
        ),
    )
    tun_offload: bool = field(
        default=True,
        metadata=_switch(
            "TunOffload", "whether the TUN device may pass large unsplit packets, if the kernel can"
        ),
    )
    tun_tso: bool = field(
        default=True,
        metadata=_switch("TunTso", "the same for TCP segments only"),
    )
    tun_uso: bool = field(
        default=True,
        metadata=_switch("TunUso", "the same for UDP datagrams only"),
    )
    udp_offload: bool = field(
        default=True,
        metadata=_switch(
            "UdpOffload",
            "whether the UDP socket may send and receive datagrams in batches, if the kernel can",
        ),
    )
    udp_gso: bool = field(
        default=True,
        metadata=_switch("UdpGso", "the same for sending only (UDP_SEGMENT)"),
    )
    udp_gro: bool = field(
        default=True,
        metadata=_switch("UdpGro", "the same for receiving only (UDP_GRO)"),
    )
    udp_short_tail: AutoSwitch = field(
        default="auto",
        metadata=key(
            "UdpShortTail",
            values.auto_switch,
            "whether an empty message of 32 bytes ends each batch whose datagrams are equally "
            "long. `auto`: on Linux 7.0 to 7.1.4, which may damage such batches. Use `on` in a "
            "virtual machine whose host has such a kernel: TCP out of it is very slow, and TCP "
            "into it is not",
            reload=Reload.UP,
            example="on",
        ),
    )
    metrics: Metrics = field(
        default="unix",
        metadata=key(
            "Metrics",
            values.metrics,
            "where Prometheus metrics are served: `unix` (/run/tunnel/NAME.metrics), "
            "ADDRESS:PORT, or `off`",
            reload=Reload.UP,
            example="127.0.0.1:9586",
        ),
    )

    log_level: LogLevel = field(
        default="info",
        metadata=key(
            "LogLevel",
            values.log_level,
            "the least level of lines in the log: `debug`, `info`, `warning` or `error`; "
            "`tunnel up --verbose` means `debug`",
            reload=Reload.UP,
            example="debug",
        ),
    )

    hook_timeout: int = field(
        default=90,
        metadata=key(
            "HookTimeout",
            values.time_limit,
            "seconds after which a hook is ended and counts as failed; `off` for no limit",
            reload=Reload.DOWN,
            example="300",
            write=lambda value: str(value) if value else "off",
        ),
    )

    repair: bool = field(
        default=False,
        metadata=_switch(
            "Repair",
            "whether routes, rules, addresses and firewall that another program removes are put "
            "back at once; if not, that is reported only, and `tunnel reload` puts them back",
            reload=Reload.LIVE,
            example="on",
        ),
    )

    seamless_restart: bool = field(
        default=True,
        metadata=_switch(
            "SeamlessRestart",
            "whether the interface, its addresses, routes and rules, and the UDP port stay while "
            "the daemon is restarted, or killed and started again",
            reload=Reload.LIVE,
        ),
    )

    forward: bool = field(
        default=False,
        metadata=_gate_switch(
            "Forward",
            "whether this host forwards packets between the tunnel and its other networks; "
            "docker's firewall lets them pass, too",
        ),
    )
    masquerade: str = field(
        default="",
        metadata=key(
            "Masquerade",
            gateway.card,
            "whether packets from the tunnel leave this host under its own address: `auto` for "
            "every way out, the name of one interface, or `off`; implies Forward",
            reload=Reload.HOST,
            example="auto",
            write=lambda value: value or "off",
        ),
    )
    publish: tuple[Publication, ...] = field(
        default=(),
        metadata=key(
            "Publish",
            gateway.publication,
            "ports of this host that lead to a host in the tunnel, [ADDRESS:]PORT:ADDRESS:PORT, "
            "with `/udp` for UDP, or ranges of ports; that host sees this one's tunnel address as "
            "the source; implies Forward",
            reload=Reload.HOST,
            example="8080:10.0.0.2:80/tcp",
            split=gateway.entries,
            empty="warning",
        ),
    )
    isolate: bool = field(
        default=False,
        metadata=_gate_switch(
            "Isolate",
            "whether the peers of this tunnel, and those of other tunnels, are kept from reaching "
            "each other by this host, but for what Allow says",
        ),
    )
    allow: tuple[Allowance, ...] = field(
        default=(),
        metadata=key(
            "Allow",
            gateway.allowance,
            "what a peer may open connections to, PEER -> NETWORK[:PORT][/tcp or /udp]; a peer "
            "that is named here, by its friendly_name, public key or address, may reach nothing "
            "else on this host or by it",
            reload=Reload.HOST,
            example="laptop -> 10.0.0.0/24:22/tcp",
            split=gateway.entries,
            empty="warning",
        ),
    )
    clamp_mss: Literal["auto", "off"] | int = field(
        default="off",
        metadata=key(
            "ClampMSS",
            gateway.clamp,
            "to what the segments of forwarded TCP connections are limited: `auto` for what the "
            "route allows, a number of bytes, or `off`",
            reload=Reload.HOST,
            example="auto",
        ),
    )
    kill_switch: bool = field(
        default=False,
        metadata=_gate_switch(
            "KillSwitch",
            "whether what should go into the tunnel is refused any other way, also before the "
            "tunnel is up and after its daemon was killed, until `tunnel down`; the local network "
            "and DHCP stay open",
        ),
    )
    netmap: tuple[Netmap, ...] = field(
        default=(),
        metadata=key(
            "Netmap",
            gateway.netmap,
            "a network beside this host, and the network of the same size that peers see in its "
            "place, where networks overlap; implies Forward",
            reload=Reload.HOST,
            example="192.168.1.0/24 -> 10.71.1.0/24",
            split=gateway.entries,
            empty="warning",
        ),
    )

    records: RecordKind = field(
        default="off",
        metadata=key(
            "Records",
            values.records,
            "what is recorded in /var/log/tunnel/NAME.jsonl: `sessions` of the peers, `flows` "
            "(sessions, and each connection with its addresses and ports), or `off`",
            reload=Reload.LIVE,
            example="sessions",
        ),
    )
    peer_up: tuple[str, ...] = field(
        default=(),
        metadata=key(
            "PeerUp",
            values.hook,
            "a shell command to run when a peer has connected; details of the peer are in the "
            "environment, such as `$TUNNEL_PEER_NAME`",
            reload=Reload.LIVE,
            example='logger -- "$TUNNEL_PEER_NAME"',
            split=whole_line,
            empty="fine",
        ),
    )
    peer_down: tuple[str, ...] = field(
        default=(),
        metadata=key(
            "PeerDown",
            values.hook,
            "a shell command to run when a peer has disconnected",
            reload=Reload.LIVE,
            example='logger -- "$TUNNEL_PEER_NAME: $TUNNEL_PEER_REASON"',
            split=whole_line,
            empty="fine",
        ),
    )

    netns: str = field(
        default="",
        metadata=key(
            "NetNS",
            values.namespace,
            "the network namespace that the interface is moved into, with its addresses and "
            "routes: a name, as `ip netns` has it, or a path; the UDP socket stays outside",
            reload=Reload.UP,
            example="office",
        ),
    )

    attach: bool = field(
        default=True,
        metadata=_switch(
            "Attach",
            "whether the interface may be moved to another network namespace while it is up, by "
            "`tunnel attach` or by hand; with `off` the daemon cannot follow it, and gives up the "
            "capabilities for that",
        ),
    )

    mode: Literal["tun", "tap"] = field(
        default="tun",
        metadata=key(
            "Mode",
            values.mode,
            "what the interface carries: `tun` for IP packets, `tap` for Ethernet frames, as "
            "between ports of a switch; all peers need the same mode; with `tap`, a peer without "
            "AllowedIPs may send any frame",
            reload=Reload.UP,
            example="tap",
        ),
    )
    bridge: str = field(
        default="",
        metadata=key(
            "Bridge",
            values.bridge,
            "with Mode = tap, the Linux bridge to which the interface is added, made if there is "
            "none of that name; Address is then set on the bridge",
            reload=Reload.UP,
            example="br0",
        ),
    )

    @property
    def is_tap(self) -> bool:
        """Whether the interface carries Ethernet frames."""
        return self.mode == "tap"

    @property
    def netns_path(self) -> str | None:
        """The file of the network namespace of the interface; None for the daemon's own."""
        if not self.netns:
            return None
        return self.netns if self.netns.startswith("/") else f"/run/netns/{self.netns}"

    @property
    def forwards(self) -> bool:
        """Whether this host should forward packets."""
        return self.forward or bool(self.masquerade or self.publish or self.netmap)

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
