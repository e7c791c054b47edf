"""A tunnel's events in words: the same in the log, in `tunnel events` and in `show --watch`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tunnel.control.messages.changes import Change, named
from tunnel.control.messages.events import TunnelEvent
from tunnel.log.redact import printable

MAX_CHANGES = 5
"""Changes of a reload that are named in its line; the rest is counted."""

_REFUSED = {
    "bad_mac1": "its sender has another public key for this host, or is no peer",
    "unknown_peer": "no peer here has this public key",
    "old_timestamp": "the clock of this peer was set back, or an old handshake is replayed",
}
"""Why a handshake was refused."""


def shortened(items: Sequence[str], most: int, *, uncounted: int = 0) -> list[str]:
    """The first `most` of the items, and how many there are more; `uncounted` of these are not in
    the list at all.
    """
    more = len(items) + uncounted - most
    return [*items[:most], *([f"and {more} more"] if more > 0 else [])]


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many there are more, as a phrase."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def describe(event: TunnelEvent) -> str:
    """The event as one line without its time, harmless to a terminal.

    One of a type not known here, from a newer daemon, becomes its name and its fields.
    """
    return sentence(event.type, event.details)


def sentence(kind: str, details: Mapping[str, Any]) -> str:
    """`describe` for an event of type `kind` with these details."""
    try:
        words = _words(kind, details)
    except (KeyError, TypeError, ValueError):
        words = None
    return printable(words or _fields(kind, details))


def _words(kind: str, of: Mapping[str, Any]) -> str | None:
    match kind:
        case "up":
            return "the tunnel is up"
        case "restarted":
            sessions = f"{of['sessions']} session{'' if of['sessions'] == 1 else 's'}"
            return (
                f"the tunnel goes on after {of['pause']:.2f} s without a daemon, "
                f"restart number {of['restarts']}, {sessions} kept"
            )
        case "down":
            if of.get("restarting"):
                return "the daemon ends for another one; the interface stays"
            return "the tunnel is going down"
        case "handshake":
            return _handshake(of)
        case "refused":
            who = f" by key {_who(of)}" if of["peer"] else ""
            why = _REFUSED.get(of["reason"], "it is not valid")
            return f"a handshake from {of['endpoint']}{who} was dropped ({of['reason']}): {why}"
        case "connected":
            return f"peer {_who(of)} connected from {of['endpoint'] or 'no known address'}"
        case "disconnected":
            transfer = f"{of['rx_bytes']} bytes received and {of['tx_bytes']} sent so far"
            return f"peer {_who(of)} disconnected: {of['reason']}; {transfer}"
        case "quota_reached":
            # Only here: it brings cryptography along, which commands such as show do without.
            from tunnel.config.limits import bytes_text

            period = f" per {of['period']}" if of["period"] else ""
            return (
                f"peer {_who(of)} has reached its quota of {bytes_text(of['quota'])}{period}: what "
                "does not fit into it is dropped"
            )
        case "roamed":
            where = f"moved from {of['old']} to" if of["old"] else "is at"
            more = f" ({of['left_out']} earlier moves not shown)" if of.get("left_out") else ""
            return f"peer {_who(of)} {where} {of['new']}{more}"
        case "session_expired":
            return f"the session with {_who(of)} has expired"
        case "keys_erased":
            return f"the keys of {_who(of)} were erased: too long without a new handshake"
        case "peer_removed":
            reason = ": its key is now our own" if of.get("own_key", True) else ""
            return f"peer {_who(of)} removed{reason}"
        case "routing_loop":
            return (
                f"the route to {of['endpoint']} leads into the tunnel itself: what is sent to peer "
                f"{_who(of)} is dropped until another route to it is set"
            )
        case "clock":
            effect = "; no handshake is sent until it is right" if of["refused"] else ""
            return f"the clock cannot be right: {of['problem']}{effect}"
        case "drops":
            total = sum(of["total"].values())
            reasons = ", ".join(f"{count} {reason}" for reason, count in of["new"].items())
            return f"dropped: {reasons} ({total} packets since the start)"
        case "reload":
            return _reload(of)
        case "missing":
            return _missing(of)
        case "port":
            return f"the UDP port is {of['new']} now, was {of['old']}"
        case "attached":
            return f"the interface is attached to {of['target']}"
        case "detached":
            return f"the interface is detached from {of['target']}"
        case "waiting":
            reason = f": {of['reason']}" if of["reason"] else ""
            return f"the interface is waiting for {of['target']}{reason}"
        case "lost":
            return f"{of['count']} events were lost here: they came faster than they were read"
    return None


def _who(of: Mapping[str, Any]) -> str:
    """The peer of an event: its name, if it has one, and its key."""
    return named(of["peer"], of.get("name", ""))


def _handshake(of: Mapping[str, Any]) -> str | None:
    peer = f"{_who(of)} at {of['endpoint'] or 'no known address'}"
    match of["outcome"]:
        case "completed":
            side = "our" if of["is_initiator"] else "its"
            trip = f"{of['round_trip'] * 1000:.1f} ms"
            return f"handshake with {peer} completed on {side} initiative, round trip {trip}"
        case "unanswered":
            return f"no answer from {peer} (attempt {of['attempt']})"
        case "failed":
            return (
                f"no session with {peer} after {of['attempts']} attempts: {of['reason']}; "
                f"{of['dropped']} waiting packets dropped"
            )
    return None


def _missing(of: Mapping[str, Any]) -> str:
    if not of["items"]:
        return "everything that another program had removed is back"
    parts = shortened(of["items"], MAX_CHANGES, uncounted=int(of["more_items"]))
    return f"another program has removed: {'; '.join(parts)}"


def _reload(of: Mapping[str, Any]) -> str:
    if of["error"]:
        return f"not reloaded, nothing was changed: {of['error']}"
    changes = [str(Change.from_json(change)) for change in of["changes"]]
    parts = shortened(changes, MAX_CHANGES, uncounted=int(of.get("more_changes", 0)))
    parts += of["notes"]
    return f"reloaded: {'; '.join(parts) or 'nothing to change'}"


def _fields(kind: str, details: Mapping[str, Any]) -> str:
    fields = (f"{key}={json.dumps(value)}" for key, value in details.items())
    return " ".join([kind, *fields])
