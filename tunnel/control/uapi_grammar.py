"""The grammar of the UAPI: its keys, and lines parsed and rendered. Nothing is applied here.

One table says how the value of each key is read and written, for the server and the client.

Source: https://www.wireguard.com/xplatform/, "Configuration Protocol".
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Generic, TypeVar

from tunnel.config import KeyFormatError, PresharedKey, PrivateKey, PublicKey
from tunnel.config.values import network_text
from tunnel.control.uapi_changes import (
    DeviceChange,
    PeerChange,
    ReplacePeers,
    SetFwmark,
    SetListenPort,
    SetPrivateKey,
)
from tunnel.engine import Interface, Peer
from tunnel.errors import TunnelError
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import pack, unpack

MAX_LINE: Final = 1024
"""Characters; the longest line that means anything has 140."""

PIECE = 64
"""Lines of allowed IPs that are made at a time."""

_NO_KEY: Final = "0" * 64

_NAME: Final = re.compile("[a-z_]{1,32}")

_NANOSECONDS: Final = 1_000_000_000

_K = TypeVar("_K", PrivateKey, PublicKey, PresharedKey)
_V = TypeVar("_V")


class UapiError(TunnelError):
    """A request that cannot be granted. `errno` is the positive number that goes back.

    The text is logged, so it quotes no value: a key may stand where none belongs.
    """

    code = "uapi"

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.errno = code


# --- Values --------------------------------------------------------------------------------------


def _number(largest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= largest):
            raise UapiError(errno.EINVAL, f"not a number from 0 to {largest}")
        return int(text)

    return parse


_port = _number(0xFFFF)
_scope = _number(0x7FFF_FFFF)
_length = {4: _number(32), 6: _number(128)}


def _true(text: str) -> bool:
    if text != "true":
        raise UapiError(errno.EINVAL, "a boolean is written true")
    return True


def _version(text: str) -> int:
    if text != "1":
        raise UapiError(errno.EINVAL, "the only protocol_version is 1")
    return 1


def _key(kind: type[_K]) -> Callable[[str], _K]:
    def parse(text: str) -> _K:
        try:
            return kind.from_hex(text)
        except KeyFormatError as error:
            raise UapiError(errno.EINVAL, str(error)) from None

    return parse


def _hex(key: PublicKey | PresharedKey) -> str:
    return key.to_hex()


_private_key = _key(PrivateKey)


def _private_key_or_none(text: str) -> PrivateKey | None:
    return None if text == _NO_KEY else _private_key(text)


def _private_hex(key: PrivateKey | None) -> str:
    return _NO_KEY if key is None else key.to_hex()


def _endpoint(text: str) -> Endpoint:
    host, colon, port = text.rpartition(":")
    number = _port(port) if colon else 0
    try:
        if host.startswith("[") and host.endswith("]"):
            address, _, scope = host[1:-1].partition("%")
            return Endpoint.from_sockaddr(
                (str(ipaddress.IPv6Address(address)), number, 0, _scope_id(scope))
            )
        return Endpoint(ipaddress.IPv4Address(host).packed, number)
    except (ValueError, OSError):
        raise UapiError(errno.EINVAL, "not an endpoint (address:port)") from None


def _scope_id(scope: str) -> int:
    if not scope:
        return 0
    return _scope(scope) if scope.isdigit() else socket.if_nametoindex(scope)


def _network(text: str) -> tuple[int, bool]:
    """A network as `pack` writes it, and whether it is to be added."""
    add = not text.startswith("-")
    address, slash, bits = text.partition("/") if add else text[1:].partition("/")
    version, family = (6, socket.AF_INET6) if ":" in address else (4, socket.AF_INET)
    try:
        packed = socket.inet_pton(family, address)
    except (OSError, ValueError):
        slash = ""
    if not slash:
        raise UapiError(errno.EINVAL, "not an allowed IP (address/length)")
    return pack(version, int.from_bytes(packed, "big"), _length[version](bits)), add


def _network_text(change: tuple[int, bool]) -> str:
    network, add = change
    return ("" if add else "-") + network_text(*unpack(network))


# --- Keys ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key(Generic[_V]):
    """A key: how its value is read, which may raise UapiError, and how it is written."""

    name: str
    parse: Callable[[str], _V]
    render: Callable[[_V], str] = str

    def line(self, value: _V) -> str:
        """`name=value`, with the end of the line."""
        return f"{self.name}={self.render(value)}\n"


def _flag(name: str) -> Key[bool]:
    return Key(name, _true, lambda value: "true")


PRIVATE_KEY = Key("private_key", _private_key_or_none, _private_hex)
LISTEN_PORT = Key("listen_port", _port)
# Empty is none, as wireguard-go has it.
FWMARK = Key("fwmark", lambda text: _number(0xFFFF_FFFF)(text or "0"))
REPLACE_PEERS = _flag("replace_peers")
PUBLIC_KEY = Key("public_key", _key(PublicKey), _hex)

REMOVE = _flag("remove")
UPDATE_ONLY = _flag("update_only")
PRESHARED_KEY = Key("preshared_key", _key(PresharedKey), _hex)
ENDPOINT = Key("endpoint", _endpoint)
KEEPALIVE = Key("persistent_keepalive_interval", _port)
REPLACE_ALLOWED_IPS = _flag("replace_allowed_ips")
ALLOWED_IP = Key("allowed_ip", _network, _network_text)
PROTOCOL_VERSION = Key("protocol_version", _version)


def _replace_peers(text: str) -> ReplacePeers:
    REPLACE_PEERS.parse(text)
    return ReplacePeers()


def _protocol_version(peer: PeerChange, text: str) -> None:
    PROTOCOL_VERSION.parse(text)


def _replace_allowed_ips(peer: PeerChange, text: str) -> None:
    peer.replace_allowed_ips = REPLACE_ALLOWED_IPS.parse(text)
    peer.allowed_ips.clear()


def _allowed_ip(peer: PeerChange, text: str) -> None:
    network, add = ALLOWED_IP.parse(text)
    # At the end, if it is there already: the order is that of the last mention.
    peer.allowed_ips.pop(network, None)
    peer.allowed_ips[network] = add


def _sets(key: Key[Any], field: str) -> Callable[[PeerChange, str], None]:
    return lambda peer, text: setattr(peer, field, key.parse(text))


_DEVICE_KEYS: Final[dict[str, Callable[[str], DeviceChange]]] = {
    PRIVATE_KEY.name: lambda text: SetPrivateKey(PRIVATE_KEY.parse(text)),
    LISTEN_PORT.name: lambda text: SetListenPort(LISTEN_PORT.parse(text)),
    FWMARK.name: lambda text: SetFwmark(FWMARK.parse(text)),
    REPLACE_PEERS.name: _replace_peers,
    PUBLIC_KEY.name: lambda text: PeerChange(PUBLIC_KEY.parse(text)),
}

_PEER_KEYS: Final[dict[str, Callable[[PeerChange, str], None]]] = {
    REMOVE.name: _sets(REMOVE, "remove"),
    UPDATE_ONLY.name: _sets(UPDATE_ONLY, "update_only"),
    PRESHARED_KEY.name: _sets(PRESHARED_KEY, "preshared_key"),
    ENDPOINT.name: _sets(ENDPOINT, "endpoint"),
    KEEPALIVE.name: _sets(KEEPALIVE, "persistent_keepalive"),
    REPLACE_ALLOWED_IPS.name: _replace_allowed_ips,
    ALLOWED_IP.name: _allowed_ip,
    PROTOCOL_VERSION.name: _protocol_version,
}


# --- Lines ---------------------------------------------------------------------------------------


class Parser:
    """Reads the lines of one `set` or, `of_answer`, those of the answer to a `get`.

    Hand in every line up to the empty one, then take `changes`. The values of a peer are gathered,
    so `replace_allowed_ips` and the rest of its section may come in any order: what a section says
    last counts. Keys that are not known are errors, but for an answer, which may have others. After
    an error the parser must be dropped.
    """

    def __init__(self, *, of_answer: bool = False) -> None:
        self.changes: list[DeviceChange] = []
        self._peer: PeerChange | None = None
        self._of_answer = of_answer

    def feed_untrusted(self, line: str) -> None:
        """Read one line, without its end. Raises UapiError: EPROTO without `=`, else EINVAL."""
        if line.startswith("allowed_ip=") and self._peer is not None:
            # Almost all lines of a large `set` are of this kind.
            _allowed_ip(self._peer, line[11:])
            return
        key, equals, value = line.partition("=")
        if not equals:
            raise UapiError(errno.EPROTO, "a line without '='")
        if len(line) > MAX_LINE:
            raise UapiError(errno.EINVAL, f"a line longer than {MAX_LINE} characters")
        if self._peer is not None and key in _PEER_KEYS:
            _PEER_KEYS[key](self._peer, value)
        elif key in _DEVICE_KEYS and (self._peer is None or key == PUBLIC_KEY.name):
            change = _DEVICE_KEYS[key](value)
            self.changes.append(change)
            if isinstance(change, PeerChange):
                self._peer = change
        elif not self._of_answer or key in _DEVICE_KEYS or key in _PEER_KEYS:
            section = "device" if self._peer is None else "peer"
            name = f": {key!r}" if _NAME.fullmatch(key) else ""
            raise UapiError(errno.EINVAL, f"not a key of a {section}{name}")


def render_changes(changes: Iterable[DeviceChange]) -> Iterator[str]:
    """The lines that a Parser reads as `changes`."""
    for change in changes:
        match change:
            case SetPrivateKey():
                yield PRIVATE_KEY.line(change.key)
            case SetListenPort():
                yield LISTEN_PORT.line(change.port)
            case SetFwmark():
                yield FWMARK.line(change.fwmark)
            case ReplacePeers():
                yield REPLACE_PEERS.line(True)
            case PeerChange():
                yield from _render_change(change)


def _render_change(peer: PeerChange) -> Iterator[str]:
    yield PUBLIC_KEY.line(peer.public_key)
    if peer.remove:
        yield REMOVE.line(True)
    if peer.update_only:
        yield UPDATE_ONLY.line(True)
    if peer.preshared_key is not None:
        yield PRESHARED_KEY.line(peer.preshared_key)
    if peer.endpoint is not None:
        yield ENDPOINT.line(peer.endpoint)
    if peer.persistent_keepalive is not None:
        yield KEEPALIVE.line(peer.persistent_keepalive)
    if peer.replace_allowed_ips:
        yield REPLACE_ALLOWED_IPS.line(True)
    yield from map(ALLOWED_IP.line, peer.allowed_ips.items())


def render_state(interface: Interface, listen_port: int, fwmark: int) -> Iterator[str]:
    """The answer to a `get`: the device and all its peers, in pieces that each take some 10 µs.

    The lists are those of the moment at which they are begun, so changes between two pieces do
    not disturb it; but a whole answer is consistent only if there are none.
    """
    if interface.private_key is not None:
        yield PRIVATE_KEY.line(interface.private_key)
    if listen_port:
        yield LISTEN_PORT.line(listen_port)
    if fwmark:
        yield FWMARK.line(fwmark)
    for peer in list(interface.peers.values()):
        yield _render_peer(peer)
        yield from _render_networks(interface.allowed_ips.packed_of(peer))


def _render_peer(peer: Peer) -> str:
    seconds, nanoseconds = divmod(peer.last_handshake_unix_ns, _NANOSECONDS)
    return (
        PUBLIC_KEY.line(peer.public_key)
        + PRESHARED_KEY.line(peer.preshared_key)
        + PROTOCOL_VERSION.line(1)
        + (ENDPOINT.line(peer.endpoint) if peer.endpoint is not None else "")
        + f"last_handshake_time_sec={seconds}\n"
        f"last_handshake_time_nsec={nanoseconds}\n"
        f"tx_bytes={peer.tx_bytes}\n"
        f"rx_bytes={peer.rx_bytes}\n" + KEEPALIVE.line(peer.persistent_keepalive)
    )


def _render_networks(networks: Iterator[int]) -> Iterator[str]:
    while part := list(islice(networks, PIECE)):
        yield "".join(ALLOWED_IP.line((network, True)) for network in part)
