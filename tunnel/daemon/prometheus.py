"""A tunnel's metrics in Prometheus' text format.

`wireguard_*` are the names and labels that the common WireGuard exporter uses, so that dashboards
made for it work; what it cannot know of is called `tunnel_*`. Loaded at the first scrape: the
library brings a web server and a reader of mail, and most tunnels are never scraped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tunnel.control.messages.status import NO_LIMITS, PeerStatus
from tunnel.daemon.meter import Metrics

PEER_LABELS = ("interface", "public_key", "allowed_ips", "friendly_name")


def render(metrics: Metrics) -> bytes:
    """The text a scraper gets, with the process' own CPU, memory and descriptors."""
    registry = CollectorRegistry()
    registry.register(_Once(metrics))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Once(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from _of_peers(self._metrics)
        yield from _of_limits(self._metrics)
        yield from _of_interface(self._metrics)


def _of_peers(metrics: Metrics) -> Iterator[Metric]:
    sent = CounterMetricFamily(
        "wireguard_sent_bytes", "Bytes of UDP payload sent to the peer.", labels=PEER_LABELS
    )
    received = CounterMetricFamily(
        "wireguard_received_bytes", "Bytes of UDP payload from the peer.", labels=PEER_LABELS
    )
    handshake = GaugeMetricFamily(
        "wireguard_latest_handshake_seconds",
        "Unix time of the latest handshake, 0 before the first.",
        labels=PEER_LABELS,
    )
    status = metrics.status
    for peer in status.peers:
        labels = _labels(status.name, peer)
        sent.add_metric(labels, peer.tx_bytes)
        received.add_metric(labels, peer.rx_bytes)
        handshake.add_metric(labels, peer.latest_handshake)
    yield from (sent, received, handshake)


def _of_limits(metrics: Metrics) -> Iterator[Metric]:
    connected = GaugeMetricFamily(
        "tunnel_peer_connected",
        "Whether there is a session that both sides have confirmed.",
        labels=PEER_LABELS,
    )
    rate = GaugeMetricFamily(
        "tunnel_peer_rate_limit_bits",
        "Bits a second that a peer with RateLimit may transfer, by direction.",
        labels=(*PEER_LABELS, "direction"),
    )
    quota = GaugeMetricFamily(
        "tunnel_peer_quota_bytes", "The quota of a peer that has one.", labels=PEER_LABELS
    )
    used = GaugeMetricFamily(
        "tunnel_peer_quota_used_bytes",
        "Bytes that it has used of it in this period.",
        labels=PEER_LABELS,
    )
    dropped = CounterMetricFamily(
        "tunnel_peer_limit_dropped_packets",
        "Packets dropped for the limits of a peer that has some, by reason.",
        labels=(*PEER_LABELS, "reason"),
    )
    for peer in metrics.status.peers:
        labels, limits = _labels(metrics.status.name, peer), peer.limits
        connected.add_metric(labels, peer.connected)
        for direction, bits in (("out", limits.rate_to), ("in", limits.rate_from)):
            if bits:
                rate.add_metric((*labels, direction), bits)
        if limits.quota:
            quota.add_metric(labels, limits.quota)
            used.add_metric(labels, limits.quota_used)
        if limits != NO_LIMITS:
            dropped.add_metric((*labels, "over_rate"), limits.over_rate)
            dropped.add_metric((*labels, "over_quota"), limits.over_quota)
    yield from (connected, rate, quota, used, dropped)


def _labels(name: str, peer: PeerStatus) -> tuple[str, ...]:
    return name, peer.public_key, ",".join(peer.allowed_ips), peer.name


def _of_interface(metrics: Metrics) -> Iterator[Metric]:
    status, meter = metrics.status, metrics.meter
    name = status.name
    info = InfoMetricFamily("tunnel", "How the tunnel runs.", labels=("interface",))
    offloads = {f"{device}_offloads": words for device, words in status.offloads.items()}
    info.add_metric((name,), {"datapath": status.datapath, "cipher": status.cipher, **offloads})
    yield info
    for metric, help_text, number in (
        ("tunnel_mtu_bytes", "MTU of the interface.", status.mtu),
        ("tunnel_peers", "Configured peers.", len(status.peers)),
        ("tunnel_tasks", "Tasks of the event loop.", metrics.tasks),
    ):
        gauge = GaugeMetricFamily(metric, help_text, labels=("interface",))
        gauge.add_metric((name,), number)
        yield gauge
    drops = dict.fromkeys(metrics.reasons, 0) | status.drops
    yield _counters("tunnel_dropped_packets", "Packets dropped.", "reason", name, drops)
    yield _counters("tunnel_handshakes", "Handshakes by outcome.", "outcome", name, meter.outcomes)
    for metric, help_text, label, numbers in (
        ("tunnel_queue_packets", "Packets that wait, by queue.", "queue", metrics.queues),
        (
            "tunnel_socket_queue_bytes",
            "Memory that the kernel holds for the UDP sockets.",
            "direction",
            metrics.socket_bytes,
        ),
    ):
        gauge = GaugeMetricFamily(metric, help_text, labels=("interface", label))
        for key, number in sorted(numbers.items()):
            gauge.add_metric((name, key), number)
        yield gauge
    congested = CounterMetricFamily(
        "tunnel_congestion_marked_packets",
        "Packets received in datagrams that a router has marked CE (RFC 3168).",
        labels=("interface",),
    )
    congested.add_metric((name,), metrics.load.congested)
    yield congested
    restarts = CounterMetricFamily(
        "tunnel_restarts", "Daemons that the tunnel had before this one.", labels=("interface",)
    )
    restarts.add_metric((name,), meter.restarts)
    yield restarts
    batches = HistogramMetricFamily(
        "tunnel_batch_packets",
        "Packets of one batch of the datapath.",
        labels=("interface", "direction"),
    )
    for direction, histogram in (("out", metrics.load.sealed), ("in", metrics.load.opened)):
        batches.add_metric((name, direction), histogram.cumulative(), histogram.total)
    yield batches
    for metric, help_text, histogram in (
        (
            "tunnel_handshake_round_trip_seconds",
            "From a handshake message to its answer.",
            meter.round_trips,
        ),
        (
            "tunnel_event_loop_lag_seconds",
            "How late the event loop comes to what is due.",
            meter.lag,
        ),
    ):
        family = HistogramMetricFamily(metric, help_text, labels=("interface",))
        family.add_metric((name,), histogram.cumulative(), histogram.total)
        yield family


def _counters(
    metric: str, help_text: str, label: str, name: str, numbers: Mapping[str, int]
) -> Metric:
    family = CounterMetricFamily(metric, help_text, labels=("interface", label))
    for key, number in sorted(numbers.items()):
        family.add_metric((name, key), number)
    return family
