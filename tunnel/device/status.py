"""A snapshot of a running device, and its status as text: in slices, packets never wait for it."""

from __future__ import annotations

import contextlib
import os
import socket
import time

from tunnel.config import TunnelConfig
from tunnel.control.messages.status import (
    NO_LIMITS,
    SHORT_TAIL,
    DaemonRights,
    PeerLimits,
    PeerStatus,
    TunnelStatus,
)
from tunnel.control.snapshot import DeviceSnapshot, PeerSnapshot
from tunnel.control.timeslice import Pace, let_go
from tunnel.device import allowed_ips
from tunnel.engine import Engine, Peer
from tunnel.host.links import is_tunnel
from tunnel.host.route_messages import look_up
from tunnel.io.endpoint import path_mtu
from tunnel.io.errors import TunError
from tunnel.io.link import TunLink
from tunnel.io.tun import TunOffload
from tunnel.linux.rights import held_by, names_of
from tunnel.protocol import ProtocolDrop

MAX_PATHS = 64
MAX_OUTER = 8
"""Peers whose route is looked up for `nested_in`: those of a nested tunnel share it, mostly."""


async def take_snapshot(engine: Engine, *, max_networks: int | None = None) -> DeviceSnapshot:
    """Its keys, sockets and peers now, without the allowed IPs of a peer that has more than
    `max_networks` of them.

    Each peer is as it is at one moment, but not all of them at the same, unless the caller makes
    sure that nothing changes the engine meanwhile.
    """
    pace = Pace()
    protocol = engine.interface
    peers = []
    for peer in list(protocol.peers.values()):
        count = protocol.allowed_ips.count_of(peer)
        networks: list[int] = []
        if max_networks is None or count <= max_networks:
            for packed in protocol.allowed_ips.packed_of(peer):
                networks.append(packed)
                await pace.step()
        peers.append(
            PeerSnapshot(
                public_key=peer.public_key,
                preshared_key=None if peer.preshared_key.is_zero else peer.preshared_key,
                endpoint=peer.endpoint,
                networks=networks,
                network_count=count,
                last_handshake_unix_ns=peer.last_handshake_unix_ns,
                rx_bytes=peer.rx_bytes,
                tx_bytes=peer.tx_bytes,
                persistent_keepalive=peer.persistent_keepalive,
                staged_frames=peer.staged_frames,
                is_connected=peer.is_connected,
                limits=_limits(engine, peer),
            )
        )
        await pace.step()
    return DeviceSnapshot(protocol.private_key, engine.udp.port, engine.udp.fwmark, tuple(peers))


async def take_status(
    engine: Engine, config: TunnelConfig, *, secrets: bool = False, paths: bool = False
) -> TunnelStatus:
    """What the tunnel looks like now, as text. `secrets` and `paths` as for `describe`."""
    snapshot = await take_snapshot(engine)
    return await describe(snapshot, engine, config, secrets=secrets, paths=paths)


async def describe(
    snapshot: DeviceSnapshot,
    engine: Engine,
    config: TunnelConfig,
    *,
    secrets: bool = False,
    paths: bool = False,
) -> TunnelStatus:
    """What the tunnel looks like, as text. `snapshot` is of `engine`, and is used up: the networks
    in it are freed in slices.

    With `secrets`, private and preshared keys too; with `paths`, the path MTU of the first
    `MAX_PATHS` peers, each of which costs three system calls. Allowed IPs that the snapshot left
    out are shown as their number.
    """
    pace = Pace()
    peers = []
    comments = {}
    for each in config.peers:
        if each.friendly_name or each.expires is not None:
            comments[each.public_key] = each.friendly_name, each.expires or 0.0
        await pace.step()
    for place, peer in enumerate(snapshot.peers):
        if len(peer.networks) < peer.network_count:
            shown: tuple[str, ...] = (f"{peer.network_count} networks",)
        else:
            shown = await allowed_ips.texts(peer.networks, pace)
            await let_go(peer.networks)
        mtu = None
        if paths and place < MAX_PATHS and peer.endpoint is not None:
            mtu = path_mtu(peer.endpoint, snapshot.fwmark)
        macs = None if engine.switching is None else engine.switching.count_of(peer.public_key)
        comment = comments.get(peer.public_key, ("", 0.0))
        peers.append(_peer_status(peer, comment, shown, mtu, macs, secrets=secrets))
        await pace.step()
    private = snapshot.private_key
    link = _link(engine)
    return TunnelStatus(
        name=config.name,
        public_key=None if private is None else private.public_key().to_base64(),
        private_key=private.to_base64() if private is not None and secrets else None,
        listen_port=snapshot.listen_port,
        fwmark=snapshot.fwmark,
        mtu=engine.mtu,
        addresses=tuple(map(str, config.interface.addresses)),
        datapath=engine.datapath.name,
        offloads=_offload_words(engine),
        pid=os.getpid(),
        peers=tuple(peers),
        drops=engine.drops(),
        cpu_seconds=time.process_time(),
        device="" if link is None else link.name,
        here=link is None or link.here,
        device_netns=0 if link is None else link.netns,
        conf="" if config.path is None else str(config.path.absolute()),
        mode="tap" if engine.tun.tap else "tun",
        nested_in=_outer_tunnels(snapshot, "" if link is None else link.name),
        rights=_rights(),
        cipher=engine.datapath.cipher,
    )


