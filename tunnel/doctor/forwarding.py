"""Checks of forwarding: is it wanted, is it on, does a firewall drop forwarded packets?"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface

from tunnel.doctor import hooks, rules
from tunnel.doctor.facts import Facts, FirewallChain, FirewallRule, Network, networks_of
from tunnel.doctor.findings import STAYS_SYSCTL, Finding
from tunnel.doctor.firewall import STAYS
from tunnel.doctor.rules import CLOSED
from tunnel.host.docker import DOCKER_USER
from tunnel.host.forwarding import FORWARDING


@dataclass(frozen=True)
class _Wish:
    """Why this host should forward, and what; of several versions one may be enough."""

    why: str
    versions: frozenset[int]
    one_is_enough: bool = False


def _wishes(facts: Facts) -> Iterator[_Wish]:
    if facts.after is None:
        return
    own: frozenset[int] = frozenset(ip_interface(text).version for text in facts.after.addresses)
    if facts.options.forward:
        asked = facts.options.address
        versions = own if asked is None else own & {ip_address(asked).version}
        yield _Wish("--forward asks for it", versions)
    if facts.conf is not None:
        if facts.conf.interface.options.forwards:
            yield _Wish("the conf's [Tunnel] asks for it", own)
        for hook in (*facts.conf.interface.pre_up, *facts.conf.interface.post_up):
            for versions in hooks.forwards(hook):
                yield _Wish("the conf's hooks prepare it", versions & own, len(versions) > 1)
    for rule in facts.firewall.rules:
        if _is_made_for(rule, facts.name):
            versions = hooks.versions_of(rule.family, rule.text)
            why = f"a rule of table {rule.family} {rule.table} is made for it"
            yield _Wish(why, versions & own, len(versions) > 1)


def _is_made_for(rule: FirewallRule, name: str) -> bool:
    """Whether a rule lets packets pass between the tunnel and another interface."""
    between = "iifname" in rule.text and "oifname" in rule.text
    if not between or not rules.names_interface(rule.text, name):
        return False
    return rules.accepts_new(rule.text) or hooks.translates(rule.text.split())


def check_forwarding(facts: Facts) -> Iterator[Finding]:
    """Forwarding that is wanted and off."""
    reported: set[int] = set()
    for wish in _wishes(facts):
        off = {
            version for version in wish.versions if facts.sysctls.get(FORWARDING[version]) == "0"
        }
        if wish.one_is_enough and off != wish.versions:
            continue
        if facts.conf is not None and facts.conf.interface.options.forwards:
            continue  # then it is a part of the tunnel that was taken away
        for version in sorted(off - reported):
            reported.add(version)
            yield Finding(
                "forwarding_off",
                f"this host should forward packets of the tunnel ({wish.why}), and IPv{version} "
                "forwarding is off",
                f"sysctl {FORWARDING[version]} is 0",
                f"sysctl -w {FORWARDING[version]}=1{STAYS_SYSCTL}",
            )


def check_way_back(facts: Facts) -> Iterator[Finding]:
    """Hosts behind this one that cannot answer the tunnel: no route, and no masquerade."""
    behind, status = facts.behind, facts.after
    if behind is None or status is None or behind.answered_tunnel:
        return
    if not behind.answered:
        yield Finding(
            "address_silent",
            f"{behind.address} does not answer this host itself",
            f"echo requests out of {behind.device} have no reply",
            f"ping {behind.address}; on it: is it up, and does its firewall let pings in?",
        )
        return
    if any(_masquerades(rule, facts.name) for rule in facts.firewall.rules):
        return  # for what is forwarded alone: our own packets say nothing of it
    network = next(
        ip_interface(text).network
        for text in status.addresses
        if str(ip_interface(text).ip) == behind.source
    )
    family = "ip" if network.version == 4 else "ip6"
    rule = f'{family} saddr {network} oifname != "{facts.name}" masquerade'
    chain = f"type nat hook postrouting priority srcnat; {rule};"
    yield Finding(
        "no_way_back",
        f"{behind.address} has no route back into the tunnel: it answers this host, but "
        "not what comes from the tunnel",
        f"echo requests out of {behind.device} are answered, from {behind.source} they are not, "
        "and no rule masquerades what comes from the tunnel",
        f"nft add table {family} masquerade-{facts.name} "
        + shlex.quote(f"{{ chain postrouting {{ {chain} }}; }}")
        + f"   # or on {behind.address}, or its router: a route to {network} by this host",
    )


def _masquerades(rule: FirewallRule, name: str) -> bool:
    return hooks.translates(rule.text.split()) and rules.names_interface(rule.text, name)


def check_forward_policy(facts: Facts) -> Iterator[Finding]:
    """A FORWARD chain with policy drop and no rule for the tunnel, as docker makes one."""
    wanted: dict[int, str] = {}
    for wish in _wishes(facts):
        for version in wish.versions:
            # Of several versions of which one is enough, those that are on are meant.
            if not wish.one_is_enough or facts.sysctls.get(FORWARDING[version]) != "0":
                wanted.setdefault(version, wish.why)
    networks = _networks(facts)
    for chain in facts.firewall.chains:
        if chain.hook != "forward" or chain.policy != CLOSED:
            continue
        versions = wanted.keys() & hooks.versions_of(chain.family, "")
        texts = list(rules.reachable(facts.firewall, chain))
        if not versions or any(rules.may_forward(text, facts.name, networks) for text in texts):
            continue
        yield _closed(facts, chain, texts, wanted[min(versions)])


def _networks(facts: Facts) -> list[Network]:
    """What is behind the tunnel, and the tunnel itself; without default routes."""
    own = facts.after.addresses if facts.after is not None else ()
    found: list[Network] = [ip_interface(text).network for text in own]
    found += [network for peer in facts.peers for network in networks_of(peer)]
    return [network for network in found if network.prefixlen]


def _closed(facts: Facts, chain: FirewallChain, texts: list[str], why: str) -> Finding:
    table = f"{chain.family} {chain.table}"
    evidence = f"table {table}, chain {chain.name}, policy drop, no rule for {facts.name}"
    docker = any(" ".join(place) == table for (*place, _) in facts.firewall.docker)
    # Docker rewrites its other chains whenever it starts.
    has_users = any(f"jump {DOCKER_USER}" in text for text in texts)
    where = DOCKER_USER if has_users else chain.name
    sides = (f'{side} "{facts.name}"' for side in ("iifname", "oifname"))
    remedy = "; ".join(rules.insert(table, where, side) for side in sides) + STAYS
    if docker:
        return Finding(
            "docker_forward",
            "docker has set the policy of FORWARD to drop on this host: what goes between the "
            f"tunnel and other networks is dropped ({why})",
            f"{evidence}, and docker's chains beside it",
            remedy,
        )
    return Finding(
        "forward_closed",
        "a firewall of this host drops forwarded packets by default, and has no rule for the "
        f"tunnel ({why})",
        evidence,
        remedy,
    )
