"""The running tunnel as a conf: for `tunnel save` and SaveConfig.

As wg-quick does it, what was changed by hand since (`wg set`, `ip address`) is written down, and
what the machine chose by itself (a mark, an MTU) is not. A name stays a name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_address

import trio

from tunnel import config as confs
from tunnel import host
from tunnel.config import (
    AllowedIP,
    EndpointConfig,
    LineChange,
    PeerConfig,
    PresharedKey,
    PrivateKey,
    PublicKey,
    TunnelConfig,
)
from tunnel.control import uapi_client
from tunnel.control.timeslice import Pace
from tunnel.device.device import Device
from tunnel.errors import DaemonError
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import unpack

log = logging.getLogger("tunnel")


@dataclass(frozen=True, slots=True)
class Saved:
    """The lines that had to change, and `notes` on running values that no conf may have."""

    lines: tuple[LineChange, ...]
    notes: tuple[str, ...]


async def save(device: Device, config: TunnelConfig, *, auto_mark: int) -> Saved:
    """Write the running state into the conf; what that changed in it.

    `auto_mark` is the mark that was chosen and not configured. Raises ConfigErrors, with the file
    as it was, HostError, DaemonError.
    """
    link = await trio.to_thread.run_sync(host.interface_status, config.name)
    running = await _copy(device)
    # A conf of thousands of peers takes seconds: nothing of it is done in the event loop.
    saved = await trio.to_thread.run_sync(
        lambda: _write(describe_running(running, config, link, auto_mark=auto_mark))
    )
    for note in saved.notes:
        log.warning("%s", note)
    return saved


async def write(running: TunnelConfig) -> Saved:
    """Make the file of `running` say what it says. Raises ConfigErrors and DaemonError."""
    return await trio.to_thread.run_sync(_write, running)


def _write(running: TunnelConfig) -> Saved:
    path = running.path
    if path is None:
        raise DaemonError(f"{running.name} was not set up from a file, so there is none to save to")
    kept: list[confs.Problem] = []
    lines = confs.save(path, running, note=kept.append)
    return Saved(lines, tuple(map(str, kept)))


@dataclass(frozen=True, slots=True)
class _Running:
    """What the engine knows and a conf says, as it was at one moment."""

    private_key: PrivateKey | None
    port: int
    mark: int
    peers: list[_RunningPeer]


@dataclass(frozen=True, slots=True)
class _RunningPeer:
    """`networks` are those of `tunnel.protocol.pack`, `name` is that of the endpoint."""

    key: PublicKey
    preshared_key: PresharedKey
    networks: list[int]
    endpoint: Endpoint | None
    name: EndpointConfig | None
    keepalive: int


async def _copy(device: Device) -> _Running:
    """A copy for a thread. The caller sees to it that nobody changes the engine meanwhile."""
    pace = Pace()
    engine = device.engine
    protocol = engine.interface
    peers = []
    for peer in protocol.peers.values():
        peers.append(
            _RunningPeer(
                peer.public_key,
                peer.preshared_key,
                list(protocol.allowed_ips.packed_of(peer)),
                peer.endpoint,
                device.endpoints.name_of(peer.public_key),
                peer.persistent_keepalive,
            )
        )
        await pace.step()
    return _Running(protocol.private_key, engine.udp.port, engine.udp.fwmark, peers)


def describe_running(
    running: _Running,
    config: TunnelConfig,
    link: host.InterfaceStatus | None,
    *,
    auto_mark: int,
) -> TunnelConfig:
    """The conf that would set up what runs now. `link` is the interface as the kernel has it."""
    return merge_running(
        config,
        link,
        uapi_client.DeviceConfig(
            running.private_key,
            running.port,
            running.mark,
            tuple(map(_peer, running.peers)),
        ),
        auto_mark=auto_mark,
        names={peer.key: peer.name for peer in running.peers if peer.name is not None},
    )


def merge_running(
    config: TunnelConfig,
    link: host.InterfaceStatus | None,
    device: uapi_client.DeviceConfig,
    *,
    auto_mark: int,
    names: Mapping[PublicKey, EndpointConfig],
) -> TunnelConfig:
    """`config` with what `link` and `device` say. `names` has the endpoints that stay names."""
    interface = config.interface
    interface = replace(
        interface,
        private_key=device.private_key or interface.private_key,
        listen_port=device.listen_port,
        fwmark=interface.fwmark if device.fwmark == auto_mark else device.fwmark,
    )
    if link is not None:
        interface = replace(interface, addresses=_in_order(interface.addresses, link.addresses))
        if interface.mtu is not None:
            interface = replace(interface, mtu=link.mtu)
    before = {peer.public_key: peer for peer in config.peers}
    return replace(
        config,
        interface=interface,
        peers=tuple(
            replace(
                peer,
                preshared_key_file=_psk_file(before.get(peer.public_key), peer),
                endpoint=names.get(peer.public_key, peer.endpoint),
            )
            for peer in device.peers
        ),
    )


_Addresses = tuple[IPv4Interface | IPv6Interface, ...]


def _in_order(before: _Addresses, now: _Addresses) -> _Addresses:
    """The addresses there are now, those of the conf first and in its order."""
    return tuple(a for a in before if a in now) + tuple(a for a in now if a not in before)


def _psk_file(before: PeerConfig | None, now: PeerConfig) -> str | None:
    same = before is not None and before.preshared_key == now.preshared_key
    return before.preshared_key_file if before is not None and same else None


def _peer(peer: _RunningPeer) -> PeerConfig:
    return PeerConfig(
        public_key=peer.key,
        preshared_key=None if peer.preshared_key.is_zero else peer.preshared_key,
        allowed_ips=tuple(map(_allowed_ip, map(unpack, peer.networks))),
        endpoint=_endpoint(peer.endpoint),
        persistent_keepalive=peer.keepalive,
    )


def _allowed_ip(network: tuple[int, int, int]) -> AllowedIP:
    version, address, length = network
    return AllowedIP((IPv4Network if version == 4 else IPv6Network)((address, length)))


def _endpoint(endpoint: Endpoint | None) -> EndpointConfig | None:
    if endpoint is None:
        return None
    scope = f"%{endpoint.scope_id}" if endpoint.scope_id else ""
    return EndpointConfig(f"{ip_address(endpoint.address)}{scope}", endpoint.port)
