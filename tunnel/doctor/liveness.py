"""Checks of what comes back: silent peers, silent addresses, the size that passes, batches."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_interface

from tunnel.control.messages.sentences import some
from tunnel.control.messages.status import SHORT_TAIL, telling
from tunnel.doctor.facts import Facts, endpoint_address
from tunnel.doctor.findings import Finding
from tunnel.linux.kernel import IPV6_MIN_MTU
from tunnel.trace.narrate import DROPS

SEALED = 32
"""Bytes that WireGuard adds around a packet: header 16, tag 16."""
UDP = 8
HEADER = {4: 20, 6: 40}

MANY = 5
"""Absent peers from which on they share one note."""


def check_silent_peers(facts: Facts) -> Iterator[Finding]:
    """A symptom: datagrams left, and nothing came."""
    for peer in facts.silent:
        assert peer.endpoint is not None
        address = endpoint_address(peer) or ""
        refusal = facts.refusals.get(f"{address} {peer.endpoint.rpartition(':')[2]}")
        if refusal:
            yield Finding(
                "endpoint_refuses",
                f"datagrams to the peer's endpoint are rejected: {refusal}",
                f"an ICMP error came back for datagrams to {peer.endpoint}",
                "on the peer: tunnel up NAME; compare ListenPort there with Endpoint here",
                peer.public_key,
            )
            continue
        sent = facts.sent(peer)
        never = "" if peer.rx_bytes else " (nor ever before)"
        came = (
            "only handshake initiations of its own"
            if facts.received(peer)
            else f"nothing received{never}"
        )
        yield Finding(
            "nothing_comes",
            "datagrams are sent to the peer, but nothing comes back: UDP is blocked on the way, "
            "the peer is down, or one side has a wrong key for the other",
            f"{sent} bytes sent to {peer.endpoint} in {facts.options.wait:g} s at most, {came}",
            f"on the peer: tunnel doctor; between the two: let UDP to {peer.endpoint} pass",
            peer.public_key,
        )


def check_absent(facts: Facts) -> Iterator[Finding]:
    """A note: peers that must initiate, and have not, or not lately."""
    absent = facts.absent
    remedy = "on the peer: tunnel doctor; or give it an Endpoint here"
    # Without a conf it is not known what it says.
    has_none = "has no Endpoint in the conf" if facts.conf else "is in no conf that was found"
    if len(absent) > MANY:
        yield Finding(
            "peer_not_heard",
            f"each of {len(absent)} peers {has_none}, and has sent nothing lately: they may "
            "sleep, or be away",
            "no recent handshake with " + some([peer.name or peer.public_key for peer in absent]),
            remedy,
        )
        return
    for peer in absent:
        ago = facts.now - peer.latest_handshake
        yield Finding(
            "peer_not_heard",
            f"the peer {has_none}, and has sent nothing lately: it may sleep, or be away"
            if peer.latest_handshake
            else "the peer has no Endpoint here and has not connected yet",
            f"its latest handshake was {ago:.0f} s ago"
            if peer.latest_handshake
            else "it has no handshake",
            remedy,
            peer.public_key,
        )


def check_silent_address(facts: Facts) -> Iterator[Finding]:
    """A symptom: the peer is up, an address behind it does not answer."""
    alive = {peer.public_key for peer in facts.peers if facts.is_alive(peer)}
    for probe in facts.probes:
        if probe.guessed or probe.answered or probe.peer not in alive:
            continue
        yield Finding(
            "address_silent",
            f"the peer is up, but {probe.address} does not answer through it",
            probe.error or "echo requests went through the tunnel, no reply came",
            f"on the peer: tunnel doctor --forward --address {probe.address}, and "
            f"tunnel trace NAME host {probe.address}",
            probe.peer,
        )


def check_quota(facts: Facts) -> Iterator[Finding]:
    """Packets are dropped as a peer has used up its quota."""
    for peer in facts.peers:
        dropped = facts.over_quota(peer)
        if dropped:
            yield Finding(
                "quota_reached",
                "the peer has used up its Quota: what does not fit into it is dropped",
                f"drops over_quota grew by {dropped} while the doctor looked",
                f"a higher Quota of the peer in the conf, then: tunnel reload {facts.name}",
                peer.public_key,
            )


def check_no_ping(facts: Facts) -> Iterator[Finding]:
    """A note: the peer is there, and none of the addresses guessed answers."""
    for peer in facts.peers:
        probes = [each for each in facts.probes if each.peer == peer.public_key and each.sent]
        if not probes or not facts.is_alive(peer) or any(each.answered for each in probes):
            continue
        if facts.over_quota(peer):
            continue
        guesses = [each.address for each in probes if each.guessed]
        if guesses:
            yield Finding(
                "no_ping",
                "the peer is up, but answers no pings: a firewall there may drop them, or other "
                "packets too",
                f"handshakes are answered, echo requests to {', '.join(guesses)} are not",
                "if nothing else passes either: on the peer: tunnel doctor",
                peer.public_key,
            )


def check_black_hole(facts: Facts) -> Iterator[Finding]:
    """Small packets pass, large ones vanish."""
    for probe in facts.probes:
        if not probe.answered or probe.passed >= probe.tried:
            continue
        size = probe.passed
        yield Finding(
            "mtu_black_hole",
            f"packets larger than {size} bytes are lost on the way to {probe.address}, without "
            "an ICMP error",
            f"echo requests of {size} bytes are answered, of {probe.tried} bytes are not",
            _set_mtu(facts, size),
            probe.peer,
        )


def _lost_mtu(facts: Facts, room: int) -> bool:
    """Whether the tunnel had an MTU that fits, and another program changed it."""
    return any(int(each.subject.split()[-1]) <= room for each in facts.taken_away("link"))


def _set_mtu(facts: Facts, size: int) -> str:
    addresses = facts.after.addresses if facts.after is not None else ()
    loses = size < IPV6_MIN_MTU and any(ip_interface(text).version == 6 for text in addresses)
    warning = f"; IPv6, which needs {IPV6_MIN_MTU}, goes from {facts.name} with it" if loses else ""
    return f"ip link set {facts.name} mtu {size}   # and MTU = {size} in the conf{warning}"


def check_mtu(facts: Facts) -> Iterator[Finding]:
    """Full packets that do not fit the outer link once they are sealed."""
    link = facts.links.get(facts.name)
    if link is None:
        return
    for peer in facts.peers:
        address = endpoint_address(peer)
        route = facts.routes.get(address or "")
        outer = facts.links.get(route.device) if route is not None else None
        if address is None or outer is None or outer.name in (facts.name, "lo"):
            continue
        room = outer.mtu - HEADER[ip_address(address).version] - UDP - SEALED
        if link.mtu > room:
            yield Finding(
                "mtu_too_large",
                f"full packets of {facts.name} do not fit through {outer.name}: each becomes two "
                "fragments, which many firewalls drop",
                f"mtu of {facts.name} is {link.mtu}, {outer.name} has room for {room}",
                f"tunnel reload {facts.name}" if _lost_mtu(facts, room) else _set_mtu(facts, room),
                peer.public_key,
            )
            return


def check_mode(facts: Facts) -> Iterator[Finding]:
    """Ethernet frames come where packets are expected, or the reverse."""
    reason, ours, theirs = "ethernet", "tun", "tap"
    if facts.is_tap:
        reason, ours, theirs = "not_ethernet", "tap", "tun"
    dropped = facts.after.drops.get(reason, 0) if facts.after is not None else 0
    silent = any(probe.sent and not probe.answered for probe in facts.probes)
    if facts.grown(reason) or (dropped and silent):
        yield Finding(
            "mode_differs",
            f"a peer has Mode = {theirs}, and this end has Mode = {ours}: neither takes what the "
            "other sends",
            f"{dropped} packets dropped as {reason}",
            "write the same Mode into section [Tunnel] of both confs; then, where it was another: "
            "tunnel restart NAME",
        )


def check_dropped_earlier(facts: Facts) -> Iterator[Finding]:
    """A note: what the tunnel had dropped before the doctor looked, long ago or not."""
    if facts.before is None or not (dropped := telling(facts.before.drops)):
        return
    most = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    counted = []
    for reason, packets in most:
        now = facts.grown(reason)
        words = [DROPS.get(reason, ""), f"{now} more just now" if now else ""]
        aside = "; ".join(filter(None, words))
        counted.append(f"{reason} {packets}" + (f" ({aside})" if aside else ""))
    yield Finding(
        "dropped_earlier",
        f"the tunnel has dropped {sum(dropped.values())} packets before the doctor "
        "looked: this alone is not a fault, as it may be long ago",
        f"tunnel show: drops {', '.join(counted)}",
        f"tunnel show {facts.name} --watch shows whether they grow"
        + ("" if facts.is_tap else f"; tunnel trace {facts.name} shows such a packet"),
    )


def check_batches(facts: Facts) -> Iterator[Finding]:
    """Notes: what makes the tunnel slow, not silent."""
    status = facts.after
    if status is None:
        return
    wanted = facts.conf.interface.options.datapath if facts.conf is not None else "auto"
    if status.datapath == "python" and wanted != "python":
        yield Finding(
            "datapath_python",
            "the Python datapath is in use, which is slow",
            "tunnel show: datapath python",
            "unset TUNNEL_DATAPATH where the daemon is started, if it says python; else put cargo "
            "(Rust 1.85 or newer) on the PATH, install tunnel from its sources again, the way it "
            "was installed before, and restart it; tunnel --version says which datapath there is",
        )
    off = [name for name, words in status.offloads.items() if words == "off"]
    if off:
        yield Finding(
            "offloads_off",
            f"packets are handled one by one: no offloads for {' and '.join(off)}",
            "tunnel show: offloads " + ", ".join(f"{k} {v}" for k, v in status.offloads.items()),
            "take …Offload = off out of section [Tunnel] and unset TUNNEL_OFFLOADS_OFF where the "
            "daemon is started, or use a kernel from 6.2 on",
        )
    if SHORT_TAIL in status.offloads.get("udp", "").split():
        forced = facts.conf is not None and facts.conf.interface.options.udp_short_tail == "on"
        yield Finding(
            "short_tails",
            "each batch of equally long datagrams ends with an empty message of 32 bytes, as "
            + (
                "section [Tunnel] asks for"
                if forced
                else "this kernel (Linux 7.0 to 7.1.4) may damage such a batch without it"
            ),
            "tunnel show: offloads udp " + status.offloads["udp"],
            "this costs little; remove UdpShortTail = on from section [Tunnel] once this machine, "
            "and the host of a virtual machine, run Linux 7.1.5 or newer"
            if forced
            else "this costs little, and Linux 7.1.5 or newer does not need it. Only if your "
            "distribution says that its older kernel has the fixes of 7.1.5, set "
            "UdpShortTail = off in section [Tunnel]",
        )
