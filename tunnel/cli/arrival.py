"""What `tunnel up` says on a terminal: the tunnel in one line, and whether a peer answers."""

from __future__ import annotations

import select
import time

import typer

from tunnel.control.client import TunnelClient
from tunnel.control.json_protocol import ControlError
from tunnel.control.messages.events import TunnelEvent
from tunnel.control.messages.status import TunnelStatus
from tunnel.log.redact import printable

PATIENCE = 1.0
"""Seconds that a peer has to answer."""


def announce(name: str) -> None:
    """Print the line of the tunnel `name`, which is up; nothing if it has ended meanwhile."""
    try:
        with TunnelClient(name) as events, TunnelClient(name) as client:
            # Before the look, so that no answer falls in between.
            events.subscribe()
            status = client.status()
            if asks_at_once(status) and not answered(status):
                _wait_for_answer(events)
                status = client.status()
    except (ControlError, OSError):
        return
    typer.echo(line(status))


def asks_at_once(status: TunnelStatus) -> bool:
    """Whether a handshake begins without a packet to send: keepalives are due from the start."""
    return any(peer.endpoint and peer.persistent_keepalive for peer in status.peers)


def answered(status: TunnelStatus) -> list[str]:
    """The names, or keys, of the peers that had a handshake."""
    return [peer.name or peer.public_key for peer in status.peers if peer.latest_handshake]


def line(status: TunnelStatus) -> str:
    """The tunnel in one line."""
    addresses = ", ".join(status.addresses) or "no address"
    words = f"{status.name} is up: {addresses}, port {status.listen_port}"
    words += f", public key {status.public_key or '(none)'}"
    found = answered(status)
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return f"{words}; {printable(found[0])}{more} answered"
    if asks_at_once(status):
        return f"{words}; no peer has answered yet: tunnel doctor {status.name}"
    return words


def _wait_for_answer(events: TunnelClient) -> None:
    ends = time.monotonic() + PATIENCE
    while (left := ends - time.monotonic()) > 0:
        if not events.has_unread() and not select.select([events], [], [], left)[0]:
            return
        found = events.read_events()
        if not found or any(_is_answer(event) for event in found):
            return


def _is_answer(event: TunnelEvent) -> bool:
    return event.type == "handshake" and event.details.get("outcome") == "completed"
