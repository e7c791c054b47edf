"""What the doctor reads of the machine: links, routes, settings, rules, rights. All blocks."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tunnel.doctor.facts import BaseChain, Firewall, Link, Route, Rule
from tunnel.errors import TunnelError
from tunnel.trace.ruleset import Ruleset

TIMEOUT = 20.0
CAPABILITIES = {12: "CAP_NET_ADMIN", 13: "CAP_NET_RAW"}
"""Those needed here (linux/capability.h)."""
TRACE_TABLE = "tunnel-trace-"


class LookError(TunnelError):
    """Something could not be looked at; the text says what and why."""

    code = "look"


def run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program of the machine to its end. Raises LookError if that cannot be done."""
    try:
        return subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else "no answer"
        raise LookError(f"{arguments[0]}: {reason or error}") from None


def _json(arguments: Sequence[str]) -> list[dict[str, Any]]:
    done = run(arguments)
    if done.returncode != 0:
        raise LookError(f"{' '.join(arguments)}: {done.stderr.strip()}")
    return _decoded(arguments, done.stdout)


def _decoded(arguments: Sequence[str], text: str) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(text or "[]")
    except ValueError:
        raise LookError(f"{' '.join(arguments)}: its answer is no JSON") from None
    return [entry for entry in found if entry]


def read_links() -> dict[str, Link]:
    """All interfaces by name, with all their addresses. Raises LookError."""
    links = {}
    for entry in _json(["ip", "-json", "address", "show"]):
        found = {
            f"{info['local']}/{info['prefixlen']}": info.get("noprefixroute", False)
            for info in entry.get("addr_info", ())
            if "local" in info
        }
        unrouted = tuple(text for text, flag in found.items() if flag)
        name = entry["ifname"]
        up, master = "UP" in entry["flags"], entry.get("master", "")
        links[name] = Link(name, up, entry["mtu"], tuple(found), master, unrouted)
    return links


def read_networks(interface: str) -> tuple[str, ...]:
    """Where table main has unicast routes to by this interface. Raises LookError."""
    found = []
    for version in ("-4", "-6"):
        arguments = ["ip", "-json", version, "route", "show", "table", "main", "dev", interface]
        found += [entry["dst"] for entry in _json(arguments) if "type" not in entry]
    return tuple(found)


def read_route(address: str, mark: int = 0, source: str | None = None) -> Route:
    """The kernel's choice for packets to `address` with this fwmark, and from this address of ours.

    Raises LookError.
    """
    arguments = ["ip", "-json", "route", "get", address]
    arguments += ["from", source] if source is not None else []
    arguments += ["mark", str(mark)] if mark else []
    done = run(arguments)
    if done.returncode != 0:
        words = done.stderr.strip().rpartition("answers: ")[2]
        return Route(error=words or "no route")
    found = _decoded(arguments, done.stdout)
    if not found:
        return Route(error="no route")
    entry = found[0]
    kind = entry.get("type", "unicast")
    if kind in ("unreachable", "blackhole", "prohibit"):
        return Route(error=f"a route of type {kind}")
    return Route(entry.get("dev", ""), entry.get("gateway"), kind == "local")


def read_sysctls(interfaces: Iterable[str]) -> dict[str, str]:
    """Those settings that matter here, by their dotted name; what is not there is left out."""
    root = Path("/proc/sys")
    names = [
        ("net", "ipv4", "ip_forward"),
        ("net", "ipv6", "conf", "all", "forwarding"),
        ("net", "ipv4", "conf", "all", "src_valid_mark"),
        ("net", "netfilter", "nf_conntrack_udp_timeout"),
        ("net", "netfilter", "nf_conntrack_udp_timeout_stream"),
    ]
    names += [("net", "ipv4", "conf", name, "rp_filter") for name in ("all", *interfaces)]
    found = {}
    for parts in names:
        try:
            found[".".join(parts)] = root.joinpath(*parts).read_text().strip()
        except OSError:
            continue
    return found


def read_firewall() -> Firewall:
    """Netfilter's rules in this namespace. Raises LookError."""
    # Terse: without the elements of sets, which may be hundreds of thousands.
    done = run(["nft", "-a", "-y", "-t", "list", "ruleset"])
    if done.returncode != 0:
        said = done.stderr.strip().partition("\n")[0]
        raise LookError(f"nft list ruleset: {said}")
    return parse_firewall(done.stdout)


def parse_firewall(listing: str) -> Firewall:
    """From the output of `nft -a -y -t list ruleset`."""
    found = Ruleset.parse(listing)
    return Firewall(
        tuple(
            BaseChain(family, table, name, chain.hook.lower(), chain.policy)
            for (family, table, name), chain in found.chains.items()
            if not table.startswith(TRACE_TABLE)
        ),
        tuple(
            Rule(family, table, found.homes[family, table, handle], text)
            for (family, table, handle), text in found.rules.items()
            if not table.startswith(TRACE_TABLE)
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
    try:
        text = Path(f"/proc/{pid or 'self'}/status").read_text()
    except OSError:
        return ()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            effective = int(value, 16)
            return tuple(word for bit, word in CAPABILITIES.items() if not effective >> bit & 1)
    return ()


def in_our_namespace(pid: int) -> bool:
    """Whether a process sees the same network as we; True if that cannot be told."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
    except OSError:
        return True
