"""The gateway's keys of section [Tunnel]: what is read, and what is refused with which remedy."""

from __future__ import annotations

import pytest

from tests.support.confs import INTERFACE, OTHER, PEER, read
from tunnel.config import ConfigErrors, dump, find_peer

PEERS = (
    f"[Peer]\n# friendly_name = Bob's laptop\nPublicKey = {PEER}\n"
    "AllowedIPs = 10.77.0.0/16, fd77::/64\n"
    f"[Peer]\nPublicKey = {OTHER}\nAllowedIPs = 10.77.0.3/32\n"
)


def errors_of(text: str) -> str:
    with pytest.raises(ConfigErrors) as caught:
        read(text)
    return str(caught.value)


def conf(*lines: str) -> str:
    return INTERFACE + "[Tunnel]\n" + "".join(f"{line}\n" for line in lines) + PEERS


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Publish = 80:10.77.0.2", "80:10.77.0.2:80/tcp"),
        ("Publish=8080:10.77.0.2:80/UDP", "8080:10.77.0.2:80/udp"),
        (
            "Publish = 192.0.2.1:1-3:10.77.0.2:11-13,4:[fd77::2]:5",
            "192.0.2.1:1-3:10.77.0.2:11-13/tcp, 4:[fd77::2]:5/tcp",
        ),
        (
            "Allow = Bob's laptop → 10.0.0.0/24:22/tcp, 10.77.0.3->10.0.0.1",
            "Bob's laptop -> 10.0.0.0/24:22/tcp, 10.77.0.3 -> 10.0.0.1/32",
        ),
        ("Allow = 10.77.0.9 -> [fd00::/64]:80-81", "10.77.0.9 -> [fd00::/64]:80-81"),
        ("Allow = 10.77.0.9 -> [fd00::1]:80", "10.77.0.9 -> [fd00::1/128]:80"),
        ("Allow = 10.77.0.9 -> fd00::1", "10.77.0.9 -> fd00::1/128"),
        (
            "Netmap = 192.168.1.0/24→10.71.1.0/24, fd01::/64 -> fd02::/64",
            "192.168.1.0/24 -> 10.71.1.0/24, fd01::/64 -> fd02::/64",
        ),
        ("Masquerade = AUTO", "auto"),
        ("Masquerade = eth0.7", "eth0.7"),
        ("ClampMSS = 1340", "1340"),
        ("Isolate = on", "on"),
    ],
)
def test_entries_are_read_and_written(text: str, written: str) -> None:
    key = text.partition("=")[0].strip()
    config = read(conf(text))
    assert f"{key} = {written}\n" in dump(config)
    assert read(dump(config)) == config
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Publish = 8080:80", "Publish must be PORT:ADDRESS:PORT"),
        ("Publish = 80:web:80", "Publish must be PORT:ADDRESS:PORT"),
        ("Publish = 80:10.77.0.2:80/sctp", 'Publish knows tcp and udp, not "sctp"'),
        ("Publish = 192.0.2.1:80:[fd77::2]:80", "Publish mixes IPv4 and IPv6"),
        ("Publish = 80-90:10.77.0.2:80", "Publish has ranges of different length"),
        ("Publish = 70000:10.77.0.2", "Publish must have ports from 1 to 65535"),
        ("Publish = 90-80:10.77.0.2", "Publish must have ports from 1 to 65535, the lower one"),
        ("Publish = 1-2000:10.77.0.2:2-2001", "Publish moves more than 1024 ports"),
        ("Publish = 80:0.0.0.0:80", "Publish has no address of a host"),
        (
            "Publish = 80:10.77.0.2, 80:10.77.0.3",
            "Publish has the same port in 80:10.77.0.3:80/tcp",
        ),
        ("Allow = 10.77.0.3", "Allow must be PEER -> NETWORK:PORT"),
        ("Allow = 10.77.0.3 -> web:80", "Allow has no network"),
        ("Allow = 10.77.0.3 -> 10.0.0.5/24", "Allow has host bits set"),
        ("Allow = 10.77.0.3 -> 10.0.0.0/24/tcp", "Allow has a protocol without a port"),
        ("Allow = Eve -> 10.0.0.0/24", 'Allow names "Eve", and there is no such peer'),
        ("Allow = 10.99.0.1 -> 10.0.0.0/24", "there is no such peer"),
        ("Netmap = 192.168.1.0/24 -> 10.71.1.0/25", "Netmap must have two networks"),
        ("Netmap = 192.168.1.0/24", "Netmap must be NETWORK -> NETWORK"),
        ("Masquerade = eth0/1", "Masquerade must be auto, off or an interface"),
        ("ClampMSS = 20", "ClampMSS must be auto, off or a number of bytes from 88"),
        ("KillSwitch = maybe", "KillSwitch must be on or off"),
    ],
)
def test_mistakes(line: str, message: str) -> None:
    assert message in errors_of(conf(line))


def test_a_kill_switch_needs_something_to_guard_and_a_mark() -> None:
    assert "KillSwitch has nothing to guard" in errors_of(INTERFACE + "[Tunnel]\nKillSwitch = on\n")
    no_mark = conf("KillSwitch = on").replace("[Interface]\n", "[Interface]\nTable = off\n")
    assert "add a FwMark, as FwMark = 0xca6c" in errors_of(no_mark)
    read(no_mark.replace("Table = off", "Table = off\nFwMark = 7"))


@pytest.mark.parametrize(
    ("allowed", "endpoint"),
    [
        ("0.0.0.0/1, 128.0.0.0/1", "192.0.2.1"),
        ("0.0.0.0/1, 128.0.0.0/1", "vpn.example.com"),
        ("192.0.2.0/24", "192.0.2.1"),
        ("2001:db8::/32", "[2001:db8::1]"),
    ],
)
def test_a_kill_switch_does_not_refuse_the_tunnels_own_packets(allowed: str, endpoint: str) -> None:
    def text(mark: str, there: str) -> str:
        peer = f"[Peer]\nPublicKey = {PEER}\nAllowedIPs = {allowed}\nEndpoint = {there}:51820\n"
        return f"{INTERFACE}{mark}[Tunnel]\nKillSwitch = on\n{peer}"

    assert "add a FwMark, as FwMark = 0xca6c" in errors_of(text("", endpoint))
    read(text("FwMark = 7\n", endpoint))
    if "/1" not in allowed:
        read(text("", "198.51.100.1"))


def test_a_kill_switch_guards_the_daemons_own_namespace() -> None:
    assert "remove KillSwitch" in errors_of(conf("KillSwitch = on", "NetNS = office"))


def test_doubts() -> None:
    (warning,) = read(conf("Publish = 80:10.99.0.1:80")).warnings
    assert "10.99.0.1, which no peer has in its AllowedIPs" in str(warning)
    named = conf("KillSwitch = on") + "Endpoint = vpn.example.com:51820\n"
    (warning,) = read(named).warnings
    assert "write the address into Endpoint" in str(warning)


def test_a_peer_is_found_by_the_longest_prefix() -> None:
    config = read(conf())
    one, other = config.peers
    assert find_peer(config.peers, "10.77.0.9") is one
    assert find_peer(config.peers, "10.77.0.3") is other
    assert find_peer(config.peers, "fd77::3") is one
    assert find_peer(config.peers, PEER) is one
    assert find_peer(config.peers, "10.78.0.1") is None
