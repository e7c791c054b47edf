"""Checks of netfilter and forwarding: verdicts seen in the trace, policies, conntrack."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_interface

from tunnel.doctor.facts import BaseChain, Facts, Firewall, endpoint_address
from tunnel.doctor.findings import Finding
from tunnel.observe.crossings import Decision
from tunnel.observe.path import Journey

CLOSED = "drop"
_FAMILIES = {4: ("ip", "inet"), 6: ("ip6", "inet")}


def check_verdicts(facts: Facts) -> Iterator[Finding]:
    """Rules that dropped our probes, the answers, or the datagrams around them."""
    told = set()
    for journey in facts.journeys:
        step = journey.steps[-1]
        drop = next((decision for decision in step.decisions if decision.is_drop), None)
        if drop is None or not _concerns(facts, journey):
            continue
        place = (step.layer, step.place, drop)
        if place in told:
            continue
        told.add(place)
        what = "the tunnel's own datagrams" if step.layer == "outer" else "packets of the tunnel"
        yield Finding(
            "firewall_drop",
            f"a firewall rule of this host drops {what} at {step.place}",
            f"{journey.packet}, {journey.flow}: {journey.death}",
            _undo(drop, step.place),
        )


def check_refused(facts: Facts) -> Iterator[Finding]:
    """The same where no trace could be made: the kernel said EPERM."""
    seen = list(check_verdicts(facts))
    if facts.grown("send_firewall") and not seen:
        yield Finding(
            "firewall_drop",
            "a firewall rule of this host drops the tunnel's own datagrams at OUTPUT or "
            "POSTROUTING",
            f"{facts.grown('send_firewall')} packets dropped as send_firewall",
            "nft list ruleset; delete the rule that drops UDP to the endpoint",
        )


def _concerns(facts: Facts, journey: Journey) -> bool:
    """Probes, and datagrams between us and endpoints: other packets may be dropped on purpose."""
    addresses = {probe.address for probe in facts.probes}
    addresses |= {endpoint_address(peer) or "" for peer in facts.peers}
    return not addresses.isdisjoint(map(_host, journey.flow.split(" → ")))


def _host(side: str) -> str:
    """The address in one side of a flow: `A`, `A:port` or `[A]:port`."""
    if side.startswith("["):
        return side[1:].partition("]")[0]
    return side if side.count(":") > 1 else side.partition(":")[0]


def _undo(drop: Decision, place: str) -> str:
    if drop.handle is None:
        family, _, table = drop.table.partition(" ")
        policy = f"nft add chain {family} {table} {drop.chain} '{{ policy accept; }}'"
        return f"{policy}   (or a rule that accepts it at {place})"
    return f"nft delete rule {drop.table} {drop.chain} handle {drop.handle}"


def wants_forwarding(facts: Facts) -> str | None:
    """Why this host shall forward between the tunnel and its other networks; None if not."""
    if facts.options.forward:
        return "--forward asks for it"
    if facts.conf is not None:
        for hook in (*facts.conf.interface.pre_up, *facts.conf.interface.post_up):
            if any(word in hook.lower() for word in ("forward", "masquerade", "snat")):
                return "the conf's hooks prepare it"
    name = f'"{facts.name}"'
    for rule in facts.firewall.rules:
        if name in rule.text and "oifname" in rule.text and "iifname" in rule.text:
            return f"a rule of table {rule.family} {rule.table} is made for it"
    return None


def check_forwarding(facts: Facts) -> Iterator[Finding]:
    """Forwarding that is wanted and off."""
    why = wants_forwarding(facts)
    if why is None or facts.after is None:
        return
    versions = {ip_interface(text).version for text in facts.after.addresses}
    for version, name in ((4, "net.ipv4.ip_forward"), (6, "net.ipv6.conf.all.forwarding")):
        if version in versions and facts.sysctls.get(name) == "0":
            yield Finding(
                "forwarding_off",
                f"this host shall forward packets of the tunnel ({why}), and IPv{version} "
                "forwarding is off",
                f"sysctl {name} is 0",
                f"sysctl -w {name}=1   (to stay: a line in /etc/sysctl.d)",
            )


def check_forward_policy(facts: Facts) -> Iterator[Finding]:
    """A closed FORWARD chain without a rule for the tunnel: docker makes one."""
    why = wants_forwarding(facts)
    if why is None or facts.after is None:
        return
    versions = {ip_interface(text).version for text in facts.after.addresses}
    families = {family for version in versions for family in _FAMILIES[version]}
    for chain in facts.firewall.chains:
        if chain.hook != "forward" or chain.policy != CLOSED or chain.family not in families:
            continue
        if _lets_through(facts.firewall, chain, facts.name):
            continue
        evidence = f"table {chain.family} {chain.table}, chain {chain.name}, policy drop"
        if (chain.family, chain.table) in facts.firewall.tables_with_docker:
            yield Finding(
                "docker_forward",
                "docker has closed FORWARD on this host: what shall pass between the tunnel and "
                f"other networks is dropped ({why})",
                f"{evidence}, and docker's chains beside it",
                f"iptables -I DOCKER-USER -i {facts.name} -j ACCEPT; "
                f"iptables -I DOCKER-USER -o {facts.name} -j ACCEPT",
            )
        else:
            yield Finding(
                "forward_closed",
                "a firewall of this host forwards nothing that it has no rule for, and it has "
                f"none for the tunnel ({why})",
                evidence,
                f"nft insert rule {chain.family} {chain.table} {chain.name} iifname "
                f'"{facts.name}" accept; the same with oifname',
            )


def _lets_through(firewall: Firewall, chain: BaseChain, name: str) -> bool:
    return any(
        f'"{name}"' in rule.text and "accept" in rule.text
        for rule in firewall.rules
        if (rule.family, rule.table) == (chain.family, chain.table)
    )


def check_conntrack(facts: Facts) -> Iterator[Finding]:
    """Keepalives that come too late for the connection tracking of this host."""
    if facts.after is None or not _depends_on_tracking(facts):
        return
    limit = facts.sysctls.get("net.netfilter.nf_conntrack_udp_timeout_stream", "")
    if not limit.isdigit():
        return
    for peer in facts.peers:
        if peer.endpoint and peer.persistent_keepalive >= int(limit):
            better = max(1, min(25, int(limit) // 2))
            yield Finding(
                "keepalive_late",
                "the firewall of this host forgets the tunnel between two keepalives: then "
                "nothing from the peer comes in",
                f"keepalive every {peer.persistent_keepalive} s, "
                f"nf_conntrack_udp_timeout_stream is {limit} s",
                f"wg set {facts.name} peer {peer.public_key} persistent-keepalive {better}; "
                f"PersistentKeepalive = {better} in the conf",
                peer.public_key,
            )


def _depends_on_tracking(facts: Facts) -> bool:
    """Whether datagrams come in only as answers: INPUT is closed, but for what is established."""
    assert facts.after is not None
    port = f"dport {facts.after.listen_port}"
    for chain in facts.firewall.chains:
        if chain.hook != "input" or chain.policy != CLOSED:
            continue
        texts = [
            rule.text
            for rule in facts.firewall.rules
            if (rule.family, rule.table) == (chain.family, chain.table)
        ]
        tracked = any("established" in text and "accept" in text for text in texts)
        if tracked and not any(port in text and "accept" in text for text in texts):
            return True
    return False
