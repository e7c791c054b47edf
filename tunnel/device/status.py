"""The status of a running tunnel, taken from its engine in slices: packets never wait for it."""

from __future__ import annotations

import os
import time

from tunnel.config import TunnelConfig
from tunnel.control.messages.status import PeerStatus, TunnelStatus
from tunnel.control.timeslice import Pace
from tunnel.device import allowed_ips
from tunnel.engine import Engine, Peer
from tunnel.io.errors import TunError
from tunnel.io.link import Link
from tunnel.io.path import path_mtu
from tunnel.io.tun import TunOffload

MAX_PATHS = 64


async def take_status(
    engine: Engine,
    config: TunnelConfig,
    *,
    name: str,
    secrets: bool = False,
    paths: bool = False,
    max_networks: int | None = None,
) -> TunnelStatus:
    """What the tunnel looks like now.

    With `secrets`, private and preshared keys too; with `paths`, the path MTU of the first
    `MAX_PATHS` peers, each of which costs three system calls. A peer that has more allowed IPs
    than `max_networks` shows their number instead. Each peer is shown as it is at one moment, but
    not all of them at the same.
    """
    pace = Pace()
    protocol = engine.interface
    peers = []
    for place, peer in enumerate(list(protocol.peers.values())):
        count = protocol.allowed_ips.count_of(peer)
        if max_networks is not None and count > max_networks:
            shown: tuple[str, ...] = (f"{count} networks",)
        else:
            shown = await allowed_ips.texts(engine, peer, pace)
        with_path = paths and place < MAX_PATHS
        peers.append(_peer_status(engine, peer, shown, secrets=secrets, path=with_path))
        await pace.step()
    private, public = protocol.private_key, protocol.public_key
    link = _link(engine)
    return TunnelStatus(
        name=name,
        public_key=public.to_base64() if public else None,
        private_key=private.to_base64() if private and secrets else None,
        listen_port=engine.udp.port,
        fwmark=engine.udp.fwmark,
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
        conf="" if config.path is None else str(config.path.absolute()),
    )


def _link(engine: Engine) -> Link | None:
    """The interface; None if it is out of our reach, or just being deleted."""
    try:
        return engine.tun.link()
    except TunError:
        return None


def _peer_status(
    engine: Engine, peer: Peer, shown: tuple[str, ...], *, secrets: bool, path: bool
) -> PeerStatus:
    psk = peer.preshared_key
    return PeerStatus(
        public_key=peer.public_key.to_base64(),
        has_preshared_key=not psk.is_zero,
        preshared_key=psk.to_base64() if secrets and not psk.is_zero else None,
        endpoint=None if peer.endpoint is None else str(peer.endpoint),
        allowed_ips=shown,
        latest_handshake=peer.last_handshake_unix_ns / 1e9,
        rx_bytes=peer.rx_bytes,
        tx_bytes=peer.tx_bytes,
        persistent_keepalive=peer.persistent_keepalive,
        path_mtu=path_mtu(peer.endpoint, engine.udp.fwmark) if path and peer.endpoint else None,
    )


def _offload_words(engine: Engine) -> dict[str, str]:
    granted = [str(flag.name).lower() for flag in TunOffload if flag & engine.tun.offloads]
    batches = [name for name, used in (("gso", engine.udp.gso), ("gro", engine.udp.gro)) if used]
    return {"tun": " ".join(granted) or "off", "udp": " ".join(batches) or "off"}
