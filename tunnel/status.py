"""The status of a running tunnel, taken from its engine."""

from __future__ import annotations

import os
import time

from tunnel.config import TunnelConfig
from tunnel.engine import Engine, Peer
from tunnel.io.errors import TunError
from tunnel.io.link import Link
from tunnel.io.path import path_mtu
from tunnel.io.tun import TunOffload
from tunnel.observe.status import PeerStatus, TunnelStatus

MAX_PATHS = 64


def take_status(
    engine: Engine,
    config: TunnelConfig,
    *,
    name: str,
    secrets: bool = False,
    paths: bool = False,
) -> TunnelStatus:
    """What the tunnel looks like now.

    With `secrets`, private and preshared keys too; with `paths`, the path MTU of the first
    `MAX_PATHS` peers, each of which costs three system calls.
    """
    protocol = engine.interface
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
        peers=tuple(
            _peer_status(engine, peer, secrets=secrets, path=paths and place < MAX_PATHS)
            for place, peer in enumerate(protocol.peers.values())
        ),
        drops=engine.drops(),
        cpu_seconds=time.process_time(),
        device="" if link is None else link.name,
        here=link is None or link.here,
    )


def _link(engine: Engine) -> Link | None:
    """The interface; None if it is out of our reach, or just being deleted."""
    try:
        return engine.tun.link()
    except TunError:
        return None


def _peer_status(engine: Engine, peer: Peer, *, secrets: bool, path: bool) -> PeerStatus:
    psk = peer.preshared_key
    return PeerStatus(
        public_key=peer.public_key.to_base64(),
        has_preshared_key=not psk.is_zero,
        preshared_key=psk.to_base64() if secrets and not psk.is_zero else None,
        endpoint=None if peer.endpoint is None else str(peer.endpoint),
        allowed_ips=tuple(map(str, engine.interface.allowed_ips.of(peer))),
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
