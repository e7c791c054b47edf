"""The lines of a `set` of the UAPI, read into changes. Nothing is applied here.

Source: https://www.wireguard.com/xplatform/, "Configuration Protocol".
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from collections.abc import Callable
from typing import Final, TypeVar

from tunnel.config import KeyFormatError, PresharedKey, PrivateKey, PublicKey
from tunnel.control.uapi_changes import (
    DeviceChange,
    PeerChange,
    ReplacePeers,
    SetFwmark,
    SetListenPort,
    SetPrivateKey,
)
from tunnel.errors import TunnelError
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import pack

MAX_LINE: Final = 1024
"""Characters; the longest line that means anything has 140."""

_NO_KEY: Final = "0" * 64

_NAME: Final = re.compile("[a-z_]{1,32}")

_K = TypeVar("_K", PrivateKey, PublicKey, PresharedKey)


class UapiError(TunnelError):
    """A request that cannot be granted. `errno` is the positive number that goes back.

    The text is logged, so it quotes no value: a key may stand where none belongs.
    """

    code = "uapi"

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.errno = code


class SetParser:
    """Reads one `set`: hand in every line up to the empty one, then take `changes`.

    The values of a peer are gathered, so `replace_allowed_ips` and the rest of its section may
    come in any order: what a section says last counts. After an error the parser must be dropped.
    """

    def __init__(self) -> None:
        self.changes: list[DeviceChange] = []
        self._peer: PeerChange | None = None
        self._keys: dict[str, Callable[[str], None]] = {
            "private_key": self._private_key,
            "listen_port": self._listen_port,
            "fwmark": self._fwmark,
            "replace_peers": self._replace_peers,
            "public_key": self._public_key,
        }

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
            raise UapiError(errno.EINVAL, f"a line of more than {MAX_LINE} characters")
        if self._peer is not None and key != "public_key":
            reader = _PEER_KEYS.get(key)
            if reader is None:
                raise UapiError(errno.EINVAL, f"no key of a peer{_named(key)}")
            reader(self._peer, value)
            return
        read = self._keys.get(key)
        if read is None:
            raise UapiError(errno.EINVAL, f"no key of a device{_named(key)}")
        read(value)

    def _private_key(self, value: str) -> None:
        key = None if value == _NO_KEY else _key(PrivateKey, value)
        self.changes.append(SetPrivateKey(key))

    def _listen_port(self, value: str) -> None:
        self.changes.append(SetListenPort(_number(value, 0xFFFF)))

    def _fwmark(self, value: str) -> None:
        # Empty is none, as wireguard-go has it.
        self.changes.append(SetFwmark(_number(value or "0", 0xFFFF_FFFF)))

    def _replace_peers(self, value: str) -> None:
        _true(value)
        self.changes.append(ReplacePeers())

    def _public_key(self, value: str) -> None:
        self._peer = PeerChange(_key(PublicKey, value))
        self.changes.append(self._peer)


def _remove(peer: PeerChange, value: str) -> None:
    _true(value)
    peer.remove = True


def _update_only(peer: PeerChange, value: str) -> None:
    _true(value)
    peer.update_only = True


def _preshared_key(peer: PeerChange, value: str) -> None:
    peer.preshared_key = _key(PresharedKey, value)


def _endpoint(peer: PeerChange, value: str) -> None:
    host, colon, port = value.rpartition(":")
    number = _number(port, 0xFFFF) if colon else 0
    try:
        if host.startswith("[") and host.endswith("]"):
            address, _, scope = host[1:-1].partition("%")
            peer.endpoint = Endpoint.from_sockaddr(
                (str(ipaddress.IPv6Address(address)), number, 0, _scope_id(scope))
            )
        else:
            peer.endpoint = Endpoint(ipaddress.IPv4Address(host).packed, number)
    except (ValueError, OSError):
        raise UapiError(errno.EINVAL, "no endpoint, address:port") from None


def _scope_id(scope: str) -> int:
    if not scope:
        return 0
    return _number(scope, 0x7FFF_FFFF) if scope.isdigit() else socket.if_nametoindex(scope)


def _persistent_keepalive(peer: PeerChange, value: str) -> None:
    peer.persistent_keepalive = _number(value, 0xFFFF)


def _replace_allowed_ips(peer: PeerChange, value: str) -> None:
    _true(value)
    peer.replace_allowed_ips = True
    peer.allowed_ips.clear()


def _protocol_version(peer: PeerChange, value: str) -> None:
    if value != "1":
        raise UapiError(errno.EINVAL, "the only protocol_version is 1")


def _allowed_ip(peer: PeerChange, value: str) -> None:
    add = not value.startswith("-")
    address, slash, bits = value.partition("/") if add else value[1:].partition("/")
    version, width = (6, 128) if ":" in address else (4, 32)
    try:
        packed = socket.inet_pton(socket.AF_INET6 if version == 6 else socket.AF_INET, address)
    except (OSError, ValueError):
        slash = ""
    if not slash:
        raise UapiError(errno.EINVAL, "no allowed_ip, address/length")
    network = pack(version, int.from_bytes(packed, "big"), _number(bits, width))
    # Anew at the end: the order is that of the last mention.
    peer.allowed_ips.pop(network, None)
    peer.allowed_ips[network] = add


_PEER_KEYS: Final[dict[str, Callable[[PeerChange, str], None]]] = {
    "remove": _remove,
    "update_only": _update_only,
    "preshared_key": _preshared_key,
    "endpoint": _endpoint,
    "persistent_keepalive_interval": _persistent_keepalive,
    "replace_allowed_ips": _replace_allowed_ips,
    "allowed_ip": _allowed_ip,
    "protocol_version": _protocol_version,
}


def _named(key: str) -> str:
    return f": {key!r}" if _NAME.fullmatch(key) else ""


def _number(text: str, largest: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= largest):
        raise UapiError(errno.EINVAL, f"not a number from 0 to {largest}")
    return int(text)


def _true(value: str) -> None:
    if value != "true":
        raise UapiError(errno.EINVAL, "a boolean is written true")


def _key(kind: type[_K], text: str) -> _K:
    try:
        return kind.from_hex(text)
    except KeyFormatError as error:
        raise UapiError(errno.EINVAL, str(error)) from None
