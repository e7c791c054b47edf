"""The running tunnel as a conf: for `tunnel save` and SaveConfig.

As wg-quick does it, what was changed by hand since (`wg set`, `ip address`) is written down, and
what the machine chose by itself (a mark, an MTU) is not. A name stays a name.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_address
from pathlib import Path

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
from tunnel.config.limits import Quota, RateLimit
from tunnel.control.snapshot import DeviceSnapshot, PeerSnapshot
from tunnel.daemon.host_state import Location
from tunnel.device.device import Device
from tunnel.device.status import take_snapshot
from tunnel.errors import DaemonError
from tunnel.io.endpoint import Endpoint
from tunnel.linux.files import RUN_FOLDER, replace_file
from tunnel.protocol import unpack

log = logging.getLogger("tunnel")


@dataclass(frozen=True, slots=True)
class Saved:
    """The lines that had to change, and `notes`: what is doubtful in the conf, was not saved, or
    was kept elsewhere. `status` is that of the file as it is after, `peers` are those in it.
    """

    lines: tuple[LineChange, ...]
    notes: tuple[str, ...]
    status: os.stat_result
    peers: tuple[PeerConfig, ...]


Address = IPv4Interface | IPv6Interface
Addresses = tuple[Address, ...]


async def save(
    device: Device,
    config: TunnelConfig,
    place: Location,
    *,
    auto_mark: int,
    by_hooks: Collection[Address] = (),
) -> Saved:
    """Write the running state into the conf; what that changed in it.

    `auto_mark` is the mark that was chosen and not configured, `by_hooks` are addresses that hooks
    have added, and will add again. Raises ConfigErrors, with the file as it was, HostError,
    DaemonError.
    """
    # A conf of thousands of peers takes seconds: nothing of it is done in the event loop.
    running = await _running(device, config, place, auto_mark, by_hooks)
    saved = await trio.to_thread.run_sync(_write, running)
    for note in saved.notes:
        log.warning("%s", note)
    return saved


async def keep_copy(
    device: Device,
    config: TunnelConfig,
    place: Location,
    *,
    auto_mark: int,
    by_hooks: Collection[Address] = (),
) -> Path | None:
    """Write the running state, which cannot be saved, beside our sockets; where.

    None if it is what the conf says anyway. Raises OSError, ConfigErrors, HostError.
    """
    running = await _running(device, config, place, auto_mark, by_hooks)
    if running == config:
        return None
    return await trio.to_thread.run_sync(write_copy, running)


def write_copy(running: TunnelConfig) -> Path:
    """Write it beside our sockets; where. Raises OSError and ConfigErrors."""
    path = RUN_FOLDER / f"{running.name}.unsaved.conf"
    replace_file(path, confs.dump(running))
    return path


async def _running(
    device: Device,
    config: TunnelConfig,
    place: Location,
    auto_mark: int,
    by_hooks: Collection[Address],
) -> TunnelConfig:
    link = None
    # In a spare namespace it has nothing of the conf.
    if not place.spare:
        look = partial(host.interface_status, config.name, netns=place.netns)
        link = await trio.to_thread.run_sync(look)
    if link is not None:
        own = config.interface.addresses
        kept = tuple(each for each in link.addresses if each in own or each not in by_hooks)
        if config.interface.options.bridge:
            kept = own  # those of the bridge, which may have others
        link = replace(link, addresses=kept)
    snapshot = await take_snapshot(device.engine)
    names = device.endpoints.names()
    return await trio.to_thread.run_sync(
        lambda: merge_running(config, link, snapshot, auto_mark=auto_mark, names=names)
    )


async def write(running: TunnelConfig) -> Saved:
    """Make the file of `running` say what it says. Raises ConfigErrors and DaemonError."""
    return await trio.to_thread.run_sync(_write, running)


def _write(running: TunnelConfig) -> Saved:
    path = running.path
    if path is None:
        raise DaemonError(f"{running.name} was not set up from a file, so there is none to save to")
    host.check_save_target(path)
    kept: list[confs.Problem] = []
    lines = confs.save(path, running, note=kept.append)
    return Saved(lines, tuple(map(str, kept)), os.stat(path), running.peers)


def merge_running(
    config: TunnelConfig,
    link: host.InterfaceStatus | None,
    running: DeviceSnapshot,
    *,
    auto_mark: int,
    names: Mapping[PublicKey, EndpointConfig],
) -> TunnelConfig:
    """The conf that would set up what runs: `config` with what is `running` in it.

    `link` is the interface as the kernel has it, None if it is out of reach. `auto_mark` is the
    mark that was chosen and not configured. `names` has the endpoints that stay names.
    """
    interface = config.interface
    # A key that the conf leaves to a hook is kept elsewhere for a reason.
    private_key = interface.private_key and (running.private_key or interface.private_key)
    interface = replace(
        interface,
        private_key=private_key,
        listen_port=running.listen_port,
        fwmark=interface.fwmark if running.fwmark == auto_mark else running.fwmark,
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
            _peer(peer, before.get(peer.public_key), names.get(peer.public_key))
            for peer in running.peers
        ),
    )


def _in_order(before: Addresses, now: Addresses) -> Addresses:
    """The addresses there are now, those of the conf first and in its order."""
    return tuple(a for a in before if a in now) + tuple(a for a in now if a not in before)


def _peer(peer: PeerSnapshot, before: PeerConfig | None, name: EndpointConfig | None) -> PeerConfig:
    same = before is not None and before.preshared_key == peer.preshared_key
    return PeerConfig(
        public_key=peer.public_key,
        preshared_key=peer.preshared_key,
        preshared_key_file=before.preshared_key_file if before is not None and same else None,
        allowed_ips=tuple(map(_allowed_ip, map(unpack, peer.networks))),
        endpoint=name or _endpoint(peer.endpoint),
        persistent_keepalive=peer.persistent_keepalive,
        rate_limit=RateLimit() if before is None else before.rate_limit,
        quota=Quota() if before is None else before.quota,
    )


def _allowed_ip(network: tuple[int, int, int]) -> AllowedIP:
    version, address, length = network
    return AllowedIP((IPv4Network if version == 4 else IPv6Network)((address, length)))


def _endpoint(endpoint: Endpoint | None) -> EndpointConfig | None:
    if endpoint is None:
        return None
    scope = f"%{endpoint.scope_id}" if endpoint.scope_id else ""
    return EndpointConfig(f"{ip_address(endpoint.address)}{scope}", endpoint.port)
