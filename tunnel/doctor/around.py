"""Checks of what the tunnel put around itself: whether it is still there, and is used first."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network

from tunnel.doctor.facts import Facts, IpAddress, Network, RouteFacts, networks_of
from tunnel.doctor.findings import Finding

SAMPLES: tuple[IpAddress, ...] = tuple(
    ip_address(text)
    for text in ("57.11.83.29", "108.61.7.93", "147.92.31.5", "211.73.9.41", "2003:5b:7::9")
)
"""Addresses somewhere in the Internet. Only the way to them is asked for; nothing is sent there."""

KINDS = ("route", "rule", "firewall", "sysctl", "dns")
"""What is reported here; the rest has checks of its own."""

FIND = "   # it comes back unless the program that adds it is changed"

DEFAULT_LIKE = 1
"""The prefix length up to which a network takes the place of the default route."""


def samples_in(networks: list[Network]) -> list[str]:
    """The samples that should be reached through a tunnel with these allowed IPs."""
    wide = [network for network in networks if network.prefixlen <= DEFAULT_LIKE]
    return [str(each) for each in SAMPLES if any(each in network for network in wide)]


def check_taken_away(facts: Facts) -> Iterator[Finding]:
    """What was set up, and is gone. A lost address takes its routes along, a link all of it."""
    link = facts.links.get(facts.name)
    if link is None or not link.up:
        return  # reported as such
    lost = [change.subject for change in facts.taken_away(*KINDS)]
    addresses = [change.subject.split()[-1] for change in facts.taken_away("address")]
    lost = [each for each in lost if not _goes_with(each, addresses)]
    if lost:
        yield Finding(
            "taken_away",
            "another program removed or changed what the tunnel needs around it: packets may "
            "miss it, and leave in clear",
            f"tunnel diff {facts.name} lists {'; '.join(lost)}",
            f"tunnel reload {facts.name}",
        )


def _goes_with(subject: str, addresses: list[str]) -> bool:
    """Whether a route is gone because an address is: the last of its version, or its network's."""
    kind, _, rest = subject.partition(" ")
    if kind != "route" or not addresses:
        return False
    return any(
        ip_network(rest.split()[0]).version == ip_interface(address).version
        for address in addresses
    )


def taken_networks(facts: Facts) -> list[Network]:
    """The networks whose route was taken away, by itself or with the address it came with."""
    routes = [ip_network(change.subject.split()[1]) for change in facts.taken_away("route")]
    addresses = [change.subject.split()[1] for change in facts.taken_away("address")]
    return routes + [ip_interface(address).network for address in addresses]


def put_back(facts: Facts, otherwise: str) -> str:
    """The command that puts back what was taken; `otherwise` where the daemon was not asked."""
    return f"tunnel reload {facts.name}" if facts.differences is not None else otherwise


def up_command(facts: Facts) -> str:
    """The command that brings the tunnel up, in words where its conf is not known."""
    path = _conf_path(facts)
    return f"tunnel up {shlex.quote(path)}" if path else "tunnel up with its conf"


def restart_command(facts: Facts) -> str:
    """The command that takes a tunnel down and up again, without opening a kill switch."""
    return f"tunnel restart {shlex.quote(_conf_path(facts) or facts.name)}"


def _conf_path(facts: Facts) -> str:
    if facts.conf_path:
        return facts.conf_path
    return "" if facts.after is None else facts.after.conf


def doctor_command(facts: Facts) -> str:
    """The command that runs the doctor on the same tunnel."""
    return f"tunnel doctor {shlex.quote(_conf_path(facts) or facts.name)}"


def check_leaks(facts: Facts) -> Iterator[Finding]:
    """A full tunnel that another program's rule or route takes packets away from."""
    conf = facts.conf.interface if facts.conf is not None else None
    chosen = conf is not None and (conf.table != "auto" or conf.hooks_change_routes)
    link = facts.links.get(facts.name)
    if chosen or link is None or not link.up or link.master or facts.taken_away("route", "rule"):
        return
    leaks: dict[str, list[str]] = {}
    for address, route in facts.samples.items():
        if route.device != facts.name:
            leaks.setdefault(_remedy(facts, address, route), []).append(address)
    for remedy, addresses in leaks.items():
        route = facts.samples[addresses[0]]
        leaves = f"dev {route.device}" if route.device else route.error
        yield Finding(
            "traffic_leaks",
            "the tunnel should carry all traffic, but another program's rule or route takes it "
            "past the tunnel" + (" in clear" if route.device else ""),
            f"ip route get {addresses[0]} says {leaves}",
            remedy,
        )


def _remedy(facts: Facts, address: str, route: RouteFacts) -> str:
    version = f"-{ip_address(address).version}"
    if route.network not in ("", "default"):
        place = f" dev {route.device}" if route.device else ""
        return f"ip {version} route del {route.network}{place}{FIND}"
    if route.rule:
        return f"ip {version} rule del {route.rule}{FIND}"
    return f"ip {version} rule; ip {version} route show table all   # what is before the tunnel's"


def check_holder(facts: Facts) -> Iterator[Finding]:
    """Nobody keeps the interface for another daemon, and somebody did."""
    if facts.after is not None and facts.after.lost_holders and not facts.after.holder:
        yield Finding(
            "holder_ended",
            "the holder has ended, which keeps the interface for another daemon, and there is no "
            "other one: if the daemon ends now, the tunnel ends with it",
            f"tunnel show {facts.name}: holder has ended; the log of the daemon says why there is "
            "no other one",
            f"{restart_command(facts)}   # this interrupts it once",
        )


def wide_networks(facts: Facts) -> list[Network]:
    """All allowed IPs that take the place of a default route."""
    found = [network for peer in facts.peers for network in networks_of(peer)]
    return [network for network in found if network.prefixlen <= DEFAULT_LIKE]
