from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.support.statuses import STATUS
from tunnel.cli import main
from tunnel.cli.fields import field_lines
from tunnel.cli.status import MAX_NETWORKS, MAX_PEERS, age, print_status, size
from tunnel.control import run_folder
from tunnel.control.messages.status import PeerLimits, TunnelStatus


def printed(status: TunnelStatus, *, colour: bool = False, whole: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=200, highlight=False, force_terminal=colour)
    print_status(console, status, now=1075.4, whole=whole)
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
        "  cipher: ChaCha20-Poly1305 of ipsec-mb 1.3.0\n"
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


def with_peers(count: int) -> TunnelStatus:
    (peer,) = STATUS.peers
    peers = [
        replace(peer, public_key=f"PEER{number}=", latest_handshake=1000.0 * (number % 2))
        for number in range(count)
    ]
    return replace(STATUS, peers=tuple(peers))


def test_many_peers_are_summed_up_and_all_can_be_had() -> None:
    many = printed(with_peers(200))
    assert many.count("peer: ") == MAX_PEERS
    assert "PEER1=" in many
    assert "PEER0=" not in many, "those with a handshake come first"
    assert "and 180 more peers, 100 of them without a handshake (all of them: --all)" in many
    assert len(many.splitlines()) < 200
    few = printed(with_peers(MAX_PEERS))
    assert few.count("peer: ") == MAX_PEERS
    assert "--all" not in few
    whole = printed(with_peers(200), whole=True)
    assert whole.count("peer: ") == 200
    assert "--all" not in whole


def test_many_allowed_ips_are_counted() -> None:
    (peer,) = STATUS.peers
    networks = tuple(f"10.0.{number}.0/24" for number in range(MAX_NETWORKS + 7))
    status = replace(STATUS, peers=(replace(peer, allowed_ips=networks),))
    assert "10.0.19.0/24, and 7 more\n" in printed(status)
    assert f"{networks[-1]}\n" in printed(status, whole=True)


def test_a_peer_has_its_name_and_no_control_characters() -> None:
    (peer,) = STATUS.peers
    shown = printed(replace(STATUS, peers=(replace(peer, name="lap\x1b[31mtop"),)))
    assert "peer: PEER=\n  name: lap" in shown
    assert "\x1b" not in shown


def test_a_peer_that_expires_says_when() -> None:
    (peer,) = STATUS.peers
    shown = printed(replace(STATUS, peers=(replace(peer, expires=1075.4 + 90061),)))
    assert "  expires: in 1 day, 1 hour\n" in shown
    assert "expires" not in printed(STATUS)


def test_a_quota_is_shown_in_the_units_of_the_conf() -> None:
    (peer,) = STATUS.peers
    limits = PeerLimits(quota=80 * 10**6, quota_used=35_540_000, quota_period="day", over_quota=1)
    shown = printed(replace(STATUS, peers=(replace(peer, limits=limits),)))
    assert "  quota: 35.54 MB used, 44.4 % of 80.00 MB per day, 1 packet dropped\n" in shown


@pytest.mark.parametrize("words", ["show", "show --json", "show all dump", "top --once", "doctor"])
def test_who_may_not_look_hears_that_only_root_may(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "is_hidden", lambda: True)
    monkeypatch.setattr(run_folder, "running_names", list)
    done = CliRunner().invoke(main.make_app(), words.split())
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr == "tunnel: only root may list the tunnels in /run/tunnel: use sudo\n"


@pytest.mark.parametrize(
    "words", ["show wg0 nonsense", "show wg0 dump --json", "show wg0 peers -w"]
)
def test_a_field_that_cannot_be_had_is_refused(words: str) -> None:
    done = CliRunner().invoke(main.make_app(), words.split())
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "field" in done.stderr.lower()


def test_fields_without_a_value_are_what_wg_calls_them() -> None:
    (peer,) = STATUS.peers
    bare = replace(peer, endpoint=None, allowed_ips=(), persistent_keepalive=0)
    status = replace(STATUS, public_key=None, fwmark=0, peers=(bare,))
    assert list(field_lines(status, "dump")) == [
        "(none)\t(none)\t51820\toff",
        "PEER=\t(none)\t(none)\t(none)\t1000\t1536\t100\toff",
    ]


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
