"""The status of a running tunnel, taken from its engine."""

from __future__ import annotations

import os

from tunnel.config import TunnelConfig
from tunnel.engine import Engine, Peer
from tunnel.io.tun import TunOffload
from tunnel.observe.status import PeerStatus, TunnelStatus


def take_status(
    engine: Engine, config: TunnelConfig, *, name: str, secrets: bool = False
) -> TunnelStatus:
    """What the tunnel looks like now. With `secrets`, private and preshared keys too."""
    protocol = engine.interface
    private, public = protocol.private_key, protocol.public_key
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
            _peer_status(engine, peer, secrets=secrets) for peer in protocol.peers.values()
        ),
        drops=engine.drops(),
    )


def _peer_status(engine: Engine, peer: Peer, *, secrets: bool) -> PeerStatus:
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
    )


def _offload_words(engine: Engine) -> dict[str, str]:
    granted = [str(flag.name).lower() for flag in TunOffload if flag & engine.tun.offloads]
    batches = [name for name, used in (("gso", engine.udp.gso), ("gro", engine.udp.gro)) if used]
    return {"tun": " ".join(granted) or "off", "udp": " ".join(batches) or "off"}
