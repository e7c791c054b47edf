"""WireGuard's cross-platform UAPI as text and values: what `wg` says and hears. Does no I/O.

get     get=1\\n\\n             → device and peers as key=value lines, errno=0\\n\\n
set     set=1\\n…key=value…\\n\\n → errno=0\\n\\n

A `set` is read whole before anything of it is done: `SetParser` takes its lines one by one and
gives a `DeviceChange`. Source: https://www.wireguard.com/xplatform/ and the code of `wg`.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Protocol

from tunnel.config import PresharedKey, PrivateKey, PublicKey
from tunnel.io.endpoint import Endpoint

MAX_LINE = 1024
"""Bytes of the longest line read."""
MAX_LINES = 2_000_000
"""Lines of the longest `set`: enough for a million allowed IPs and more."""

_KEY_HEX = 64


class UapiError(Exception):
    """A request that cannot be carried out. `errno` is positive, as in the C library."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number


@dataclass(slots=True)
class PeerChange:
    """What a `set` asks of one peer. None leaves a value as it is.

    `allowed_ips` are networks with True to add and False to take away, in order.
    """

    public_key: PublicKey
    remove: bool = False
    update_only: bool = False
    preshared_key: PresharedKey | None = None
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None
    replace_allowed_ips: bool = False
    allowed_ips: list[tuple[IPv4Network | IPv6Network, bool]] = field(default_factory=list)


@dataclass(slots=True)
class DeviceChange:
    """What a `set` asks. None leaves a value as it is; `clear_private_key` takes the key away."""

    private_key: PrivateKey | None = None
    clear_private_key: bool = False
    listen_port: int | None = None
    fwmark: int | None = None
    replace_peers: bool = False
    peers: list[PeerChange] = field(default_factory=list)


class SetParser:
    """Reads the lines of one `set`, after `set=1` and up to the empty line."""

    def __init__(self) -> None:
        self.change = DeviceChange()
        self._peer: PeerChange | None = None
        self._lines = 0

    def read_untrusted(self, line: bytes) -> None:
        """Take one line, without its end. Raises UapiError: EPROTO without `=`, else EINVAL."""
        self._lines += 1
        if self._lines > MAX_LINES:
            raise UapiError(errno.E2BIG, f"a set of more than {MAX_LINES} lines")
        try:
            key, found, value = line.decode("ascii").partition("=")
        except UnicodeDecodeError:
            raise _invalid("a line", "is not ASCII") from None
        if not found:
            raise UapiError(errno.EPROTO, "a line without =")
        if key == "public_key":
            self._peer = PeerChange(PublicKey(_key(key, value)))
            self.change.peers.append(self._peer)
        elif self._peer is None:
            self._read_device(key, value)
        else:
            _read_peer(self._peer, key, value)

    def _read_device(self, key: str, value: str) -> None:
        change = self.change
        if key == "private_key":
            data = _key(key, value)
            change.clear_private_key = not any(data)
            change.private_key = PrivateKey(data) if any(data) else None
        elif key == "listen_port":
            change.listen_port = _number(key, value, 0xFFFF)
        elif key == "fwmark":
            change.fwmark = _number(key, value, 0xFFFFFFFF) if value else 0
        elif key == "replace_peers":
            change.replace_peers = _true(key, value)
        else:
            raise _invalid("a device", "has no such key")


def _read_peer(peer: PeerChange, key: str, value: str) -> None:
    if key == "allowed_ip":
        adds = not value.startswith("-")
        peer.allowed_ips.append((_network(value if adds else value[1:]), adds))
    elif key == "remove":
        peer.remove = _true(key, value)
    elif key == "update_only":
        peer.update_only = _true(key, value)
    elif key == "preshared_key":
        peer.preshared_key = PresharedKey(_key(key, value))
    elif key == "endpoint":
        peer.endpoint = _endpoint(value)
    elif key == "persistent_keepalive_interval":
        peer.persistent_keepalive = _number(key, value, 0xFFFF)
    elif key == "replace_allowed_ips":
        peer.replace_allowed_ips = _true(key, value)
        peer.allowed_ips.clear()
    elif key == "protocol_version":
        if value != "1":
            raise _invalid(key, "is not 1")
    else:
        raise _invalid("a peer", "has no such key")


