"""Checks of netfilter on the tunnel's own way: verdicts seen in the trace, and conntrack."""

from __future__ import annotations

from collections.abc import Iterator

from tunnel.control.messages.status import PeerStatus
from tunnel.doctor import rules
from tunnel.doctor.facts import Facts, FirewallChain, endpoint_address
from tunnel.doctor.findings import STAYS_SYSCTL, Finding
from tunnel.trace.journey import Journey, Step

INCOMING = ("PREROUTING", "INPUT")

WORDS = ("count", "max")
STAYS = "   # and the same in the firewall's own configuration, to stay"


def check_verdicts(facts: Facts) -> Iterator[Finding]:
    """Rules that dropped our probes, the answers, or the datagrams around them."""
    reported = set()
    for journey in facts.journeys:
        step = journey.steps[-1]
        drop = next((decision for decision in step.decisions if decision.is_drop), None)
        if drop is None or not _concerns(facts, journey):
            continue
        place = (step.layer, step.place, drop)
        if place in reported:
            continue
        reported.add(place)
        what = "the tunnel's own datagrams" if step.layer == "outer" else "packets of the tunnel"
        yield Finding(
            "firewall_drop",
            f"a firewall rule of this host drops {what} at {step.place}",
            f"{journey.packet}, {journey.flow}: {journey.death}",
            rules.insert(drop.table, drop.chain, _match(facts, journey, step)) + STAYS,
        )


def check_shut(facts: Facts) -> Iterator[Finding]:
    """The same for peers that have to initiate, and may do so at any other time."""
    absent = [peer for peer in facts.absent if _must_come(facts, peer)]
    if not absent or facts.after is None or list(check_verdicts(facts)):
        return
    port = facts.after.listen_port
    shut = {version: _shut_chains(facts, version, port) for version in ("ip", "ip6")}
    cut = [peer for peer in absent if all(shut[version] for version in _versions(peer))]
    reported: dict[FirewallChain, str] = {}
    for version in dict.fromkeys(version for peer in cut for version in _versions(peer)):
        reported |= shut[version]
    for chain, evidence in reported.items():
        yield Finding(
            "firewall_drop",
            f"the firewall of this host drops datagrams to the tunnel's port {port} at "
            f"{chain.hook.upper()}: peers without Endpoint cannot connect",
            evidence,
            rules.insert(f"{chain.family} {chain.table}", chain.name, f"udp dport {port}") + STAYS,
            cut[0].public_key if len(cut) == 1 else None,
        )


def _shut_chains(facts: Facts, version: str, port: int) -> dict[FirewallChain, str]:
    """The chains that surely drop what comes in by this IP version, and what in them does."""
    found = {}
    for chain in facts.firewall.chains:
        if chain.hook in ("prerouting", "input") and chain.family in ("inet", version):
            evidence = rules.what_shuts(facts.firewall, chain, version, port, facts.name)
            if evidence is not None:
                found[chain] = evidence
    return found


def check_ingress(facts: Facts) -> Iterator[Finding]:
    """The same at ingress, which no trace sees: it comes before the hook where a trace begins."""
    if facts.after is None:
        return
    port = facts.after.listen_port
    reported = set()
    for peer in (*facts.silent, *(peer for peer in facts.absent if _must_come(facts, peer))):
        ways = _ways_in(facts, peer)
        for chain in facts.firewall.chains:
            if chain.hook != "ingress" or not ways.issubset(chain.devices) or chain in reported:
                continue
            found = [
                rules.what_shuts(facts.firewall, chain, version, port, facts.name)
                for version in _versions(peer)
            ]
            evidence = found[0]
            if evidence is not None and all(found):
                reported.add(chain)
                yield Finding(
                    "firewall_drop",
                    f"the firewall of this host drops datagrams to the tunnel's port {port} at "
                    f"INGRESS of {', '.join(sorted(ways))}",
                    evidence,
                    rules.insert(f"{chain.family} {chain.table}", chain.name, f"udp dport {port}")
                    + STAYS,
                    peer.public_key,
                )


def _ways_in(facts: Facts, peer: PeerStatus) -> set[str]:
    """The devices by which datagrams of the peer may come in."""
    address = endpoint_address(peer)
    if address is not None:
        return {facts.routes[address].device} if address in facts.routes else {""}
    others = (link for link in facts.links.values() if link.up and link.networks)
    return {link.name for link in others} - {"lo", facts.name} or {""}


def _must_come(facts: Facts, peer: PeerStatus) -> bool:
    """Whether only the peer can initiate: its address is unknown, or only its packets showed it."""
    written = facts.conf.peers if facts.conf is not None else ()
    return not peer.endpoint or any(
        each.public_key.to_base64() == peer.public_key and each.endpoint is None for each in written
    )


