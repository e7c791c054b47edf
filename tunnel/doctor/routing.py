"""Checks of where packets go: endpoint, allowed IPs, routes, rp_filter, forwarding."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network

from tunnel.control.messages.sentences import some
from tunnel.doctor.around import put_back, restart_command, taken_networks
from tunnel.doctor.facts import (
    WIDE,
    Facts,
    IpAddress,
    Network,
    Probe,
    RouteFacts,
    covering,
    endpoint_address,
    networks_of,
)
from tunnel.doctor.findings import Finding
from tunnel.linux.networks import is_inside

STRICT = "1"

UNREACHABLE = {
    "send_network_unreachable": "no route, or the link is down",
    "send_host_unreachable": "an unreachable route, or no such neighbour",
    "send_prohibited": "a prohibit route",
    "send_invalid": "a blackhole route",
    "send_no_address": "no address to send from: IPv6 may be disabled",
    "send_no_family": "no socket of this IP version",
}


def check_endpoint_name(facts: Facts) -> Iterator[Finding]:
    """An endpoint's name that has no address."""
    for look_up in facts.look_ups:
        if look_up.error:
            yield Finding(
                "endpoint_name",
                f"the endpoint's name {look_up.host} has no address",
                f"looking it up says: {look_up.error}",
                f"getent ahosts {shlex.quote(look_up.host)}   # fix the name server in "
                "/etc/resolv.conf, or write the address as Endpoint",
            )


def check_endpoint_moved(facts: Facts) -> Iterator[Finding]:
    """A silent peer whose endpoint is none of the addresses that its name has now."""
    names = {each.host: each.addresses for each in facts.look_ups if each.addresses}
    silent = {peer.public_key: peer for peer in facts.silent}
    for written in facts.conf.peers if facts.conf is not None else ():
        peer = silent.get(written.public_key.to_base64())
        if peer is None or written.endpoint is None:
            continue
        addresses = names.get(written.endpoint.host)
        if addresses and endpoint_address(peer) not in addresses:
            yield Finding(
                "endpoint_moved",
                f"the endpoint's name {written.endpoint.host} has another address than the one in "
                "use, where nothing answers",
                f"looking it up says {', '.join(addresses)}; tunnel show {facts.name} says "
                f"{peer.endpoint}",
                f"{restart_command(facts)}   # it follows by itself, too, within two minutes",
                peer.public_key,
            )


def check_route_to_endpoint(facts: Facts) -> Iterator[Finding]:
    """A route to an endpoint that leads into the tunnel itself, to ourselves, or nowhere."""
    for peer in facts.peers:
        address = endpoint_address(peer)
        route = facts.routes.get(address or "")
        sleeps = peer in facts.absent and peer not in facts.calling
        if address is None or route is None or sleeps:
            continue
        if route.device == facts.name:
            marks = [each for each in facts.differences or () if each.subject == "fwmark"]
            yield Finding(
                "endpoint_in_tunnel",
                "the route to the peer's endpoint leads into the tunnel itself: its datagrams "
                "would have to carry themselves",
                f"ip route get {address} says dev {facts.name}"
                + "".join(f"; tunnel diff says {each}" for each in marks),
                f"tunnel reload {facts.name}"
                if marks
                else f"ip route add {address} via GATEWAY dev DEVICE; or take {address} out of "
                "AllowedIPs",
                peer.public_key,
            )
        elif route.local and not ip_address(address).is_loopback:
            yield Finding(
                "endpoint_is_self",
                "the peer's endpoint is an address of this host",
                f"ip route get {address} says local",
                f"wg set {facts.name} peer {peer.public_key} endpoint ADDRESS:PORT, and the same "
                "in the conf",
                peer.public_key,
            )
        elif route.error:
            yield _unreachable(facts, peer.public_key, address, route.error)