def _invalid(what: str, problem: str) -> UapiError:
    """Never quotes the value: it may be a secret."""
    return UapiError(errno.EINVAL, f"{what} {problem}")


def _key(key: str, value: str) -> bytes:
    # bytes.fromhex alone would let white space through.
    if len(value) != _KEY_HEX or not value.isalnum():
        raise _invalid(key, f"is not {_KEY_HEX} hexadecimal digits")
    try:
        return bytes.fromhex(value)
    except ValueError:
        raise _invalid(key, f"is not {_KEY_HEX} hexadecimal digits") from None


def _number(key: str, value: str, largest: int) -> int:
    if not value.isdigit() or len(value) > 10 or int(value) > largest:
        raise _invalid(key, f"is not a number from 0 to {largest}")
    return int(value)


def _true(key: str, value: str) -> bool:
    if value != "true":
        raise _invalid(key, "can only be true")
    return True


def _network(value: str) -> IPv4Network | IPv6Network:
    address, slash, length = value.partition("/")
    width = 128 if ":" in address else 32
    if slash and not (length.isdigit() and len(length) <= 3 and int(length) <= width):
        raise _invalid("allowed_ip", f"has a prefix length that is not 0 to {width}")
    try:
        if width == 32:
            return IPv4Network(value, strict=False)
        if "%" in address:
            raise ValueError
        return IPv6Network(value, strict=False)
    except ValueError:
        raise _invalid("allowed_ip", "is not an address and a prefix length") from None


def _endpoint(value: str) -> Endpoint:
    host, _, port = value.rpartition(":")
    number = _number("endpoint's port", port, 0xFFFF)
    try:
        if not host.startswith("["):
            return Endpoint(socket.inet_pton(socket.AF_INET, host), number)
        if not host.endswith("]"):
            raise ValueError
        address = IPv6Address(host[1:-1])
        scope = address.scope_id or "0"
        index = int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
        if not 0 <= index <= 0xFFFFFFFF:
            raise ValueError
        return Endpoint.from_sockaddr((str(address), number, 0, index))
    except (OSError, ValueError):
        raise _invalid("endpoint", "is not an IP address and a port") from None


# --- What `get` answers --------------------------------------------------------------------------


class PeerState(Protocol):
    """What `get` tells of a peer; a peer of the protocol has it."""

    @property
    def public_key(self) -> PublicKey:
        """Its name."""

    @property
    def preshared_key(self) -> PresharedKey:
        """Zero if there is none."""

    endpoint: Endpoint | None
    last_handshake_unix_ns: int
    tx_bytes: int
    rx_bytes: int
    persistent_keepalive: int


def device_lines(private_key: PrivateKey | None, listen_port: int, fwmark: int) -> Iterator[str]:
    """The lines of the device, without line ends."""
    if private_key is not None:
        yield f"private_key={private_key.to_hex()}"
    if listen_port:
        yield f"listen_port={listen_port}"
    if fwmark:
        yield f"fwmark={fwmark}"


def peer_lines(peer: PeerState) -> Iterator[str]:
    """The lines of a peer but for its allowed IPs, without line ends."""
    yield f"public_key={peer.public_key.to_hex()}"
    yield f"preshared_key={peer.preshared_key.to_hex()}"
    yield "protocol_version=1"
    if peer.endpoint is not None:
        yield f"endpoint={peer.endpoint}"
    seconds, nanoseconds = divmod(peer.last_handshake_unix_ns, 1_000_000_000)
    yield f"last_handshake_time_sec={seconds}"
    yield f"last_handshake_time_nsec={nanoseconds}"
    yield f"tx_bytes={peer.tx_bytes}"
    yield f"rx_bytes={peer.rx_bytes}"
    yield f"persistent_keepalive_interval={peer.persistent_keepalive}"


def status_of(number: int, *, of_set: bool) -> bytes:
    """The end of an answer. `wg` wants the number negative on a set, positive on a get."""
    return f"errno={-number if of_set else number}\n\n".encode()
