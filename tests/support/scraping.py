"""The metrics of a tunnel, scraped over its unix socket."""

from __future__ import annotations

import sys

from prometheus_client.parser import text_string_to_metric_families

from tunnel.lab import Host

SOCKET = "/run/tunnel/wg0.metrics"

_SCRAPER = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
sys.stdout.write(connection.makefile().read())
"""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(answer: str) -> Samples:
    head, _, body = answer.replace("\r\n", "\n").partition("\n\n")
    assert head.startswith("HTTP/1.1 200 OK"), answer
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    wanted = labels.items()
    (found,) = [v for (n, have), v in samples.items() if n == name and wanted <= have]
    return found


def scrape(host: Host) -> Samples:
    """From within the host."""
    return read(host.run([sys.executable, "-c", _SCRAPER, SOCKET]).stdout)