def check_sending(facts: Facts) -> Iterator[Finding]:
    """Datagrams that the kernel refused for lack of a route."""
    routed = [facts.routes.get(endpoint_address(peer) or "") for peer in facts.peers]
    if any(route is not None and route.error for route in routed):
        return  # reported with the route
    silent = facts.silent or facts.calling
    if not silent:
        return  # it is for peers that sleep
    for reason, meaning in UNREACHABLE.items():
        if facts.grown(reason):
            peer = silent[0].public_key if len(silent) == 1 else None
            address = endpoint_address(silent[0]) if len(silent) == 1 else None
            evidence = f"{facts.grown(reason)} packets dropped as {reason}: {meaning}"
            yield _unreachable(facts, peer, address or "ENDPOINT", evidence)


def _unreachable(facts: Facts, peer: str | None, address: str, evidence: str) -> Finding:
    return Finding(
        "endpoint_unreachable",
        "this host has no route to the peer's endpoint",
        evidence,
        f"ip route get {address}; ip link; then ip route add {address} via GATEWAY",
        peer,
    )


def check_dead_ends(facts: Facts) -> Iterator[Finding]:
    """Routes of this host that drop a part of what AllowedIPs would lead into the tunnel."""
    allowed = [network for peer in facts.peers for network in networks_of(peer)]
    found = [
        text
        for text in facts.dead_ends
        if any(is_inside(ip_network(text.split()[1]), network) for network in allowed)
    ]
    if found:
        yield Finding(
            "route_drops",
            "routes of this host drop packets that AllowedIPs would lead into the tunnel; they may "
            "be meant",
            f"ip route show table main: {some(found)}",
            f"ip -{ip_network(found[0].split()[1]).version} route del {found[0]}   # unless it is "
            "meant",
        )


def check_address(facts: Facts) -> Iterator[Finding]:
    """The address asked for: in no AllowedIPs, or our own, or routed elsewhere."""
    address = facts.options.address
    if address is None or facts.after is None:
        return
    route = facts.routes.get(address)
    if route is not None and route.local:
        yield Finding(
            "address_is_own",
            f"{address} is an address of this host",
            f"ip route get {address} says local",
            "ask for an address of the other side",
        )
        return
    found = covering(facts.peers, address)
    if found is None and facts.behind is None:
        yield Finding(
            "address_missed",
            f"no peer's AllowedIPs cover {address}: the tunnel drops packets to it",
            "AllowedIPs are "
            + (", ".join(text for peer in facts.peers for text in peer.allowed_ips) or "empty"),
            f"add {address} to AllowedIPs of its peer, then tunnel reload {facts.name}",
        )


def check_connected(facts: Facts) -> Iterator[Finding]:
    """The kernel's own routes to the networks of our addresses, that another program deleted."""
    for network, address in _disconnected(facts).items():
        particulars = f"scope link src {address}" if network.version == 4 else "metric 256"
        yield Finding(
            "connected_route_missing",
            f"the kernel's own route to {network}, the network of the address {address}, was "
            "deleted: packets to it do not enter the tunnel",
            f"ip route show dev {facts.name} does not list {network}",
            put_back(
                facts, f"ip route append {network} dev {facts.name} proto kernel {particulars}"
            ),
        )


def _disconnected(facts: Facts) -> dict[Network, IpAddress]:
    """Networks that lack their route, and our address in each."""
    link, status = facts.links.get(facts.name), facts.after
    if facts.networks is None or link is None or status is None or not status.here:
        return {}
    # Who chose the table, gave the interface to a VRF, or sees to routes in hooks means it so.
    conf = facts.conf.interface if facts.conf is not None else None
    chosen = conf is not None and (conf.table != "auto" or conf.hooks_change_routes)
    if not link.up or link.master or chosen:
        return {}
    found: dict[Network, IpAddress] = {}
    for text in status.addresses:
        address = ip_interface(text)
        due = text in link.networks and text not in link.unrouted
        if due and address.network.num_addresses > 1 and str(address.network) not in facts.networks:
            found.setdefault(address.network, address.ip)
    return found


