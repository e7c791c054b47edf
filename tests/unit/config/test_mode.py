"""Mode and Bridge of section [Tunnel], and the keys that mean nothing with Mode = tap."""

from __future__ import annotations

import pytest

from tests.support.confs import INTERFACE, PEER, read
from tunnel.config import ConfigErrors, dump


def conf(*lines: str, interface: str = "", peer: str = "") -> str:
    return (
        f"{INTERFACE}{interface}[Tunnel]\n"
        + "".join(f"{line}\n" for line in lines)
        + f"[Peer]\nPublicKey = {PEER}\n{peer}"
    )


def errors_of(text: str) -> str:
    with pytest.raises(ConfigErrors) as caught:
        read(text)
    return str(caught.value)


def test_both_are_read_and_written() -> None:
    config = read(conf("mode = TAP", "Bridge = br0"))
    assert config.interface.options.is_tap
    assert config.interface.options.bridge == "br0"
    assert "Mode = tap\nBridge = br0\n" in dump(config)
    assert read(dump(config)) == config
    assert config.warnings == ()
    assert not read(conf("Mode = tun")).interface.options.is_tap


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (conf("Mode = bridge"), 'Mode must be tun or tap, not "bridge"'),
        (conf("Mode = tap", "Bridge = br/0"), 'Bridge must be the name of a bridge, not "br/0"'),
        (conf("Bridge = br0"), "add Mode = tap here and at the peers, or remove Bridge"),
        (conf("Mode = tap", "Bridge = office"), "Bridge has the name of the interface, office"),
        (conf("Mode = tap", interface="Table = 100\n"), "Table is for routes to AllowedIPs"),
        (
            conf("Mode = tap", "KillSwitch = on", peer="AllowedIPs = 0.0.0.0/0\n"),
            "remove KillSwitch, or remove Mode = tap here and at the peers",
        ),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    assert message in errors_of(text)


def test_a_line_is_named_wherever_its_section_is() -> None:
    text = conf("Mode = tap", interface="Table = 100\n")
    line = text.splitlines().index("Table = 100") + 1
    assert f":{line}:" in errors_of(text)


@pytest.mark.parametrize("table", ["auto", "off"])
def test_no_routes_are_what_there_are(table: str) -> None:
    assert read(conf("Mode = tap", interface=f"Table = {table}\n")).warnings == ()


def test_a_published_port_may_lead_to_a_peer_without_allowed_ips() -> None:
    lines = ("Mode = tap", "Publish = 80:10.77.0.2")
    assert read(conf(*lines)).warnings == ()
    assert len(read(conf(*lines, peer="AllowedIPs = 10.77.0.3/32\n")).warnings) == 1
