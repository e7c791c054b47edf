"""What `tunnel top` shows: rates out of successive looks, and the picture of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tunnel.cli.status import size
from tunnel.control.messages.status import PeerStatus, TunnelStatus, telling
from tunnel.log.redact import printable

KEPT = 60
"""Looks that a sparkline reaches back."""

STALE = 180.0
"""Seconds after which a session is no longer used: a handshake older than that is no good sign."""

_BARS = "▁▂▃▄▅▆▇█"
_KEY = 44
"""Characters of a key in base64."""

_SPARK = 10
"""Columns of a peer's sparkline."""

_UNITS = ("bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s")

ORDERS = ("rate", "name", "handshake", "transfer")
"""By what the peers can be sorted."""

Key = tuple[str, str]
"""Interface and public key; an interface as a whole has an empty one."""


class History:
    """Rates of the last `KEPT` looks, in bytes per second, and of drops and CPU the latest."""

    def __init__(self) -> None:
        self.received: dict[Key, deque[float]] = {}
        self.sent: dict[Key, deque[float]] = {}
        self.cpu: dict[str, float] = {}
        self.new_drops: dict[str, dict[str, int]] = {}
        self._before: dict[str, tuple[TunnelStatus, float]] = {}

    def add(self, statuses: Iterable[TunnelStatus], now: float) -> None:
        """Take one more look. `now` is of a monotonic clock, in seconds."""
        for status in statuses:
            before = self._before.get(status.name)
            self._before[status.name] = status, now
            # A daemon that was restarted counts from zero.
            if before is None or before[0].pid != status.pid or now <= before[1]:
                continue
            old, then = before
            self._add(old, status, now - then)

    def _add(self, old: TunnelStatus, new: TunnelStatus, seconds: float) -> None:
        name = new.name
        peers = {peer.public_key: peer for peer in old.peers}
        total_received = total_sent = 0.0
        known = set()
        for peer in new.peers:
            was = peers.get(peer.public_key)
            received = max(0, peer.rx_bytes - was.rx_bytes) / seconds if was else 0.0
            sent = max(0, peer.tx_bytes - was.tx_bytes) / seconds if was else 0.0
            self._put((name, peer.public_key), received, sent)
            known.add((name, peer.public_key))
            total_received += received
            total_sent += sent
        for table in (self.received, self.sent):
            for key in [key for key in table if key[0] == name and key[1] and key not in known]:
                del table[key]
        self._put((name, ""), total_received, total_sent)
        self.cpu[name] = max(0.0, new.cpu_seconds - old.cpu_seconds) / seconds
        self.new_drops[name] = {
            reason: count - old.drops.get(reason, 0)
            for reason, count in new.drops.items()
            if count > old.drops.get(reason, 0)
        }

    def _put(self, key: Key, received: float, sent: float) -> None:
        self.received.setdefault(key, deque(maxlen=KEPT)).append(received)
        self.sent.setdefault(key, deque(maxlen=KEPT)).append(sent)

    def to_json(self, statuses: Iterable[TunnelStatus]) -> list[dict[str, Any]]:
        """The statuses with the latest rates beside them, as JSON-ready types."""
        return [
            status.to_json()
            | {
                "cpu": self.cpu.get(status.name, 0.0),
                "new_drops": self.new_drops.get(status.name, {}),
                "rates": {
                    key[1]: {"received": rates[-1], "sent": self.sent[key][-1]}
                    for key, rates in self.received.items()
                    if key[0] == status.name and key[1]
                },
            }
            for status in statuses
        ]


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` values as bars, the highest of them filling its cell; blanks in front."""
    shown = list(values)[-width:] if width > 0 else []
    top = max(shown, default=0.0)
    bars = (_BARS[min(7, int(8 * value / top))] if top and value else _BARS[0] for value in shown)
    return "".join(bars).rjust(max(0, width))


def rate(bytes_per_second: float) -> str:
    """A rate in bits per second and decimal units, as network people say it."""
    value = bytes_per_second * 8
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == _UNITS[0] else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def age(seconds: float) -> str:
    """A duration in few characters: 7s, 2m05s, 3h20m, 4d."""
    left = max(0, int(seconds))
    if left < 60:
        return f"{left}s"
    if left < 3600:
        return f"{left // 60}m{left % 60:02}s"
    if left < 86400:
        return f"{left // 3600}h{left % 3600 // 60:02}m"
    return f"{left // 86400}d"


def picture(
    statuses: Sequence[TunnelStatus],
    history: History,
    width: int,
    height: int | None,
    *,
    now: float,
    problems: Sequence[str] = (),
    order: str = ORDERS[0],
    first: int = 0,
    wanted: str = "",
    typing: bool = False,
) -> RenderableType:
    """The whole screen, `width` columns by at most `height` lines (None: as many as it takes).

    `problems` are sentences about the tunnels that are not among `statuses`. The peers are sorted
    by `order`, one of ORDERS, and the `first` of them are left out where not all have room. With
    `wanted`, only peers that match it are shown; while it is being typed, `typing`.
    """
    parts: list[RenderableType] = []
    # Per tunnel: a title, a line of figures, the table's head, drops, and an empty line.
    room = None
    if height is not None:
        room = max(1, (height - 1 - len(problems)) // max(1, len(statuses)) - 6)
    for status in statuses:
        peers = [peer for peer in _sorted(status, history, order) if matches(peer, wanted)]
        parts += _tunnel(status, peers, history, width, room, now, first)
        parts.append(Text())
    for problem in problems:
        parts.append(Text(printable(problem), "yellow", no_wrap=True, overflow="ellipsis"))
    if not statuses and not problems:
        parts.append(Text("waiting for the first look"))
    if height is not None:
        if typing:
            line = Text(f"/{printable(wanted)}█  Enter keeps it, Esc shows all", "bold")
        elif wanted:
            line = Text(f"only {printable(wanted)!r}: / changes it, Esc shows all  q quits", "bold")
        else:
            line = Text(f"q quits  s sorts: by {order}  / filters  ↑ ↓ scroll", "dim")
        line.no_wrap, line.overflow = True, "ellipsis"
        parts.append(line)
    return Group(*parts)


def matches(peer: PeerStatus, wanted: str) -> bool:
    """Whether a peer's name, key, endpoint or allowed IPs have the text in them, or the peer is in
    the state that begins with it: connected, disconnected or never.
    """
    text = wanted.casefold()
    state = "connected" if peer.connected else "disconnected"
    states = (state,) if peer.latest_handshake else (state, "never")
    fields = (peer.name, peer.public_key, peer.endpoint or "", *peer.allowed_ips)
    return any(text in field.casefold() for field in fields) or any(
        each.startswith(text) for each in states
    )


def _sorted(status: TunnelStatus, history: History, order: str) -> list[PeerStatus]:
    match order:
        case "name":
            return sorted(status.peers, key=lambda peer: (not peer.name, peer.name.casefold()))
        case "handshake":
            return sorted(status.peers, key=lambda peer: -peer.latest_handshake)
        case "transfer":
            return sorted(status.peers, key=lambda peer: -(peer.rx_bytes + peer.tx_bytes))
    return sorted(status.peers, key=lambda peer: -_activity(history, status.name, peer))


def _tunnel(
    status: TunnelStatus,
    peers: Sequence[PeerStatus],
    history: History,
    width: int,
    room: int | None,
    now: float,
    first: int,
) -> list[RenderableType]:
    key = (status.name, "")
    received, sent = history.received.get(key, ()), history.sent.get(key, ())
    title = Text(printable(status.name), "bold green", no_wrap=True, overflow="ellipsis")
    title.append(f"  port {status.listen_port}  mtu {status.mtu}", "default")
    title.append(f"  {status.datapath} datapath  cpu {history.cpu.get(status.name, 0):.0%}")
    words = "  ".join(f"{name} {value}" for name, value in status.offloads.items())
    title.append(f"  {words}", "dim")
    spark = max(0, min(KEPT, (width - 44) // 2))
    rates = Text("in ", no_wrap=True, overflow="crop")
    rates.append(f"{rate(received[-1] if received else 0):>12} ", "cyan")
    rates.append(sparkline(received, spark), "cyan")
    rates.append("  out ").append(f"{rate(sent[-1] if sent else 0):>12} ", "magenta")
    rates.append(sparkline(sent, spark), "magenta")
    hidden = 0 if room is None else max(0, len(peers) - room)
    first = min(first, hidden)
    shown = peers[first : first + len(peers) - hidden]
    parts: list[RenderableType] = [
        title,
        rates,
        _peers(status, shown, history, width, now),
    ]
    if hidden or len(peers) < len(status.peers):
        received_all = sum(peer.rx_bytes for peer in peers)
        sent_all = sum(peer.tx_bytes for peer in peers)
        words = (
            f"{len(peers)} of {len(status.peers)} peers" if len(peers) < len(status.peers) else ""
        )
        if hidden:
            words += (
                f"{', ' if words else 'peers '}{first + 1} to {first + len(shown)} of {len(peers)}"
            )
        words += f", all of them: {size(received_all)} in, {size(sent_all)} out"
        parts.append(Text(words, "dim", no_wrap=True, overflow="ellipsis"))
    parts.append(_drops(status, history))
    return parts


def _peers(
    status: TunnelStatus, peers: Sequence[PeerStatus], history: History, width: int, now: float
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), expand=True, header_style="bold")
    # A narrow terminal keeps what answers "does it work": the rest goes first.
    wide, wider = width >= 90, width >= 120
    others = 38 + 23 * wide + 2 * (_SPARK + 1) * wider + 9 * (width >= 70)
    peer_width = max(6, min(_KEY, width - others))
    table.add_column("PEER", no_wrap=True, overflow="ellipsis", width=peer_width)
    if wide:
        table.add_column("ENDPOINT", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("HANDSHAKE", justify="right", no_wrap=True)
    table.add_column("IN", justify="right", no_wrap=True)
    if wider:
        table.add_column("", no_wrap=True)
    table.add_column("OUT", justify="right", no_wrap=True)
    if wider:
        table.add_column("", no_wrap=True)
    if width >= 70:
        table.add_column("PATH MTU", justify="right", no_wrap=True)
    for peer in peers:
        key = (status.name, peer.public_key)
        received, sent = history.received.get(key, ()), history.sent.get(key, ())
        cells: list[RenderableType] = [Text(printable(peer.name or peer.public_key), "yellow")]
        if wide:
            cells.append(Text(printable(peer.endpoint or "unknown")))
        cells.append(_handshake(peer, now))
        for rates, colour in ((received, "cyan"), (sent, "magenta")):
            cells.append(Text(rate(rates[-1] if rates else 0)))
            if wider:
                cells.append(Text(sparkline(rates, _SPARK), colour))
        if width >= 70:
            cells.append(Text(str(peer.path_mtu or "-")))
        table.add_row(*cells)
    return table


def _handshake(peer: PeerStatus, now: float) -> Text:
    if not peer.latest_handshake:
        return Text("never", "red")
    seconds = now - peer.latest_handshake
    return Text(age(seconds), "yellow" if seconds > STALE else "green")


def _drops(status: TunnelStatus, history: History) -> Text:
    line = Text("drops ", no_wrap=True, overflow="ellipsis")
    new = history.new_drops.get(status.name, {})
    if not (drops := telling(status.drops)):
        return line.append("none", "dim")
    for reason, count in sorted(drops.items(), key=lambda item: (-item[1], item[0])):
        more = new.get(reason, 0)
        line.append(f"{reason} {count}", "red" if more else "default")
        line.append(f" (+{more})  " if more else "  ", "red")
    return line


def _activity(history: History, name: str, peer: PeerStatus) -> float:
    key = (name, peer.public_key)
    received, sent = history.received.get(key), history.sent.get(key)
    return (received[-1] if received else 0.0) + (sent[-1] if sent else 0.0)