def check_routes_of_allowed_ips(facts: Facts) -> Iterator[Finding]:
    """Allowed IPs for which the kernel does not choose the tunnel."""
    table = facts.conf.interface.table if facts.conf is not None else None
    in_table = f" table {table}" if isinstance(table, int) else ""
    reported = [*_disconnected(facts), *taken_networks(facts)]
    for probe in facts.probes:
        route = _away(facts, probe)
        if route is None or (probe.guessed and _is_meant(facts, probe)):
            continue
        if any(ip_address(probe.address) in network for network in reported):
            continue
        leaves = f"dev {route.device}" if route.device else route.error
        yield Finding(
            "route_misses_tunnel",
            f"{probe.address} is among AllowedIPs, but its packets do not enter the tunnel",
            f"ip route get {probe.address} says {leaves}",
            f"ip route replace {probe.address} dev {facts.name}{in_table}",
            probe.peer,
        )


def _is_meant(facts: Facts, probe: Probe) -> bool:
    """Whether the routes of another program, for some packets only, may be intended."""
    if facts.links[facts.name].master:
        return True
    if facts.conf is None:
        return probe.answered
    return facts.conf.interface.table != "auto"


def _away(facts: Facts, probe: Probe) -> RouteFacts | None:
    """Where packets to the address of a probe go instead of into the tunnel; None if they do.

    Those from our own address in it count: by them rules may choose another table.
    """
    route, own = facts.routes.get(probe.address), facts.own_routes.get(probe.address)
    link = facts.links.get(facts.name)
    if link is None or not link.up:
        return None  # routes go and come with the link
    if probe.peer is None or route is None or route.local:
        return None
    if ip_address(probe.address).is_link_local:
        return None  # a sender has to name the interface
    found = covering(facts.peers, probe.address)
    if probe.guessed and found is not None and found[1].prefixlen <= WIDE:
        return None  # as the LAN, which keeps its routes; what leaves a default route is a leak
    if facts.name in (route.device, own.device if own is not None else ""):
        return None
    return route


def check_swallowed_networks(facts: Facts) -> Iterator[Finding]:
    """Allowed IPs, or networks of our addresses, that collide with this host's own networks."""
    then = "tunnel up" if facts.after is None else f"tunnel reload {facts.name}"
    for peer, network, link, text in swallowed_networks(facts):
        here = ip_interface(text).network
        subject = f"Address {network} overlaps" if peer is None else f"AllowedIPs {network} overlap"
        yield Finding(
            "allowed_ips_swallow",
            f"{subject} the network {here}, which this host is on by {link}",
            f"ip address show {link} lists {text}",
            f"take {network} out of AllowedIPs, or narrow it; then {then}"
            if peer is not None
            else f"renumber one of the two: hosts of {here} cannot be told from those behind the "
            "tunnel",
            peer,
        )


def swallowed_networks(facts: Facts) -> Iterator[tuple[str | None, Network, str, str]]:
    """Each with its peer (None: of an address of ours), and the link and address it collides with.

    Of a tunnel that is not up, those of the conf.
    """
    if facts.conf is not None and facts.conf.interface.table != "auto":
        return  # no route of ours is among those of the host
    moved = facts.after is not None and not facts.after.here
    if moved or (facts.conf is not None and facts.conf.interface.options.netns_path):
        return  # nor is the interface
    own = (facts.name, facts.after.device if facts.after is not None else "")
    for peer, network in _networks(facts):
        for link in facts.links.values():
            for text in link.networks if link.name not in own else ():
                here = ip_interface(text).network
                if here.version != network.version or here.prefixlen == here.max_prefixlen:
                    continue
                if here.is_link_local or here.is_loopback:
                    continue
                # A shorter prefix loses against the connected network's own route.
                if here.prefixlen <= network.prefixlen and here.overlaps(network):
                    yield peer, network, link.name, text


def _networks(facts: Facts) -> Iterator[tuple[str | None, Network]]:
    conf = facts.conf
    if facts.after is None and not facts.is_down:
        return
    if conf is None or not conf.interface.hooks_change_routes:
        for address in _own_addresses(facts):
            if address.network.num_addresses > 1:
                yield None, address.network
    if facts.after is not None:
        for peer in facts.peers:
            yield from ((peer.public_key, network) for network in networks_of(peer))
    elif conf is not None:
        for written in conf.peers:
            yield from ((written.public_key.to_base64(), each) for each in written.networks)


