"""`tunnel capture` as tshark reads what it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TwoHosts
from tests.integration.observe.conftest import begin_capture, end_capture, fields, make_pair

pytestmark = [pytest.mark.root, pytest.mark.foreign("tshark")]

PSK = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
OUTGOING, INCOMING = "0x00000002", "0x00000001"


@pytest.mark.parametrize("outer", [4, 6])
def test_a_ping_is_there_inside_and_outside(
    two_hosts: TwoHosts, tmp_path: Path, outer: int
) -> None:
    pair = make_pair(two_hosts, outer=outer)
    a, _ = pair.hosts
    a.ping(pair.b.node.address())
    file = tmp_path / "both.pcapng"
    capture = begin_capture(a, "-w", str(file))
    a.ping(pair.b.node.address())
    end_capture(capture)
    assert "0 lost" in capture.log()
    assert file.stat().st_mode & 0o777 == 0o600
    seen = fields(file, "icmp or wg.type == 4", "frame.interface_name", "_ws.col.Protocol")
    assert seen == [
        ["wg0", "ICMP"],
        ["wg0-udp", "WireGuard"],
        ["wg0-udp", "WireGuard"],
        ["wg0", "ICMP"],
    ]
    ways = fields(file, "icmp or wg.type == 4", "frame.packet_flags")
    assert ways == [[OUTGOING], [OUTGOING], [INCOMING], [INCOMING]]
    assert b"PRIVATE_KEY" not in file.read_bytes()


@pytest.mark.parametrize("psk", [None, PSK])
@pytest.mark.parametrize("end", [0, 1])
def test_with_keys_the_outer_packets_are_decrypted(
    two_hosts: TwoHosts, tmp_path: Path, psk: str | None, end: int
) -> None:
    """From the end that initiates, and from the end that responds."""
    pair = make_pair(two_hosts, preshared_key=psk)
    a, _ = pair.hosts
    file = tmp_path / "keys.pcapng"
    capture = begin_capture(pair.hosts[end], "-w", str(file), "--with-keys")
    assert "WARNING" in capture.log()
    a.ping(pair.b.node.address())
    end_capture(capture)
    decrypted = fields(file, "wg.type == 4 and icmp", "frame.interface_name", "icmp.type")
    assert decrypted == [["wg0-udp", "8"], ["wg0-udp", "0"]]
