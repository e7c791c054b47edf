"""What the doctor reads of the machine: links, routes, settings, rules, rights. All blocks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunnel.doctor.facts import (
    FirewallChain,
    FirewallRule,
    FirewallRules,
    LinkFacts,
    RouteFacts,
)
from tunnel.host import HostError, list_firewall, list_ruleset, run_program
from tunnel.linux.rights import held_by
from tunnel.trace import trace_table
from tunnel.trace.ruleset import Ruleset

CAPABILITIES = {12: "CAP_NET_ADMIN", 13: "CAP_NET_RAW"}
"""Those needed here (linux/capability.h)."""


def _ip(*arguments: str) -> list[dict[str, Any]]:
    """What `ip -json` answers. Raises HostError."""
    argv = ["ip", "-json", *arguments]
    text = run_program("run", " ".join(argv), argv, install="apt-get install iproute2")
    try:
        found: list[dict[str, Any]] = json.loads(text or "[]")
    except ValueError:
        raise HostError("run", " ".join(argv), "its answer is not JSON") from None
    return [entry for entry in found if entry]


def read_links() -> dict[str, LinkFacts]:
    """All interfaces by name, with all their addresses. Raises HostError."""
    links = {}
    for entry in _ip("address", "show"):
        found = {
            f"{info['local']}/{info['prefixlen']}": info.get("noprefixroute", False)
            for info in entry.get("addr_info", ())
            if "local" in info
        }
        unrouted = tuple(text for text, flag in found.items() if flag)
        name = entry["ifname"]
        up, master = "UP" in entry["flags"], entry.get("master", "")
        links[name] = LinkFacts(name, up, entry["mtu"], tuple(found), master, unrouted)
    return links


def read_networks(interface: str) -> tuple[str, ...]:
    """Where table main has unicast routes to by this interface. Raises HostError."""
    found = []
    for version in ("-4", "-6"):
        entries = _ip(version, "route", "show", "table", "main", "dev", interface)
        found += [entry["dst"] for entry in entries if "type" not in entry]
    return tuple(found)


def read_dead_ends() -> tuple[str, ...]:
    """Where table main leads nowhere, as in "blackhole 10.0.0.0/8". Raises HostError."""
    return tuple(
        f"{kind} {entry['dst']}"
        for version in ("-4", "-6")
        for kind in ("blackhole", "unreachable", "prohibit")
        for entry in _ip(version, "route", "show", "table", "main", "type", kind)
        if entry["dst"] != "default"
    )


def read_route(address: str, mark: int = 0, source: str | None = None) -> RouteFacts:
    """The kernel's choice for packets to `address` with this fwmark, from this address of ours."""
    arguments = ["from", source] if source is not None else []
    arguments += ["mark", str(mark)] if mark else []
    try:
        found = _ip("route", "get", address, *arguments)
    except HostError as error:
        return RouteFacts(error=error.reason.rpartition("answers: ")[2])
    if not found:
        return RouteFacts(error="no route")
    entry = found[0]
    kind = entry.get("type", "unicast")
    if kind in ("unreachable", "blackhole", "prohibit"):
        return RouteFacts(error=f"a route of type {kind}")
    return RouteFacts(entry.get("dev", ""), kind == "local")


def read_samples(addresses: Iterable[str], mark: int) -> dict[str, RouteFacts]:
    """The routes to these addresses, and which route and rule of another program they come from.

    `mark` is that of the tunnel's own packets, 0 if they have none. Raises HostError.
    """
    found = {}
    before: dict[str, str] = {}
    for address in addresses:
        version = "-6" if ":" in address else "-4"
        if version not in before:
            before[version] = _rule_before(_ip(version, "rule", "show"), mark)
        route = read_route(address)
        if route.error:
            network = _refusing_route(version, address)
        else:
            network = _ip("route", "get", "fibmatch", address)[0]["dst"]
        found[address] = replace(route, network=network, rule=before[version])
    return found


def _refusing_route(version: str, address: str) -> str:
    """The type and network of the route in table main that leads nowhere on purpose, if any."""
    for entry in reversed(_ip(version, "route", "show", "table", "main", "match", address)):
        if "type" in entry:
            return f"{entry['type']} {entry['dst']}"
    return ""


def _rule_before(rules: list[dict[str, Any]], mark: int) -> str:
    """The first rule for all packets that is asked before those of the tunnel; "" if none is."""
    for rule in rules:
        if str(rule.get("fwmark", "")) == hex(mark):
            return ""
        known = {"priority", "src", "table", "protocol"}
        if rule["priority"] and rule.get("src") == "all" and not rule.keys() - known:
            return f"pref {rule['priority']} lookup {rule['table']}"
    return ""


def read_sysctls(interfaces: Iterable[str]) -> dict[str, str]:
    """Those settings that matter here, by their dotted name; what is not there is left out."""
    root = Path("/proc/sys")
    names = [
        ("net", "ipv4", "ip_forward"),
        ("net", "ipv6", "conf", "all", "forwarding"),
        ("net", "ipv4", "conf", "all", "src_valid_mark"),
        ("net", "netfilter", "nf_conntrack_udp_timeout"),
        ("net", "netfilter", "nf_conntrack_count"),
        ("net", "netfilter", "nf_conntrack_max"),
        ("net", "netfilter", "nf_conntrack_udp_timeout_stream"),
    ]
    for name in ("all", *interfaces):
        names += [("net", "ipv4", "conf", name, "rp_filter")]
        names += [("net", "ipv6", "conf", name, "disable_ipv6")]
    found = {}
    for parts in names:
        try:
            found[".".join(parts)] = root.joinpath(*parts).read_text().strip()
        except OSError:
            continue
    return found


def read_firewall() -> FirewallRules:
    """Netfilter's rules in this namespace. Raises HostError."""
    return parse_firewall(list_ruleset())


def has_kill_switch(name: str) -> bool:
    """Whether a kill switch of that tunnel stands; False where that cannot be seen."""
    try:
        return "jump killswitch" in list_firewall(name)
    except HostError:
        return False


def parse_firewall(listing: str) -> FirewallRules:
    """From the output of `nft -a -y -t list ruleset`."""
    found = Ruleset.parse(listing)
    return FirewallRules(
        tuple(
            FirewallChain(family, table, name, chain.hook.lower(), chain.policy, chain.devices)
            for (family, table, name), chain in found.chains.items()
            if not table.startswith(trace_table.PREFIX)
        ),
        tuple(
            FirewallRule(family, table, found.homes[family, table, handle], text)
            for (family, table, handle), text in found.rules.items()
            if not table.startswith(trace_table.PREFIX)
        ),
        frozenset(place for place in found.names if place[2].startswith("DOCKER")),
    )


def count_spoofed() -> int:
    """Packets that rp_filter has dropped in this namespace so far."""
    try:
        lines = Path("/proc/net/netstat").read_text().splitlines()
    except OSError:
        return 0
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        found = dict(zip(names.split(), values.split(), strict=False))
        if "IPReversePathFilter" in found:
            return int(found["IPReversePathFilter"])
    return 0


def missing_capabilities(pid: int | None = None) -> tuple[str, ...]:
    """Which of `CAPABILITIES` a process lacks (by default, we); nothing if it cannot be seen."""
    held = held_by(pid)
    if held is None:
        return ()
    return tuple(word for bit, word in CAPABILITIES.items() if bit not in held.capabilities)


def in_our_namespace(pid: int) -> bool:
    """Whether a process is in our network namespace; True if that is not known."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
    except OSError:
        return True
