from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.support.statuses import STATUS
from tunnel.cli.status import age, print_status, size
from tunnel.control.messages.status import TunnelStatus


def printed(status: TunnelStatus, *, colour: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=200, highlight=False, force_terminal=colour)
    print_status(console, status, now=1075.4)
    return out.getvalue()


def test_everything_is_there_and_secrets_are_not() -> None:
    assert printed(STATUS) == (
        "interface: wg0\n"
        "  public key: PUB=\n"
        "  private key: (hidden)\n"
        "  listening port: 51820\n"
        "  fwmark: 0xca6c\n"
        "  addresses: 10.77.0.1/24, fd77::1/64\n"
        "  mtu: 1420\n"
        "  datapath: native\n"
        "  offloads: tun csum tso4, udp off\n"
        "\n"
        "peer: PEER=\n"
        "  preshared key: (hidden)\n"
        "  endpoint: [2001:db8::2]:51820\n"
        "  allowed ips: 10.77.0.2/32, fd77::2/128\n"
        "  latest handshake: 1 minute, 15 seconds ago\n"
        "  transfer: 1.50 KiB received, 100 B sent\n"
        "  persistent keepalive: every 25 seconds\n"
        "\n"
        "  drops:\n"
        "    no_peer  12\n"
        "    replay   1\n"
    )


def test_colours_are_for_terminals() -> None:
    assert "\x1b[" not in printed(STATUS)
    assert "\x1b[" in printed(STATUS, colour=True)


def test_json_round_trip_ignores_what_a_newer_daemon_adds() -> None:
    data = STATUS.to_json()
    data["new"] = 1
    data["peers"][0]["newer"] = 2
    assert TunnelStatus.from_json(data) == STATUS


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "now"),
        (1, "1 second"),
        (75, "1 minute, 15 seconds"),
        (7200, "2 hours"),
        (90061, "1 day, 1 hour"),
    ],
)
def test_ages_read_as_wg_words_them(seconds: float, words: str) -> None:
    assert age(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (3 << 20, "3.00 MiB"),
        (1 << 60, "1024.00 PiB"),
    ],
)
def test_sizes_read_as_wg_words_them(count: int, words: str) -> None:
    assert size(count) == words
