"""The other side of the UAPI: what `wg` does, for a daemon of anybody's.

Source: https://www.wireguard.com/xplatform/, "Configuration Protocol".
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path

from tunnel.config import (
    AllowedIP,
    EndpointConfig,
    PeerConfig,
    PresharedKey,
    PrivateKey,
    PublicKey,
    TunnelConfig,
)
from tunnel.errors import TunnelError
from tunnel.io.endpoint import Endpoint

TIMEOUT = 60.0
"""Seconds for one answer; 100,000 networks take some."""

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Device:
    """What runs: keys, sockets and peers of an interface, whoever carries its packets."""

    private_key: PrivateKey | None
    listen_port: int
    fwmark: int
    peers: tuple[PeerConfig, ...]


class UapiClientError(TunnelError):
    """The daemon refused, or does not answer; the text says what."""

    code = "uapi_client"


def get(path: Path) -> Device:
    """What the daemon that listens at `path` has. Raises UapiClientError. Blocks."""
    return _parse(_ask(path, "get=1\n\n"))


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
    _ask(path, "".join(_render(config, endpoints, fwmark)))


def set_fwmark(path: Path, fwmark: int) -> None:
    """Mark its packets with another number. Raises UapiClientError. Blocks."""
    _ask(path, f"set=1\nfwmark={fwmark}\n\n")


def _render(
    config: TunnelConfig, endpoints: Mapping[PublicKey, Endpoint], fwmark: int
) -> Iterator[str]:
    interface = config.interface
    yield f"set=1\nprivate_key={interface.private_key.to_hex()}\n"
    if interface.listen_port:
        yield f"listen_port={interface.listen_port}\n"
    yield f"fwmark={fwmark}\nreplace_peers=true\n"
    for peer in config.peers:
        yield f"public_key={peer.public_key.to_hex()}\n"
        if peer.preshared_key is not None:
            yield f"preshared_key={peer.preshared_key.to_hex()}\n"
        if peer.public_key in endpoints:
            yield f"endpoint={endpoints[peer.public_key]}\n"
        yield f"persistent_keepalive_interval={peer.persistent_keepalive}\n"
        yield "replace_allowed_ips=true\n"
        for network in peer.networks:
            yield f"allowed_ip={network}\n"
    yield "\n"


def _ask(path: Path, request: str) -> list[tuple[str, str]]:
    """The key=value pairs of the answer, without its errno, which is 0."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(str(path))
            connection.sendall(request.encode())
            answer = bytearray()
            while not answer.endswith(b"\n\n"):
                chunk = connection.recv(_CHUNK)
                if not chunk:
                    raise UapiClientError(f"{path}: the daemon hung up before its answer was whole")
                answer += chunk
    except OSError as error:
        raise UapiClientError(f"{path}: {error.strerror or error}") from error
    lines = answer.decode("utf-8", "replace").split("\n")
    pairs = [(key, value) for key, _, value in (line.partition("=") for line in lines) if key]
    code = pairs.pop()[1] if pairs and pairs[-1][0] == "errno" else str(errno.EPROTO)
    if code != "0":
        number = code.removeprefix("-")
        reason = os.strerror(int(number)) if number.isdecimal() else code
        raise UapiClientError(f"{path}: the daemon refused: {reason}")
    return pairs


def _parse(pairs: list[tuple[str, str]]) -> Device:
    private_key: PrivateKey | None = None
    sockets = {"listen_port": 0, "fwmark": 0}
    peers: list[PeerConfig] = []
    networks: list[list[AllowedIP]] = []
    try:
        for key, value in pairs:
            if key == "public_key":
                peers.append(PeerConfig(PublicKey.from_hex(value)))
                networks.append([])
            elif key == "allowed_ip":
                networks[-1].append(AllowedIP(ip_network(value)))
            elif key == "private_key":
                private_key = PrivateKey.from_hex(value)
            elif key in sockets:
                sockets[key] = int(value)
            elif peers:
                peers[-1] = _with(peers[-1], key, value)
    except (ValueError, IndexError) as error:
        raise UapiClientError(
            f"an answer that makes no sense: {key} = {len(value)} characters"
        ) from error
    return Device(
        private_key,
        sockets["listen_port"],
        sockets["fwmark"],
        tuple(
            replace(peer, allowed_ips=tuple(allowed))
            for peer, allowed in zip(peers, networks, strict=True)
        ),
    )


def _with(peer: PeerConfig, key: str, value: str) -> PeerConfig:
    match key:
        case "preshared_key":
            psk = PresharedKey.from_hex(value)
            return replace(peer, preshared_key=None if psk.is_zero else psk)
        case "endpoint":
            host, _, port = value.rpartition(":")
            return replace(peer, endpoint=EndpointConfig(host.strip("[]"), int(port)))
        case "persistent_keepalive_interval":
            return replace(peer, persistent_keepalive=int(value))
        case _:
            return peer
