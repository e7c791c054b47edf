"""Checks of a tunnel that is not up: what `tunnel up` would fail at."""

from __future__ import annotations

from collections.abc import Iterator

from tunnel.doctor.facts import Facts
from tunnel.doctor.findings import Finding
from tunnel.doctor.routing import swallowed_networks
from tunnel.host import Obstacle


def check_obstacles(facts: Facts) -> Iterator[Finding]:
    """What the checks of `tunnel up` found."""
    swallowed = {str(network) for _, network, _, _ in swallowed_networks(facts)}
    for obstacle in facts.obstacles:
        # Of a network that the host itself is in, check_swallowed_networks says more.
        if obstacle.subject.removeprefix("route ") not in swallowed:
            yield _finding(facts, obstacle)


def _finding(facts: Facts, obstacle: Obstacle) -> Finding:
    seen, remedy = obstacle.reason, obstacle.remedy
    if facts.conf is not None and facts.conf.interface.pre_up:
        seen += "; tunnel up would say so, unless PreUp changes that"
    else:
        seen += "; tunnel up would say so"
    match obstacle.kind:
        case "interface":
            return Finding(
                "interface_taken",
                f"another interface has the name {facts.name} already, so tunnel up would fail",
                f"ip link show {facts.name} lists it; it is {obstacle.reason}",
                remedy,
            )
        case "port":
            return Finding(
                "port_taken",
                "the UDP port of the conf is in use, so tunnel up would fail",
                seen,
                remedy,
            )
        case "ipv6":
            return Finding(
                "ipv6_off",
                "IPv6 is switched off for new interfaces, and the conf has IPv6 addresses or "
                "networks, so tunnel up would fail",
                seen,
                "sysctl -w net.ipv6.conf.default.disable_ipv6=0   # or take IPv6 out of Address "
                "and AllowedIPs"
                if facts.sysctls.get("net.ipv6.conf.all.disable_ipv6") is not None
                else remedy,
            )
        case "route":
            return Finding(
                "route_taken",
                "another program has a route to a network of AllowedIPs, so tunnel up would fail",
                seen,
                remedy,
            )
        case "dns":
            return Finding(
                "dns_missing",
                "the conf has DNS, and this host has no program that sets name servers, so tunnel "
                "up would fail",
                seen,
                remedy,
            )
        case "firewall":
            return Finding(
                "nft_missing",
                "the conf needs a firewall table (for a default route, or as a gateway), and nft "
                "cannot set one here, so tunnel up would fail",
                seen,
                remedy,
            )
        case "other":
            return Finding(
                "up_refused",
                "tunnel up would fail",
                seen,
                remedy or "do what it says, then tunnel up",
            )