def _versions(peer: PeerStatus) -> tuple[str, ...]:
    """IP versions by which the peer comes, as nft's families; both may be if it is not known."""
    address = endpoint_address(peer)
    if address is None:
        return "ip", "ip6"
    return ("ip6",) if ":" in address else ("ip",)


def check_refused(facts: Facts) -> Iterator[Finding]:
    """The same where no trace could be made: the kernel said EPERM."""
    silent = facts.silent or facts.calling
    if not silent or not facts.grown("send_firewall") or list(check_verdicts(facts)):
        return
    port = facts.after.listen_port if facts.after is not None else 0
    yield Finding(
        "firewall_drop",
        "a firewall rule of this host drops the tunnel's own datagrams at OUTPUT or POSTROUTING",
        f"{facts.grown('send_firewall')} packets dropped as send_firewall",
        "nft list ruleset   # find the chain, then: "
        + rules.insert("FAMILY TABLE", "CHAIN", f"udp sport {port}"),
    )


def _concerns(facts: Facts, journey: Journey) -> bool:
    """Whether a drop is a fault. Other packets may be dropped on purpose."""
    sides = journey.flow.split(" → ")
    if f", id {facts.probe_id}, " in journey.packet:
        asked = {p.address for p in facts.probes if not (p.answered and p.passed >= p.tried)}
        return not asked.isdisjoint(map(_host, sides))
    # Handshakes, and datagrams that were not read: those of peers that should be there, and
    # those by which others initiate.
    incoming = journey.steps[-1].place in INCOMING
    peers = facts.silent + (facts.absent if incoming else facts.calling)
    ends = {_without_scope(peer.endpoint) for peer in peers if peer.endpoint}
    return not journey.counts and not ends.isdisjoint(sides)


def _host(side: str) -> str:
    """The address in one side of a flow: `A`, `A:port` or `[A]:port`."""
    if side.startswith("["):
        return side[1:].partition("]")[0]
    return side if side.count(":") > 1 else side.partition(":")[0]


def _without_scope(endpoint: str) -> str:
    """`[fe80::1%eth0]:5` as a flow has it."""
    head, percent, rest = endpoint.partition("%")
    return head + "]" + rest.partition("]")[2] if percent else endpoint


def _match(facts: Facts, journey: Journey, step: Step) -> str:
    """What matches the flow that was dropped, and as little else as possible."""
    comes = step.place in INCOMING
    if step.layer == "outer":
        port = facts.after.listen_port if facts.after is not None else 0
        return f"udp {'dport' if comes else 'sport'} {port}"
    if step.place == "INPUT":
        # Only answers to our packets: whether others may connect to this host is not our decision.
        return f'iifname "{facts.name}" ct state established,related'
    comes = comes or (step.place == "FORWARD" and journey.direction != "out")
    return f'{"iifname" if comes else "oifname"} "{facts.name}"'


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
                "connection tracking on this host forgets the tunnel between two keepalives: then "
                "the firewall drops what the peer sends",
                f"keepalive every {peer.persistent_keepalive} s, "
                f"nf_conntrack_udp_timeout_stream is {limit} s",
                f"wg set {facts.name} peer {peer.public_key} persistent-keepalive {better}   # and "
                f"PersistentKeepalive = {better} in the conf",
                peer.public_key,
            )


def check_conntrack_full(facts: Facts) -> Iterator[Finding]:
    """A full connection tracking table: new flows are dropped, and no rule says so."""
    count, limit = (facts.sysctls.get(f"net.netfilter.nf_conntrack_{w}", "") for w in WORDS)
    if count.isdigit() and limit.isdigit() and int(count) >= int(limit) > 0:
        yield Finding(
            "conntrack_full",
            "the connection tracking table is full: this host drops packets of new flows, the "
            "tunnel's too",
            f"nf_conntrack_count is {count}, nf_conntrack_max is {limit}",
            f"sysctl -w net.netfilter.nf_conntrack_max={2 * int(limit)}{STAYS_SYSCTL}",
        )


def _depends_on_tracking(facts: Facts) -> bool:
    """Whether datagrams come in only as answers: INPUT is closed, but for what is established."""
    assert facts.after is not None
    port = facts.after.listen_port
    for chain in facts.firewall.chains:
        if chain.hook != "input" or chain.policy != rules.CLOSED:
            continue
        texts = list(rules.reachable(facts.firewall, chain))
        tracked = any("established" in text and "accept" in text for text in texts)
        if tracked and not any(rules.may_come_in(text, port, facts.name) for text in texts):
            return True
    return False