def _own_addresses(facts: Facts) -> list[IPv4Interface | IPv6Interface]:
    if facts.after is not None:
        return [ip_interface(text) for text in facts.after.addresses]
    return list(facts.conf.interface.addresses) if facts.conf is not None else []


def check_source_not_allowed(facts: Facts) -> Iterator[Finding]:
    """Answers that came and were dropped, their source being another peer's or no peer's."""
    grown = facts.grown("source_not_allowed")
    # Kernels send by themselves from link-local addresses, which no AllowedIPs have.
    if grown and any(probe.sent and not probe.answered for probe in facts.probes):
        yield Finding(
            "source_not_allowed",
            "packets come through the tunnel from addresses that are not in their peer's "
            "AllowedIPs, and are dropped",
            f"{grown} packets dropped as source_not_allowed while the doctor looked",
            "on the peer, tunnel capture NAME shows what it sends; add the source to its AllowedIPs"
            if facts.is_tap
            else f"tunnel trace {facts.name} shows their source; add it to AllowedIPs of the peer",
        )


def check_rp_filter(facts: Facts) -> Iterator[Finding]:
    """Strict rp_filter, where answers come in by another interface than packets go out."""
    for device, address, away in _suspects(facts):
        if ip_address(address).version == 4 and _is_strict(facts, device):
            counted = f"; it dropped {facts.spoofed} packets just now" if facts.spoofed else ""
            yield Finding(
                "rp_filter",
                f"strict rp_filter on {device} drops what comes from {address}",
                f"rp_filter is 1 and ip route get {address} says {away}{counted}",
                _loosen(device),
            )
            return
    silent = any(probe.sent and not probe.answered for probe in facts.probes)
    strict = [link for link in facts.links if _is_strict(facts, link)]
    if facts.spoofed and silent and strict:
        seen = _came_in_by(facts) & set(strict) or set(strict)
        yield Finding(
            "rp_filter",
            "strict rp_filter drops packets: they come in by another interface than the one that "
            "leads back to their source",
            f"IPReversePathFilter grew by {facts.spoofed} just now; strict are {', '.join(strict)}",
            _loosen(seen.pop())
            if len(seen) == 1
            else f"tunnel trace {facts.name}   # shows where they come in; loosen that one alone: "
            + _loosen("INTERFACE"),
        )


def _suspects(facts: Facts) -> Iterator[tuple[str, str, str]]:
    """An interface, an address from which nothing came in there, and where the way back leads."""
    for probe in facts.probes:
        # The kernel looks for the way back to the source from the address that it came to.
        route = _away(facts, probe)
        if route is not None and route.device and not probe.answered:
            yield facts.name, probe.address, route.device
    for peer in facts.peers:
        address = endpoint_address(peer) or ""
        marked, plain = facts.routes.get(address), facts.unmarked.get(address)
        if marked is None or plain is None or not marked.device or plain.device == marked.device:
            continue
        valid = facts.sysctls.get("net.ipv4.conf.all.src_valid_mark") == "1"
        if not valid and not facts.is_alive(peer):
            yield marked.device, address, plain.device or "nowhere"


def _came_in_by(facts: Facts) -> set[str]:
    """Interfaces where packets of the trace came in and were never seen again."""
    last = (journey.steps[-1] for journey in facts.journeys if journey.outcome == "lost")
    return {step.what.rpartition(" ")[2] for step in last if step.place == "PREROUTING"}


def _loosen(device: str) -> str:
    # As sysctl(8) writes them, a dot within a name is a slash.
    return f"sysctl -w net.ipv4.conf.{device.replace('.', '/')}.rp_filter=2"


def _is_strict(facts: Facts, device: str) -> bool:
    """The kernel takes the larger of the two values: 2 is loose and wins."""
    values = [facts.sysctls.get(f"net.ipv4.conf.{name}.rp_filter", "0") for name in ("all", device)]
    return max(values) == STRICT
