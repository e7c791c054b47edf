"""Facts of a healthy tunnel, and changes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tunnel import config
from tunnel.config import TunnelConfig
from tunnel.control.messages.status import PeerStatus, TunnelStatus
from tunnel.doctor import Facts, diagnose
from tunnel.doctor.facts import FirewallChain, FirewallRules, LinkFacts, Probe, RouteFacts

NOW = 1_800_000_000.0


OURS = "sE9TBlCJhbXQvUnvfGAQa1PqHQVnFuOCtMaBFOGFsXI="


THEIRS = "ip8X3Gpn4Z9hg2lnMfr1GU1yXvLkzrbPHvJ5vWFPXzo="


PEER = PeerStatus(
    public_key=THEIRS,
    has_preshared_key=False,
    preshared_key=None,
    endpoint="192.0.2.2:51820",
    allowed_ips=("10.77.0.2/32", "fd77::2/128"),
    latest_handshake=NOW - 30,
    rx_bytes=1000,
    tx_bytes=1000,
    persistent_keepalive=0,
)


STATUS = TunnelStatus(
    name="wg0",
    public_key=OURS,
    private_key=None,
    listen_port=51820,
    fwmark=0,
    mtu=1420,
    addresses=("10.77.0.1/24", "fd77::1/64"),
    datapath="native",
    offloads={"tun": "csum", "udp": "gso gro"},
    pid=1,
    peers=(PEER,),
    drops={},
)


PROBE = Probe("10.77.0.2", THEIRS, True, sent=True, answered=True, tried=1420, passed=1420)


CONF = """[Interface]
PrivateKey = qBd0UoN0zNBbzYgo4AuOlITJ0LEMe8Mw6fU5rFQXnE4=
{interface}
[Peer]
PublicKey = {key}
AllowedIPs = 10.77.0.2/32, fd77::2/128
{endpoint}
"""


def conf(*interface: str, key: str = THEIRS, endpoint: str = "192.0.2.2:51820") -> TunnelConfig:
    """The conf of the healthy tunnel, with more lines in [Interface]; empty: without Endpoint."""
    place = f"Endpoint = {endpoint}" if endpoint else ""
    text = CONF.format(interface="\n".join(interface), key=key, endpoint=place)
    return config.parse(text, name="wg0")


HEALTHY = Facts(
    "wg0",
    NOW,
    conf=conf(),
    before=STATUS,
    after=replace(STATUS, peers=(replace(PEER, rx_bytes=1200, tx_bytes=1200),)),
    links={
        "wg0": LinkFacts("wg0", True, 1420, ("10.77.0.1/24", "fd77::1/64")),
        "eth0": LinkFacts("eth0", True, 1500, ("192.0.2.1/24",)),
    },
    routes={"192.0.2.2": RouteFacts("eth0"), "10.77.0.2": RouteFacts("wg0")},
    unmarked={"192.0.2.2": RouteFacts("eth0")},
    sysctls={"net.ipv4.ip_forward": "0", "net.netfilter.nf_conntrack_udp_timeout_stream": "120"},
    probes=(PROBE,),
)


def with_peer(**changes: Any) -> Facts:
    """Healthy, but for the peer as it is at last."""
    peer = replace(PEER, **{"rx_bytes": 1200, "tx_bytes": 1200, **changes})
    return replace(HEALTHY, after=replace(STATUS, peers=(peer,)))


def silent(drops: dict[str, int] | None = None, **changes: Any) -> Facts:
    """The peer did not answer, and has never done so."""
    peer = replace(PEER, rx_bytes=0, latest_handshake=0.0)
    after = replace(STATUS, peers=(replace(peer, tx_bytes=1296),), drops=drops or {})
    return replace(
        HEALTHY,
        before=replace(STATUS, peers=(peer,)),
        after=after,
        probes=(replace(PROBE, answered=False, tried=0, passed=0),),
        **changes,
    )


def codes(facts: Facts) -> list[str]:
    report = diagnose(facts)
    for finding in (*report.findings, *report.notes):
        assert finding.what
        assert finding.evidence
        assert finding.remedy
    return [finding.code for finding in report.findings]


CLOSED = FirewallRules((FirewallChain("ip", "filter", "FORWARD", "forward", "drop"),))


def away(facts: Facts, **changes: Any) -> Facts:
    """The same, but packets to the peer's address go out by eth0."""
    routes = {**facts.routes, "10.77.0.2": RouteFacts("eth0")}
    return replace(facts, **{"routes": routes, **changes})
