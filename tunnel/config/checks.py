"""What no value shows by itself: the checks across keys, peers and the file."""

import os
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path

from crypto.keys import PublicKey
from tunnel.config import files
from tunnel.config.model import InterfaceConfig, PeerConfig
from tunnel.config.problems import Problems
from tunnel.config.values import MTU_MIN_IPV6

__all__ = ["check_mtu", "check_peers", "check_permissions", "holds_secrets"]


def check_peers(
    peers: Sequence[tuple[int | None, PeerConfig]],
    own_key: PublicKey | None,
    problems: Problems,
) -> None:
    """Find peers that are there twice, that are ourselves, or that take each other's networks.

    `peers` come with the line of their PublicKey.
    """
    lines: dict[PublicKey, int | None] = {}
    owners: dict[IPv4Network | IPv6Network, int | None] = {}
    for line, peer in peers:
        key = peer.public_key
        if key == own_key:
            problems.error(
                line,
                "PublicKey",
                "this host's own public key",
                "the public key of the other side",
                "run `tunnel pubkey` on the peer's private key, not on this one",
            )
        if key in lines:
            problems.error(
                line,
                "PublicKey",
                f"a peer that line {lines[key]} has already",
                "every peer once",
                "join the two sections",
            )
            continue
        lines[key] = line
        for network in peer.networks:
            owner = owners.setdefault(network, line)
            if owner != line:
                problems.warning(
                    line,
                    "AllowedIPs",
                    f"{network}, which the peer of line {owner} has too",
                    "every network at one peer",
                    "this peer gets it, being the last; remove it from one of them",
                )
                owners[network] = line


def check_mtu(
    interface: InterfaceConfig, peers: Sequence[PeerConfig], line: int | None, problems: Problems
) -> None:
    """Find IPv6 on an interface that is too small for it. `line` is MTU's."""
    if interface.mtu is None or interface.mtu >= MTU_MIN_IPV6:
        return
    found = f'"{interface.mtu}"'
    if any(isinstance(address, IPv6Interface) for address in interface.addresses):
        problems.error(
            line,
            "MTU",
            f"{found} with an IPv6 address",
            f"at least {MTU_MIN_IPV6}, which IPv6 needs",
            f"raise MTU to {MTU_MIN_IPV6}, or remove the IPv6 address",
        )
    elif any(isinstance(network, IPv6Network) for peer in peers for network in peer.networks):
        problems.warning(
            line,
            "MTU",
            f"{found} with IPv6 networks among AllowedIPs",
            f"at least {MTU_MIN_IPV6}, which IPv6 needs",
            "no IPv6 packet will pass",
        )


def check_permissions(
    interface: InterfaceConfig,
    peers: Sequence[PeerConfig],
    path: Path,
    status: os.stat_result,
    problems: Problems,
) -> None:
    """Warn if others may read the secrets of the conf, or write into it."""
    if files.others_may(path, status, 0o002):
        problems.warning(
            None,
            "",
            "a file that every user may change",
            "a file that only its owner may change",
            f"chmod 600 {problems.file}",
        )
    elif files.others_may(path, status) and holds_secrets(interface, peers):
        problems.warning(
            None,
            "",
            "a file with secrets that every user may open",
            "a file for its owner only",
            f"chmod 600 {problems.file}",
        )


def holds_secrets(interface: InterfaceConfig, peers: Sequence[PeerConfig]) -> bool:
    """Whether a secret stands in the conf itself."""
    return interface.private_key_file is None or any(
        peer.preshared_key is not None and peer.preshared_key_file is None for peer in peers
    )