def _rights() -> DaemonRights:
    held = held_by()
    if held is None:
        return DaemonRights()
    return DaemonRights(
        uid=held.uid,
        capabilities=names_of(held.capabilities),
        reserve=names_of(held.reserve),
        no_new_privs=held.no_new_privs,
        seccomp=held.filters,
        memory_locked=held.locked,
    )


def _outer_tunnels(snapshot: DeviceSnapshot, own: str) -> tuple[str, ...]:
    """The tunnels but our `own` through which the kernel sends what goes to the peers."""
    addresses = dict.fromkeys(
        (peer.endpoint.address, peer.endpoint.scope_id)
        for peer in snapshot.peers[:MAX_OUTER]
        if peer.endpoint is not None
    )
    found = set()
    for address, scope in addresses:
        with contextlib.suppress(OSError):
            route = look_up(address, mark=snapshot.fwmark, device=scope)
            found |= {socket.if_indextoname(index) for index in route.devices}
    return tuple(sorted(name for name in found - {own} if is_tunnel(name)))


def _link(engine: Engine) -> TunLink | None:
    """The interface; None if it is out of our reach, or just being deleted."""
    try:
        return engine.tun.link()
    except TunError:
        return None


def _peer_status(
    peer: PeerSnapshot,
    comment: tuple[str, float],
    shown: tuple[str, ...],
    mtu: int | None,
    macs: int | None,
    *,
    secrets: bool,
) -> PeerStatus:
    psk = peer.preshared_key
    return PeerStatus(
        public_key=peer.public_key.to_base64(),
        has_preshared_key=psk is not None,
        preshared_key=psk.to_base64() if psk is not None and secrets else None,
        endpoint=None if peer.endpoint is None else str(peer.endpoint),
        allowed_ips=shown,
        latest_handshake=peer.last_handshake_unix_ns / 1e9,
        rx_bytes=peer.rx_bytes,
        tx_bytes=peer.tx_bytes,
        persistent_keepalive=peer.persistent_keepalive,
        path_mtu=mtu,
        macs=macs,
        name=comment[0],
        expires=comment[1],
        connected=peer.is_connected,
        limits=peer.limits,
    )


def _limits(engine: Engine, peer: Peer) -> PeerLimits:
    limit = engine.metering.limit_of(peer)
    if limit is None:
        return NO_LIMITS
    use = limit.quota
    return PeerLimits(
        rate_to=limit.rate.to,
        rate_from=limit.rate.from_,
        rate=str(limit.rate) if any(limit.rate) else "",
        quota=0 if use is None else use.quota.size,
        quota_used=0 if use is None else use.used,
        quota_period="" if use is None else use.quota.period,
        quota_since=0 if use is None else use.begun,
        over_rate=peer.drops.get(ProtocolDrop.OVER_RATE, 0),
        over_quota=peer.drops.get(ProtocolDrop.OVER_QUOTA, 0),
    )


def _offload_words(engine: Engine) -> dict[str, str]:
    granted = [str(flag.name).lower() for flag in TunOffload if flag & engine.tun.offloads]
    gso, gro = engine.udp.gso, engine.udp.gro
    used = {"gso": gso, SHORT_TAIL: gso and engine.short_tails, "gro": gro}
    batches = [name for name, is_used in used.items() if is_used]
    return {"tun": " ".join(granted) or "off", "udp": " ".join(batches) or "off"}
