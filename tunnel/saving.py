"""The running tunnel as a conf: for `tunnel save` and SaveConfig.

As wg-quick does it, what was changed by hand since (`wg set`, `ip address`) is written down, and
what the machine chose by itself (a mark, an MTU) is not. A name stays a name.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Interface, IPv6Interface, ip_address

import trio

from tunnel import config as confs
from tunnel import host
from tunnel.config import AllowedIP, EndpointConfig, LineChange, PeerConfig, TunnelConfig
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
    path = config.path
    if path is None:
        raise DaemonError(f"{config.name} was not set up from a file, so there is none to save to")
    link = await trio.to_thread.run_sync(host.interface_status, config.name)
    running = describe_running(engine, config, link, auto_mark=auto_mark, names=names)
    kept: list[confs.Problem] = []
    lines = await trio.to_thread.run_sync(partial(confs.save, path, running, note=kept.append))
    for problem in kept:
        log.warning("%s", problem)
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
    interface = config.interface
    mark = engine.udp.fwmark
    interface = replace(
        interface,
        private_key=protocol.private_key or interface.private_key,
        listen_port=engine.udp.port,
        fwmark=interface.fwmark if mark == auto_mark else mark,
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
            _peer(engine, peer, before.get(peer.public_key), names)
            for peer in protocol.peers.values()
        ),
    )


_Addresses = tuple[IPv4Interface | IPv6Interface, ...]


def _in_order(before: _Addresses, now: _Addresses) -> _Addresses:
    """The addresses there are now, those of the conf first and in its order."""
    return tuple(a for a in before if a in now) + tuple(a for a in now if a not in before)


def _peer(engine: Engine, peer: Peer, before: PeerConfig | None, names: Names) -> PeerConfig:
    psk = None if peer.preshared_key.is_zero else peer.preshared_key
    same_psk = before is not None and before.preshared_key == psk
    return PeerConfig(
        public_key=peer.public_key,
        preshared_key=psk,
        preshared_key_file=before.preshared_key_file if before and same_psk else None,
        allowed_ips=tuple(AllowedIP(net) for net in engine.interface.allowed_ips.of(peer)),
        endpoint=names.name_of(peer.public_key) or _endpoint(peer),
        persistent_keepalive=peer.persistent_keepalive,
    )


def _endpoint(peer: Peer) -> EndpointConfig | None:
    endpoint = peer.endpoint
    if endpoint is None:
        return None
    scope = f"%{endpoint.scope_id}" if endpoint.scope_id else ""
    return EndpointConfig(f"{ip_address(endpoint.address)}{scope}", endpoint.port)
