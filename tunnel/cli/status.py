"""Printing of a tunnel's status for people: the look of `wg show`, and the drops beneath."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Literal

from rich.console import Console
from rich.text import Text

from tunnel.control.messages.sentences import shortened
from tunnel.control.messages.status import PeerLimits, PeerStatus, TunnelStatus, telling
from tunnel.log.redact import printable

_AGES = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
MAX_MISSING = 5
"""Things that another program removed which are named; the rest is counted."""
MAX_PEERS = 20
"""With more peers than this, only those with the latest handshakes are shown, and the rest is
counted."""
MAX_NETWORKS = 20
"""Allowed IPs of a peer that are shown; the rest is counted."""
_SIZES = {
    1024: ("B", "KiB", "MiB", "GiB", "TiB", "PiB"),
    1000: ("B", "kB", "MB", "GB", "TB", "PB"),
}


def age(seconds: float) -> str:
    """A duration as `wg` words it: the two largest units, or `now`."""
    left = int(seconds)
    if left <= 0:
        return "now"
    words = []
    for unit, name in _AGES:
        count, left = divmod(left, unit)
        if count:
            words.append(f"{count} {name}{'s' if count > 1 else ''}")
    return ", ".join(words[:2])


def size(count: int, step: Literal[1000, 1024] = 1024) -> str:
    """Bytes with two decimals: in binary units, as `wg` prints them, or in decimal ones."""
    value, units = float(count), _SIZES[step]
    for unit in units:
        if value < step or unit == units[-1]:
            return f"{count} B" if unit == "B" else f"{value:.2f} {unit}"
        value /= step
    raise AssertionError("unreachable")


def print_status(
    console: Console, status: TunnelStatus, *, now: float | None = None, whole: bool = False
) -> None:
    """Print one interface, its peers and its drops. Colours are the console's decision."""
    for line in status_lines(status, now=time.time() if now is None else now, whole=whole):
        console.print(line, soft_wrap=True)


def status_lines(status: TunnelStatus, *, now: float, whole: bool = False) -> Iterator[Text]:
    """One interface, its peers and its drops, line by line. `now` is Unix time in seconds.

    Many peers and allowed IPs are summed up, unless the `whole` is asked for.
    """
    yield Text("interface", "bold green") + Text(": ") + Text(status.name, "green")
    yield _line("public key", status.public_key or "(none)")
    yield _line("private key", status.private_key or "(hidden)")
    yield _line("listening port", str(status.listen_port))
    if status.fwmark:
        yield _line("fwmark", hex(status.fwmark))
    yield _line("addresses", ", ".join(status.addresses) or "(none)")
    yield _line("mtu", str(status.mtu))
    if status.mode != "tun":
        yield _line("mode", status.mode)
    if status.bridge:
        yield _line("bridge", status.bridge)
    if status.attached:
        yield _line("attached to", status.attached)
    elif status.netns:
        yield _line("network namespace", status.netns)
    if status.nested_in:
        yield _line("nested in", ", ".join(status.nested_in))
    yield _line("datapath", status.datapath)
    if status.cipher:
        yield _line("cipher", f"ChaCha20-Poly1305 of {status.cipher}")
    if status.offloads:
        words = ", ".join(f"{name} {value}" for name, value in status.offloads.items())
        yield _line("offloads", words)
    if status.rights.capabilities:
        yield _line("rights", status.rights.words())
    if status.restarts:
        times = f"{status.restarts} time{'' if status.restarts == 1 else 's'}"
        yield _line("restarted", f"{times}, up for {age(now - status.since)}")
    if status.lost_holders and not status.holder:
        yield Text("  holder", "bold red") + Text(": has ended; a restart interrupts the tunnel")
    elif status.lost_holders:
        yield _line("holder", f"process {status.holder}, after {status.lost_holders} that ended")
    if status.lost:
        yield Text("  not kept", "bold red") + Text(f": {'; '.join(status.lost)}")
    if status.missing:
        missing = shortened(status.missing, MAX_MISSING)
        yield Text("  missing", "bold red") + Text(f": {', '.join(missing)}")
    shown = status.peers
    if not whole and len(shown) > MAX_PEERS:
        by_handshake = sorted(shown, key=lambda peer: -peer.latest_handshake)
        shown = tuple(by_handshake[:MAX_PEERS])
    for peer in shown:
        yield Text()
        yield from _peer_lines(peer, now, whole=whole)
    if len(shown) < len(status.peers):
        yield Text()
        yield Text(f"and {_more_peers(status.peers, shown)} (all of them: --all)", "bold yellow")
    if drops := telling(status.drops):
        yield Text()
        yield Text("  drops", "bold red") + Text(":")
        width = max(map(len, drops))
        for reason, packets in sorted(drops.items(), key=lambda item: (-item[1], item[0])):
            yield Text(f"    {reason:<{width}}  {packets}")


def _more_peers(peers: Sequence[PeerStatus], shown: Sequence[PeerStatus]) -> str:
    never = sum(not peer.latest_handshake for peer in peers)
    never -= sum(not peer.latest_handshake for peer in shown)
    more = len(peers) - len(shown)
    words = f"{never} of them without a handshake" if never else "with older handshakes"
    return f"{more} more peers, {words}"


def _peer_lines(peer: PeerStatus, now: float, *, whole: bool) -> Iterator[Text]:
    yield Text("peer", "bold yellow") + Text(": ") + Text(peer.public_key, "yellow")
    if peer.name:
        yield _line("name", printable(peer.name))
    if peer.has_preshared_key:
        yield _line("preshared key", peer.preshared_key or "(hidden)")
    if peer.endpoint:
        yield _line("endpoint", peer.endpoint)
    nothing = "(none)" if peer.macs is None else "(any)"
    most = len(peer.allowed_ips) if whole else MAX_NETWORKS
    yield _line("allowed ips", ", ".join(shortened(peer.allowed_ips, most)) or nothing)
    if peer.macs is not None:
        yield _line("mac addresses", f"{peer.macs} learned")
    if peer.latest_handshake:
        words = age(now - peer.latest_handshake)
        yield _line("latest handshake", words if words == "now" else f"{words} ago")
    if peer.rx_bytes or peer.tx_bytes:
        transfer = f"{size(peer.rx_bytes)} received, {size(peer.tx_bytes)} sent"
        yield _line("transfer", transfer)
    yield from _limit_lines(peer.limits)
    if peer.expires:
        left = age(peer.expires - now)
        yield _line("expires", left if left == "now" else f"in {left}")
    if peer.persistent_keepalive:
        yield _line("persistent keepalive", f"every {age(peer.persistent_keepalive)}")


def _limit_lines(limits: PeerLimits) -> Iterator[Text]:
    if limits.rate:
        each = " each way" if limits.rate_to == limits.rate_from else ""
        yield _line("rate limit", limits.rate + each + _dropped(limits.over_rate))
    if limits.quota:
        used = f"{100 * limits.quota_used / limits.quota:.1f} % of"
        period = f" per {limits.quota_period}" if limits.quota_period else ""
        # A conf has decimal units, mostly.
        quota = f"{size(limits.quota_used, 1000)} used, {used} {size(limits.quota, 1000)}{period}"
        yield _line("quota", quota + _dropped(limits.over_quota))


def _dropped(packets: int) -> str:
    return f", {packets} packet{'' if packets == 1 else 's'} dropped" if packets else ""


def _line(name: str, value: str) -> Text:
    return Text("  ") + Text(name, "bold") + Text(": ") + Text(value)
