"""What no value shows by itself: the checks across keys, peers and the file."""

import os
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path

from crypto.keys import PrivateKey, PublicKey
from tunnel.config import files
from tunnel.config.gateway import Publication
from tunnel.config.keys import keys_of
from tunnel.config.model import InterfaceConfig, PeerConfig
from tunnel.config.problems import Problems, quote
from tunnel.config.values import plain_address
from tunnel.linux.kernel import IPV6_MIN_MTU

__all__ = [
    "OWN_KEY",
    "check_gateway",
    "check_mode",
    "check_mtu",
    "check_peers",
    "check_permissions",
    "find_peer",
    "holds_secrets",
]

OWN_KEY = "PublicKey is this host's own: it must be the public key of the other side"
"""The fault of a peer that has our public key."""


def check_peers(
    peers: Sequence[tuple[int | None, PeerConfig]],
    private_key: PrivateKey | None,
    problems: Problems,
) -> None:
    """Find peers that are there twice, that are this host, or that share a network.

    `peers` come with the line of their PublicKey.
    """
    own_key = None if private_key is None else private_key.public_key()
    lines: dict[PublicKey, int | None] = {}
    owners: dict[IPv4Network | IPv6Network, int | None] = {}
    for line, peer in peers:
        key = peer.public_key
        if key == own_key:
            problems.error(
                line,
                "PublicKey",
                OWN_KEY,
                "run `tunnel pubkey` with the peer's private key, not with this host's",
            )
        # Private keys are clamped when they are read, which changes the first and the last byte.
        if private_key is not None and bytes(key)[1:-1] == bytes(private_key)[1:-1]:
            problems.warning(
                line,
                "PublicKey",
                "PublicKey is this host's PrivateKey: it must be the public key of the other side",
                "paste the key that `tunnel pubkey` printed on the peer",
            )
        if key in lines:
            problems.error(
                line,
                "PublicKey",
                f"PublicKey is the same as on line {lines[key]}: a peer may have one section only",
                "merge the two sections",
            )
            continue
        lines[key] = line
        for network in peer.networks:
            owner = owners.setdefault(network, line)
            if owner != line:
                problems.warning(
                    line,
                    "AllowedIPs",
                    f"AllowedIPs has {network}, which the peer of line {owner} has too",
                    "the last peer, this one, gets it: remove it from one of them",
                )
                owners[network] = line


def check_mtu(
    interface: InterfaceConfig, peers: Sequence[PeerConfig], line: int | None, problems: Problems
) -> None:
    """Find IPv6 on an interface that is too small for it. `line` is MTU's.

    As with wg-quick, addresses alone are left out by the kernel, and the rest works. But where
    IPv6 should be sent into the tunnel, no route to it can be had.
    """
    if interface.mtu is None or interface.mtu >= IPV6_MIN_MTU:
        return
    remedy = f"raise MTU to {IPV6_MIN_MTU}, or take IPv6 out of Address and AllowedIPs"
    own = [a.network for a in interface.addresses if isinstance(a, IPv6Interface)]
    networks = [n for peer in peers for n in peer.networks if isinstance(n, IPv6Network)]
    routed = [n for n in networks if not any(n.subnet_of(each) for each in own)]
    if routed and interface.table != "off" and not interface.options.is_tap:
        problems.error(
            line,
            "MTU",
            f"MTU is {interface.mtu}, but a route to {routed[0]} needs at least {IPV6_MIN_MTU}",
            remedy,
        )
    elif own or networks:
        problems.warning(
            line,
            "MTU",
            f"MTU is {interface.mtu}, and IPv6 needs at least {IPV6_MIN_MTU}: the tunnel has IPv4 "
            "only",
            remedy,
        )


