"""From facts to a report: all checks in order, symptoms only where no cause was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tunnel.doctor import around, before_up, conf, firewall, forwarding, keys, liveness, routing
from tunnel.doctor.facts import Facts
from tunnel.doctor.findings import Finding, Report

Check = Callable[[Facts], Iterator[Finding]]

CAUSES: tuple[Check, ...] = (
    conf.check_privileges,
    conf.check_clock,
    conf.check_conf,
    conf.check_conf_gone,
    conf.check_private_key_as_peer,
    conf.check_allowed_ips_twice,
    conf.check_private_key,
    before_up.check_obstacles,
    conf.check_running,
    conf.check_interface,
    around.check_taken_away,
    around.check_leaks,
    around.check_holder,
    keys.check_own_key,
    keys.check_wrong_key_of_us,
    keys.check_unknown_peer,
    keys.check_preshared_key,
    keys.check_peer_clock,
    keys.check_low_order,
    routing.check_endpoint_name,
    routing.check_endpoint_moved,
    routing.check_route_to_endpoint,
    routing.check_sending,
    routing.check_address,
    routing.check_connected,
    routing.check_routes_of_allowed_ips,
    routing.check_swallowed_networks,
    routing.check_source_not_allowed,
    routing.check_rp_filter,
    firewall.check_verdicts,
    firewall.check_refused,
    firewall.check_shut,
    firewall.check_ingress,
    forwarding.check_forwarding,
    forwarding.check_forward_policy,
    forwarding.check_way_back,
    firewall.check_conntrack,
    firewall.check_conntrack_full,
    liveness.check_mode,
    liveness.check_quota,
    liveness.check_mtu,
    liveness.check_black_hole,
)
"""Causes."""

SYMPTOMS: tuple[Check, ...] = (liveness.check_silent_peers, liveness.check_silent_address)
"""Reported only where no cause explains them."""

NOTES: tuple[Check, ...] = (
    conf.check_elsewhere,
    conf.check_differs,
    conf.check_conf_doubts,
    keys.check_strangers,
    keys.check_under_load,
    liveness.check_absent,
    liveness.check_no_ping,
    routing.check_dead_ends,
    liveness.check_dropped_earlier,
    liveness.check_batches,
)
"""No faults: they may be intended."""

NOT_INSIDE = frozenset(
    {
        conf.check_clock,
        conf.check_conf,
        conf.check_conf_gone,
        conf.check_private_key_as_peer,
        conf.check_allowed_ips_twice,
        conf.check_private_key,
        routing.check_endpoint_name,
        routing.check_endpoint_moved,
        forwarding.check_forwarding,
        forwarding.check_forward_policy,
        forwarding.check_way_back,
        firewall.check_conntrack,
        firewall.check_conntrack_full,
        *NOTES,
    }
) - {liveness.check_no_ping}
"""Checks of the conf, and of where the daemon is, which another doctor makes there."""

NOT_OF_FRAMES = frozenset(
    {
        around.check_leaks,
        routing.check_address,
        routing.check_connected,
        routing.check_routes_of_allowed_ips,
        routing.check_swallowed_networks,
        routing.check_dead_ends,
    }
)
"""Checks of routes to AllowedIPs, of which there are none with Mode = tap."""

EXPLAINS_NOTHING = frozenset(
    {
        "privileges",
        "daemon_privileges",
        "holder_ended",
        "conf_gone",
        "allowed_ips_swallow",
        "forwarding_off",
        "forward_closed",
        "docker_forward",
        "no_way_back",
        "address_silent",
        "keepalive_late",
        "mtu_too_large",
        "mtu_black_hole",
    }
)
"""Faults beside which silence has a cause of its own."""


def diagnose(facts: Facts) -> Report:
    """Judge. Pure: the same facts give the same report."""
    apart = NOT_INSIDE if facts.options.inside else frozenset[Check]()
    apart |= NOT_OF_FRAMES if facts.is_tap else frozenset[Check]()
    findings = [finding for check in CAUSES if check not in apart for finding in check(facts)]
    causes = [finding for finding in findings if finding.code not in EXPLAINS_NOTHING]
    explained = {finding.peer for finding in causes}
    if None not in explained:
        symptoms = [finding for check in SYMPTOMS for finding in check(facts)]
        findings += [symptom for symptom in symptoms if symptom.peer not in explained]
    # The sort keeps the order of the checks: what explains silence comes first, or what stands in
    # the way of a tunnel that is not up.
    last = EXPLAINS_NOTHING - {"privileges"} if facts.after is not None else {"not_running"}
    findings.sort(key=lambda finding: finding.code in last)
    notes = [finding for check in NOTES if check not in apart for finding in check(facts)]
    in_use = {}
    if facts.after is not None:
        in_use = {"datapath": facts.after.datapath, **facts.after.offloads}
        if facts.after.rights.capabilities:
            in_use["rights"] = facts.after.rights.words()
    names = {peer.public_key: peer.name for peer in facts.peers}
    if facts.conf is not None:
        names |= {peer.public_key.to_base64(): peer.friendly_name for peer in facts.conf.peers}
    findings, notes = (
        [replace(finding, name=names.get(finding.peer or "", "")) for finding in each]
        for each in (findings, notes)
    )
    return Report(facts.name, tuple(findings), tuple(notes), in_use, facts.skipped)
