"""The client's side of the UAPI: what `wg` does, for any userspace WireGuard.

Source: https://www.wireguard.com/xplatform/, "Configuration Protocol".
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from tunnel.config import PrivateKey, PublicKey, TunnelConfig
from tunnel.control.snapshot import DeviceSnapshot, PeerSnapshot
from tunnel.control.uapi_changes import (
    DeviceChange,
    PeerChange,
    ReplacePeers,
    SetFwmark,
    SetListenPort,
    SetPrivateKey,
)
from tunnel.control.uapi_grammar import Parser, UapiError, render_changes
from tunnel.errors import TunnelError
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import pack

TIMEOUT = 60.0
"""Seconds for one answer; 100,000 networks take some."""

_CHUNK = 1 << 20
_ERRNO = re.compile(r"-?[0-9]{1,4}")


class UapiClientError(TunnelError):
    """The daemon refused, or does not answer; the text says what."""

    code = "uapi_client"

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno
        """The error number by which the daemon refused; 0 if it did not."""


def get(path: Path) -> DeviceSnapshot:
    """What the daemon that listens at `path` has. Raises UapiClientError. Blocks."""
    return _snapshot_untrusted(_ask(path, "get=1\n\n"))


def set_config(
    path: Path,
    config: TunnelConfig,
    endpoints: Mapping[PublicKey, Endpoint],
    *,
    fwmark: int,
) -> None:
    """Give the daemon keys, port and peers of `config`, these being all it has then.

    `endpoints` are where the peers are, names resolved. Raises UapiClientError. Blocks.
    """
    interface = config.interface
    port = [SetListenPort(interface.listen_port)] if interface.listen_port else []
    peers = [
        PeerChange(
            peer.public_key,
            preshared_key=peer.preshared_key,
            endpoint=endpoints.get(peer.public_key),
            persistent_keepalive=peer.persistent_keepalive,
            replace_allowed_ips=True,
            allowed_ips=dict.fromkeys(map(_packed, peer.networks), True),
        )
        for peer in config.peers
    ]
    # Without one, the key that PreUp has set stays.
    key = [SetPrivateKey(interface.private_key)] if interface.private_key is not None else []
    _set(path, [*key, *port, SetFwmark(fwmark), ReplacePeers(), *peers])


def set_fwmark(path: Path, fwmark: int) -> None:
    """Mark its packets with another number. Raises UapiClientError. Blocks."""
    _set(path, [SetFwmark(fwmark)])


def _set(path: Path, changes: Sequence[DeviceChange]) -> None:
    _ask(path, "".join(["set=1\n", *render_changes(changes), "\n"]))


def _packed(network: IPv4Network | IPv6Network) -> int:
    return pack(network.version, int(network.network_address), network.prefixlen)


def _ask(path: Path, request: str) -> list[str]:
    """The lines of the answer, without its errno, which is 0."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(str(path))
            connection.sendall(request.encode())
            answer = bytearray()
            while not answer.endswith(b"\n\n"):
                chunk = connection.recv(_CHUNK)
                if not chunk:
                    raise UapiClientError(
                        f"{path}: the daemon closed the connection before its answer was complete"
                    )
                answer += chunk
    except OSError as error:
        raise UapiClientError(f"{path}: {error.strerror or error}") from error
    return _lines_untrusted(path, bytes(answer))


def _lines_untrusted(path: Path, answer: bytes) -> list[str]:
    *lines, last = answer.decode("utf-8", "replace").rstrip("\n").split("\n")
    key, _, code = last.partition("=")
    if key != "errno":
        code = str(errno.EPROTO)
    if code != "0":
        number = abs(int(code)) if _ERRNO.fullmatch(code) else 0
        reason = os.strerror(number) if number else code
        raise UapiClientError(f"{path}: the daemon refused: {reason}", number or errno.EPROTO)
    return lines


def _snapshot_untrusted(lines: list[str]) -> DeviceSnapshot:
    parser = Parser(of_answer=True)
    for line in lines:
        try:
            parser.feed_untrusted(line)
        except UapiError as error:
            key, _, value = line.partition("=")
            raise UapiClientError(
                f"an answer that cannot be understood: "
                f"{key[:32]} = {len(value)} characters ({error})"
            ) from error
    private_key: PrivateKey | None = None
    listen_port = fwmark = 0
    peers = []
    for change in parser.changes:
        match change:
            case SetPrivateKey():
                private_key = change.key
            case SetListenPort():
                listen_port = change.port
            case SetFwmark():
                fwmark = change.fwmark
            case PeerChange():
                peers.append(_peer(change))
    return DeviceSnapshot(private_key, listen_port, fwmark, tuple(peers))


def _peer(peer: PeerChange) -> PeerSnapshot:
    psk = peer.preshared_key
    return PeerSnapshot(
        peer.public_key,
        preshared_key=None if psk is None or psk.is_zero else psk,
        endpoint=peer.endpoint,
        networks=list(peer.allowed_ips),
        network_count=len(peer.allowed_ips),
        persistent_keepalive=peer.persistent_keepalive or 0,
    )