def check_gateway(
    interface: InterfaceConfig,
    peers: Sequence[PeerConfig],
    lines: Callable[[str], int | None],
    problems: Problems,
) -> None:
    """Find entries of a gateway that contradict each other or the peers. `lines` gives a key's."""
    options = interface.options
    networks = [network for peer in peers for network in peer.networks]
    for allowance in options.allow:
        if find_peer(peers, allowance.peer) is None:
            problems.error(
                lines("Allow"),
                "Allow",
                f"Allow names {quote(allowance.peer)}, and there is no such peer",
                "write its public key, an address of its AllowedIPs, or the name of a comment "
                "`# friendly_name = …` in its section",
            )
    for place, one in enumerate(options.publish):
        for other in options.publish[:place]:
            if _overlap(one, other):
                problems.error(
                    lines("Publish"),
                    "Publish",
                    f"Publish has the same port in {one} and in {other}",
                    "publish one of them under another port",
                )
        anywhere = options.is_tap and not all(peer.allowed_ips for peer in peers)
        if not anywhere and not any(one.target in network for network in networks):
            problems.warning(
                lines("Publish"),
                "Publish",
                f"Publish leads to {one.target}, which no peer has in its AllowedIPs",
                "add it to the AllowedIPs of that peer",
            )
    if not options.kill_switch:
        return
    if not networks:
        problems.error(
            lines("KillSwitch"),
            "KillSwitch",
            "KillSwitch has nothing to guard: no peer has AllowedIPs",
            "add AllowedIPs, as 0.0.0.0/0 and ::/0, or remove KillSwitch",
        )
    if options.netns:
        problems.error(
            lines("KillSwitch"),
            "KillSwitch",
            "KillSwitch guards this network namespace, and NetNS puts the interface elsewhere",
            "remove KillSwitch: from a namespace with no other interface nothing leaves past the "
            "tunnel",
        )
    if not interface.fwmark and _refuses_own_packets(interface, peers):
        problems.error(
            lines("KillSwitch"),
            "KillSwitch",
            "KillSwitch must know this tunnel's own packets, and without Table = auto and a /0 in "
            "AllowedIPs they have no mark",
            "add a FwMark, as FwMark = 0xca6c",
        )
    for peer in peers:
        if peer.endpoint is not None and peer.endpoint.address is None:
            problems.warning(
                lines("KillSwitch"),
                "KillSwitch",
                f"KillSwitch keeps name servers beyond the local network from finding "
                f"{quote(peer.endpoint.host)} once the daemon was killed",
                "write the address into Endpoint",
            )


def check_mode(
    interface: InterfaceConfig, name: str, lines: Callable[[str], int | None], problems: Problems
) -> None:
    """Find keys that mean nothing in the tunnel's mode. `lines` gives a key's."""
    options = interface.options
    if not options.is_tap:
        if options.bridge:
            problems.error(
                lines("Bridge"),
                "Bridge",
                "Bridge is for Ethernet frames, and this tunnel carries packets",
                "add Mode = tap here and at the peers, or remove Bridge",
            )
        return
    if options.bridge == name:
        problems.error(
            lines("Bridge"),
            "Bridge",
            f"Bridge has the name of the interface, {name}",
            "choose another name, as br0",
        )
    if interface.table not in ("auto", "off"):
        problems.error(
            lines("Table"),
            "Table",
            "Table is for routes to AllowedIPs, and with Mode = tap there are none",
            "remove Table; the network of an Address is reached directly, and other networks by "
            "routes of your own (PostUp = ip route add 10.1.0.0/16 via 10.0.0.2)",
        )
    if options.kill_switch:
        problems.error(
            lines("KillSwitch"),
            "KillSwitch",
            "KillSwitch keeps packets from leaving past the routes to AllowedIPs, and with "
            "Mode = tap there are none",
            "remove KillSwitch, or remove Mode = tap here and at the peers",
        )


def _refuses_own_packets(interface: InterfaceConfig, peers: Sequence[PeerConfig]) -> bool:
    """Whether a kill switch refuses packets to a peer unless they have a mark, and none is set."""
    networks = [network for peer in peers for network in peer.networks]
    if interface.table != "auto":
        return True
    if any(network.prefixlen == 0 for network in networks):
        return False  # its mark is chosen with the place of the route
    addresses = [peer.endpoint.address for peer in peers if peer.endpoint is not None]
    return any(
        network.prefixlen == 1 or any(address in network for address in addresses if address)
        for network in networks
    )


def find_peer(peers: Iterable[PeerConfig], text: str) -> PeerConfig | None:
    """The peer that Allow means: by friendly_name, public key or an address of its AllowedIPs."""
    peers = tuple(peers)
    for peer in peers:
        if text in (peer.friendly_name, peer.public_key.to_base64()):
            return peer
    address = plain_address(text)
    owners = [
        (network.prefixlen, peer)
        for peer in peers
        for network in peer.networks
        if address is not None and address in network
    ]
    return max(owners, key=lambda found: found[0])[1] if owners else None


def _overlap(one: Publication, other: Publication) -> bool:
    if one.protocol != other.protocol or one.target.version != other.target.version:
        return False
    if one.address and other.address and one.address != other.address:
        return False
    return one.first <= other.last and other.first <= one.last


def check_permissions(
    interface: InterfaceConfig,
    peers: Sequence[PeerConfig],
    path: Path,
    status: os.stat_result,
    problems: Problems,
) -> None:
    """Warn if others may read the secrets of the conf, or write into it."""
    if files.others_may(path, status, 0o002):
        fault = "every user may change this file: only its owner should"
    elif files.others_may(path, status) and holds_secrets(interface, peers):
        fault = "every user may open this file, which holds secrets: only its owner should"
    else:
        return
    problems.warning(None, "", fault, f"run chmod 600 {problems.file}")


def holds_secrets(interface: InterfaceConfig, peers: Sequence[PeerConfig]) -> bool:
    """Whether a secret stands in the conf itself."""
    return any(
        getattr(section, key.field) is not None and getattr(section, key.file) is None
        for section in (interface, *peers)
        for key in keys_of(type(section)).values()
        if key.file
    )
