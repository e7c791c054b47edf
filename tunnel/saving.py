"""The running tunnel as a conf: for `tunnel save` and SaveConfig.

As wg-quick does it, what was changed by hand since (`wg set`, `ip address`) is written down, and
what the machine chose by itself (a mark, an MTU) is not. A name stays a name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Interface, IPv6Interface, ip_address

import trio

from tunnel import config as confs
from tunnel import host
from tunnel.config import (
    AllowedIP,
    EndpointConfig,
    LineChange,
    PeerConfig,
    PublicKey,
    TunnelConfig,
)
from tunnel.control.uapi_client import Device
from tunnel.engine import Engine, Peer
from tunnel.errors import DaemonError
from tunnel.names import Names

log = logging.getLogger("tunnel")


@dataclass(frozen=True, slots=True)
class Saved:
    """The lines that had to change, and `notes` on running values that no conf may have."""

    lines: tuple[LineChange, ...]
    notes: tuple[str, ...]


async def save(engine: Engine, config: TunnelConfig, *, auto_mark: int, names: Names) -> Saved:
    """Write the running state into the conf; what that changed in it.

    `auto_mark` is the mark that was chosen and not configured. Raises ConfigErrors, with the file
    as it was, HostError, DaemonError.
    """
    link = await trio.to_thread.run_sync(host.interface_status, config.name)
    running = describe_running(engine, config, link, auto_mark=auto_mark, names=names)
    saved = await write(running)
    for note in saved.notes:
        log.warning("%s", note)
    return saved


async def write(running: TunnelConfig) -> Saved:
    """Make the file of `running` say what it says. Raises ConfigErrors and DaemonError."""
    path = running.path
    if path is None:
        raise DaemonError(f"{running.name} was not set up from a file, so there is none to save to")
    kept: list[confs.Problem] = []
    lines = await trio.to_thread.run_sync(partial(confs.save, path, running, note=kept.append))
    return Saved(lines, tuple(map(str, kept)))


def describe_running(
    engine: Engine,
    config: TunnelConfig,
    link: host.InterfaceStatus | None,
    *,
    auto_mark: int,
    names: Names,
) -> TunnelConfig:
    """The conf that would set up what runs now. `link` is the interface as the kernel has it."""
    protocol = engine.interface
    names_of = {key: names.name_of(key) for key in protocol.peers}
    return merge_running(
        config,
        link,
        Device(
            protocol.private_key,
            engine.udp.port,
            engine.udp.fwmark,
            tuple(_peer(engine, peer) for peer in protocol.peers.values()),
        ),
        auto_mark=auto_mark,
        names={key: name for key, name in names_of.items() if name is not None},
    )


def merge_running(
    config: TunnelConfig,
    link: host.InterfaceStatus | None,
    device: Device,
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


def _peer(engine: Engine, peer: Peer) -> PeerConfig:
    return PeerConfig(
        public_key=peer.public_key,
        preshared_key=None if peer.preshared_key.is_zero else peer.preshared_key,
        allowed_ips=tuple(AllowedIP(net) for net in engine.interface.allowed_ips.of(peer)),
        endpoint=_endpoint(peer),
        persistent_keepalive=peer.persistent_keepalive,
    )


def _endpoint(peer: Peer) -> EndpointConfig | None:
    endpoint = peer.endpoint
    if endpoint is None:
        return None
    scope = f"%{endpoint.scope_id}" if endpoint.scope_id else ""
    return EndpointConfig(f"{ip_address(endpoint.address)}{scope}", endpoint.port)
