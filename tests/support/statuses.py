"""The status of a tunnel with peers of every kind."""

from __future__ import annotations

from tunnel.control.messages.status import PeerStatus, TunnelStatus

STATUS = TunnelStatus(
    name="wg0",
    public_key="PUB=",
    private_key=None,
    listen_port=51820,
    fwmark=51820,
    mtu=1420,
    addresses=("10.77.0.1/24", "fd77::1/64"),
    datapath="native",
    cipher="ipsec-mb 1.3.0",
    offloads={"tun": "csum tso4", "udp": "off"},
    pid=42,
    peers=(
        PeerStatus(
            public_key="PEER=",
            has_preshared_key=True,
            preshared_key=None,
            endpoint="[2001:db8::2]:51820",
            allowed_ips=("10.77.0.2/32", "fd77::2/128"),
            latest_handshake=1000.0,
            rx_bytes=1536,
            tx_bytes=100,
            persistent_keepalive=25,
        ),
    ),
    drops={"replay": 1, "no_peer": 12},
)
