"""What the text of a netfilter rule says, as far as the checks must know: nothing is evaluated.

A rule that these functions do not understand counts as one that may match, so that there is no
finding.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from tunnel.doctor.facts import FirewallChain, FirewallRules, Network

CLOSED = "drop"
"""The policy of a chain that lets nothing pass for which it has no rule."""

_STRINGS = re.compile(r'(?:log prefix|comment) "[^"]*"')
_INTERFACES = re.compile(r'(!= )?(\{[^}]*\}|"[^"]*")')
_NEGATED = re.compile(r'[io]if(?:name)? != (\{[^}]*\}|"[^"]*")')
_ADDRESSES = re.compile(r"\bip6? [sd]addr (!= )?(\{[^}]*\}|\S+)")
_PORTS = re.compile(r"\bdport (!= )?(\{[^}]*\}|\S+)")
_JUMP = re.compile(r"\b(?:jump|goto) ([^\s,}]+)")
_GOTO = re.compile(r"\bgoto ")
_NARROWS = re.compile(r"\b[io]if(?:name|type|group)? |addr |proto|\btcp |\budp |icmp|port |status ")
_NOISE = re.compile(r"\bcounter (?:packets \d+ bytes \d+|name \S+)|\blog(?: (?:level|flags) \S+)*")
_SHUTS = re.compile(
    r"(?:(?:meta l4proto|ip protocol|ip6 nexthdr) (?:udp|17) )?"
    r"(?:(?:udp|th) dport (\{[^}]*\}|\S+) )?"
    r"(?:ct state \S*\bnew\b\S* )?(?:drop|reject\b.*)"
)
_UNKNOWN = re.compile(r"\bqueue\b|\bvmap (?!\{ )|\bNFQUEUE\b|\bTPROXY\b")
"""Verdicts that are not in the text; those of a map without a name are."""
_LEAVES = re.compile(r"\b(?:return|queue|vmap)\b")
_PROTOCOLS = re.compile(r"\b(?:l4proto|protocol|nexthdr) (!= )?(\{[^}]*\}|\S+)")
_NOT_UDP = {"tcp", "icmp", "ipv6-icmp", "igmp", "esp", "ah", "6", "1", "58", "2", "50", "51"}
"""By name, and by number, as nft lists protocols where there is no /etc/protocols."""
_OTHER_TRAFFIC = re.compile(r"\btcp |(?<!@)\bicmp|\bigmp |\besp |\bah |status ")


def insert(table: str, chain: str, match: str) -> str:
    """The command that lets what matches pass a chain; `table` with its family. Narrow as `match`.

    At the head of the chain, so that no other rule and no policy of it applies.
    """
    return shlex.join(["nft", "insert", "rule", *table.split(" ", 1), chain, f"{match} accept"])


def reachable(firewall: FirewallRules, chain: FirewallChain) -> Iterator[str]:
    """The texts of the rules that a packet may come to from a base chain, by jumps too."""
    seen: set[str] = set()
    ahead = [chain.name]
    while ahead:
        name = ahead.pop()
        if name in seen:
            continue
        seen.add(name)
        for rule in firewall.rules:
            if (rule.family, rule.table, rule.chain) == (chain.family, chain.table, name):
                text = _STRINGS.sub("", rule.text)
                yield text
                ahead += _JUMP.findall(text)


def what_shuts(
    firewall: FirewallRules, chain: FirewallChain, version: str, port: int, tunnel: str
) -> str | None:
    """What in a base chain certainly drops new datagrams to this UDP port, from any source.

    That is a rule, or the policy; None if some may come in. `version` is ip or ip6.
    """
    other = "ip6 nexthdr " if version == "ip" else "ip protocol "
    texts = list(reachable(firewall, chain))
    if chain.policy == CLOSED and not any(
        may_come_in(text, port, tunnel) or _UNKNOWN.search(text) for text in texts
    ):
        return f"table {chain.family} {chain.table}, chain {chain.name}, policy {chain.policy}"
    for rule in firewall.rules:
        if (rule.family, rule.table, rule.chain) != (chain.family, chain.table, chain.name):
            continue
        text = " ".join(_NOISE.sub("", _STRINGS.sub("", rule.text)).split())
        found = _SHUTS.fullmatch(text)
        if text.startswith(other):
            found = None
        if found and (not found[1] or any(_is_port(part, port) for part in _parts(found[1]))):
            return f"table {rule.family} {rule.table}, chain {rule.chain}: {rule.text}"
        if may_come_in(text, port, tunnel) or _is_open_ended(text) or _GOTO.search(text):
            return None  # after goto only the policy is left
        for name in _JUMP.findall(text):
            ahead = FirewallChain(chain.family, chain.table, name, chain.hook)
            inner = [_STRINGS.sub("", each) for each in reachable(firewall, ahead)]
            if any(may_come_in(each, port, tunnel) or _is_open_ended(each) for each in inner):
                return None
    return None


def _is_open_ended(text: str) -> bool:
    return bool(_LEAVES.search(text) or _UNKNOWN.search(text))


def names_interface(text: str, name: str) -> bool:
    """Whether a rule asks for this interface, by name, in a set, or by a pattern (`wg*`)."""
    return any(_fits(pattern, name) for pattern in _interfaces(_STRINGS.sub("", text)))


def _interfaces(text: str) -> Iterator[str]:
    for negated, group in _INTERFACES.findall(text):
        if not negated:
            yield from re.findall(r'"([^"]*)"', group)


def _fits(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def may_forward(text: str, name: str, networks: list[Network]) -> bool:
    """Whether a rule may let new flows of the tunnel `name` pass, `networks` being behind it."""
    if not accepts_new(text):
        return False
    if names_interface(text, name) or "@" in text or "mark " in text:
        return True
    for negated, group in _ADDRESSES.findall(text):
        if negated or any(_overlaps(part, networks) for part in _parts(group)):
            return True
    # All interfaces but others are ours too.
    rest = _NEGATED.sub(lambda found: found[0] if names_interface(found[1], name) else "", text)
    return _NARROWS.search(rest) is None


def may_come_in(text: str, port: int, tunnel: str) -> bool:
    """Whether a rule may let new datagrams to this UDP port come in."""
    if not accepts_new(text):
        return False
    ports = _PORTS.findall(text)
    if ports:
        return any(
            negated or any(_holds(part, port) for part in _parts(group)) for negated, group in ports
        )
    names = list(_interfaces(text))
    if names and all(each in ("lo", tunnel) for each in names):
        return False
    protocols = _PROTOCOLS.findall(text)
    if protocols:
        return any(negated or any(map(_may_be_udp, _parts(group))) for negated, group in protocols)
    return _OTHER_TRAFFIC.search(text) is None


def accepts_new(text: str) -> bool:
    """Whether a rule accepts, and not only what belongs to known connections."""
    if "accept" not in re.split(r"[\s,;}]+", text):
        return False
    if "new" in text or "state != " in text:
        return True
    return not ("established" in text or "related" in text)


def _parts(group: str) -> list[str]:
    return [part.strip() for part in group.strip("{ }").split(",")]


def _overlaps(part: str, networks: list[Network]) -> bool:
    """Whether an address, a network or a range has to do with one of `networks`."""
    try:
        if "-" in part:
            ends = [ip_address(end) for end in part.split("-")]
            return any(end in network for end in ends for network in networks)
        wanted = ip_network(part, strict=False)
    except ValueError:
        return True  # a set, or what we do not know
    return any(wanted.version == each.version and wanted.overlaps(each) for each in networks)


def _may_be_udp(protocol: str) -> bool:
    return protocol not in _NOT_UDP


def _is_port(part: str, port: int) -> bool:
    return part[:1].isdigit() and _holds(part, port)


def _holds(part: str, port: int) -> bool:
    """Whether a port or a range holds `port`; what is neither may."""
    first, _, last = part.partition(":")[0].strip().partition("-")
    if not first.isdigit():
        return True
    return int(first) <= port <= int(last if last.isdigit() else first)
