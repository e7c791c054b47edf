"""One field of a tunnel's status for scripts, byte for byte as `wg show NAME FIELD` prints it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from tunnel.control.messages.status import PeerStatus, TunnelStatus

_NONE: Final = "(none)"
_OFF: Final = "off"


def _mark(status: TunnelStatus) -> str:
    return hex(status.fwmark) if status.fwmark else _OFF


def _allowed(peer: PeerStatus, separator: str) -> str:
    return separator.join(peer.allowed_ips) or _NONE


_OF_THE_INTERFACE: Final[dict[str, Callable[[TunnelStatus], str]]] = {
    "public-key": lambda status: status.public_key or _NONE,
    "private-key": lambda status: status.private_key or _NONE,
    "listen-port": lambda status: str(status.listen_port),
    "fwmark": _mark,
}

_OF_A_PEER: Final[dict[str, Callable[[PeerStatus], str]]] = {
    "preshared-keys": lambda peer: peer.preshared_key or _NONE,
    "endpoints": lambda peer: peer.endpoint or _NONE,
    "allowed-ips": lambda peer: _allowed(peer, " "),
    "latest-handshakes": lambda peer: str(int(peer.latest_handshake)),
    "transfer": lambda peer: f"{peer.rx_bytes}\t{peer.tx_bytes}",
    "persistent-keepalive": lambda peer: str(peer.persistent_keepalive or _OFF),
}

FIELDS: Final = (*_OF_THE_INTERFACE, "peers", *_OF_A_PEER, "dump")
"""What can be asked for."""

SECRET_FIELDS: Final = frozenset({"private-key", "preshared-keys", "dump"})
"""Those with keys that a status has only on request."""


def field_lines(status: TunnelStatus, field: str) -> Iterator[str]:
    """The lines of a field, of `FIELDS`; one that is secret needs a status with secrets."""
    if field in _OF_THE_INTERFACE:
        yield _OF_THE_INTERFACE[field](status)
    elif field == "dump":
        yield "\t".join(
            _OF_THE_INTERFACE[each](status)
            for each in ("private-key", "public-key", "listen-port", "fwmark")
        )
        for peer in status.peers:
            yield _dumped(peer)
    else:
        for peer in status.peers:
            value = () if field == "peers" else (_OF_A_PEER[field](peer),)
            yield "\t".join((peer.public_key, *value))


def _dumped(peer: PeerStatus) -> str:
    values = {name: of(peer) for name, of in _OF_A_PEER.items()}
    return "\t".join((peer.public_key, *(values | {"allowed-ips": _allowed(peer, ",")}).values()))
