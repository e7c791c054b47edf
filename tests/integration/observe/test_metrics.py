"""Metrics scraped from a running tunnel, over its unix socket and over an address."""

from __future__ import annotations

import socket

import pytest

from tests.support.daemons import kill, remains, rewrite, status
from tests.support.pairs import Pair
from tests.support.scraping import SOCKET, read, scrape, value

pytestmark = pytest.mark.root


def test_scraped_over_the_unix_socket(pair: Pair) -> None:
    a, b = pair.hosts
    rewrite(pair.a, "[Peer]", "[Peer]\n# friendly_name = other end")
    pair.a.tunnel("reload", "wg0")
    a.ping(pair.b.node.address(), count=3)
    b.ip("address add 10.99.0.1/32 dev wg0")
    b.run(["ping", "-c", "1", "-W", "1", "-I", "10.99.0.1", pair.a.node.address()], check=False)
    found = scrape(pair.a.node.host)
    peer = status(pair.a)["peers"][0]
    labels = {"interface": "wg0", "public_key": pair.b.node.public_key}
    labels["allowed_ips"] = ",".join(peer["allowed_ips"])
    labels["friendly_name"] = "other end"
    assert value(found, "wireguard_sent_bytes_total", **labels) == peer["tx_bytes"]
    assert value(found, "wireguard_received_bytes_total", **labels) == peer["rx_bytes"]
    handshake = value(found, "wireguard_latest_handshake_seconds", **labels)
    assert handshake == pytest.approx(peer["latest_handshake"])
    assert value(found, "tunnel_dropped_packets_total", reason="source_not_allowed") == 1
    assert value(found, "tunnel_dropped_packets_total", reason="too_long") == 0
    assert value(found, "tunnel_handshakes_total", outcome="completed") == 1
    assert 0 < value(found, "tunnel_handshake_round_trip_seconds_sum") < 5
    assert value(found, "tunnel_batch_packets_count", direction="out") >= 3
    assert value(found, "tunnel_queue_packets", queue="staged") == 0
    assert value(found, "process_cpu_seconds_total") > 0
    a.wait_for(
        lambda: value(scrape(pair.a.node.host), "tunnel_event_loop_lag_seconds_count"), 10, "a look"
    )
    mode = a.run(["stat", "-c", "%a %U", SOCKET]).stdout
    assert mode == "600 root\n"
    pair.a.down()
    assert remains(a) == []


@pytest.mark.parametrize(
    ("spelling", "address"),
    [
        ("[Tunnel]\nMetrics = {}\n[Peer]", "127.0.0.1"),
        ("#! tunnel: Metrics = {}\n[Peer]", "10.77.0.1"),
        ("[Tunnel]\nMetrics = {}\n[Peer]", "fd77::1"),
    ],
)
def test_scraped_over_an_address(pair: Pair, spelling: str, address: str) -> None:
    """The tunnel's own addresses too, which are there only once it is up."""
    pair.a.down()
    place = f"[{address}]:9586" if ":" in address else f"{address}:9586"
    rewrite(pair.a, "[Peer]", spelling.format(place))
    pair.a.up()
    a, b = pair.hosts
    a.run(["test", "!", "-e", SOCKET])
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # From the other end, through the tunnel, if that is where they are.
    scraper = a if address.startswith("127.") else b
    with scraper.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect((address, 9586))
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    found = read(answer.decode())
    assert value(found, "tunnel_peers", interface="wg0") == 1
    pair.a.down()
    pair.b.down()
    assert remains(a) == []


def test_a_place_that_is_taken_is_told_and_the_tunnel_works(pair: Pair) -> None:
    a, _ = pair.hosts
    pair.a.down()
    rewrite(pair.a, "[Peer]", "#! tunnel: Metrics = 192.0.2.77:9586\n[Peer]")
    pair.a.up()
    assert "no metrics at 192.0.2.77:9586" in a.run(["cat", "/run/tunnel/wg0.log"]).stdout
    a.ping(pair.b.node.address())


def test_down_removes_the_socket_of_a_killed_daemon(pair: Pair) -> None:
    a, _ = pair.hosts
    kill(pair.a)
    a.wait_for(lambda: not a.pids(), 5, "the daemon to end")
    a.run(["test", "-e", SOCKET])
    pair.a.down()
    a.run(["test", "!", "-e", SOCKET])
    assert remains(a) == []
