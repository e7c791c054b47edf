"""The text of a scrape, read back by Prometheus' own parser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.statuses import STATUS
from tunnel.daemon.meter import Meter, Metrics
from tunnel.daemon.metrics import REASONS
from tunnel.daemon.prometheus import render
from tunnel.engine.histograms import Histogram, Load

DASHBOARD = Path(__file__).parents[3] / "examples" / "grafana.json"
DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
NAME = re.compile(r"\b(?:wireguard|tunnel|process)_[a-z_]+")


def samples(metrics: Metrics) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(render(metrics).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_the_common_exporters_names_and_labels() -> None:
    found = samples(Metrics(replace(STATUS, peers=(replace(STATUS.peers[0], name='the "roof"'),))))
    labels = {
        "interface": "wg0",
        "public_key": "PEER=",
        "allowed_ips": "10.77.0.2/32,fd77::2/128",
        "friendly_name": 'the "roof"',
    }
    assert found["wireguard_sent_bytes_total"] == [(labels, 100.0)]
    assert found["wireguard_received_bytes_total"] == [(labels, 1536.0)]
    assert found["wireguard_latest_handshake_seconds"] == [(labels, 1000.0)]


def test_every_reason_is_there_from_the_first_scrape() -> None:
    found = samples(Metrics(STATUS, reasons=REASONS))
    drops = {labels["reason"]: value for labels, value in found["tunnel_dropped_packets_total"]}
    assert drops.keys() == set(REASONS)
    assert drops["no_peer"] == 12
    assert drops["ip_version"] == 0


def test_every_reason_is_spelled_alike() -> None:
    assert all(reason.replace("_", "").isalnum() and reason.islower() for reason in REASONS)


def test_batches_handshakes_and_queues() -> None:
    load, meter = Load(), Meter()
    for packets in (1, 45, 1000):
        load.sealed.add(packets)
    meter.handle_event("handshake", {"outcome": "completed", "round_trip": 0.02})
    meter.handle_event("handshake", {"outcome": "unanswered"})
    meter.handle_event("roamed", {})
    found = samples(Metrics(STATUS, load, meter, queues={"staged": 3}))
    batches = {
        labels["le"]: value
        for labels, value in found["tunnel_batch_packets_bucket"]
        if labels["direction"] == "out"
    }
    assert (batches["1.0"], batches["32.0"], batches["64.0"], batches["+Inf"]) == (1, 1, 2, 3)
    assert ({"interface": "wg0", "direction": "out"}, 1046.0) in found["tunnel_batch_packets_sum"]
    outcomes = {labels["outcome"]: value for labels, value in found["tunnel_handshakes_total"]}
    assert outcomes == {"completed": 1, "unanswered": 1, "failed": 0}
    assert found["tunnel_handshake_round_trip_seconds_count"][0][1] == 1
    assert found["tunnel_queue_packets"] == [({"interface": "wg0", "queue": "staged"}, 3.0)]
    assert found["process_cpu_seconds_total"]


def test_a_value_on_a_bound_belongs_to_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (1.0, 1.5, 2.0, 2.1):
        histogram.add(value)
    assert histogram.cumulative() == [("1.0", 1), ("2.0", 3), ("+Inf", 4)]


def test_the_dashboard_asks_for_what_there_is() -> None:
    names = samples(Metrics(STATUS)).keys()
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in NAME.findall(query)}
    assert {name for name in names if name.startswith("wireguard_")} <= asked
    assert asked <= names | {"tunnel_queue_packets", "tunnel_socket_queue_bytes"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_document_lists_what_there_is() -> None:
    listed = set(re.findall(r"^\| `((?:wireguard|tunnel)_[a-z_]+)`", DOCUMENT.read_text(), re.M))
    families = text_string_to_metric_families(render(Metrics(STATUS)).decode())
    # The parser takes the ending from the name of a counter.
    there = {f.name + "_total" if f.type == "counter" else f.name for f in families}
    assert listed == {name for name in there if name.startswith(("wireguard_", "tunnel_"))}
