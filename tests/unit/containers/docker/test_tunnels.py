"""Which tunnel a network means, where none is up: of its conf."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.confs import INTERFACE, PEER
from tunnel.containers.docker.tunnels import look_up, look_up_routed
from tunnel.containers.errors import ContainerError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNNEL_CONFIG_PATH", str(tmp_path))
    return tmp_path


def write(folder: Path, *lines: str) -> None:
    text = f"{INTERFACE}MTU = 1380\n[Tunnel]\n" + "".join(f"{line}\n" for line in lines)
    text += f"[Peer]\nPublicKey = {PEER}\nAllowedIPs = 10.77.0.2/32, 10.90.0.128/25\n"
    path = folder / "docknet.conf"
    path.write_text(text)
    path.chmod(0o600)


def test_a_tunnel_that_is_down_is_known_by_its_conf(folder: Path) -> None:
    write(folder)
    found = look_up("docknet")
    assert [str(network) for network in found.allowed] == ["10.77.0.2/32", "10.90.0.128/25"]
    assert found.mtu == 1380


def test_a_tunnel_of_frames_has_a_bridge_and_smaller_packets(folder: Path) -> None:
    write(folder, "Mode = tap", "Bridge = br7")
    found = look_up("docknet")
    assert found.bridge == "br7"
    with pytest.raises(ContainerError, match="this network is routed: use a tunnel without Mode"):
        look_up_routed("docknet")
    path = folder / "docknet.conf"
    path.write_text(path.read_text().replace("MTU = 1380\n", ""))
    framed = look_up("docknet").mtu
    path.write_text(path.read_text().replace("Mode = tap\nBridge = br7\n", ""))
    assert look_up_routed("docknet").mtu - framed == 20


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["Mode = tap"], r"add Bridge = br0 in section \[Tunnel\] .* tunnel restart docknet"),
        (["NetNS = blue"], "without NetNS"),
        (["Colour = red"], r"docknet\.conf"),
    ],
)
def test_a_conf_that_cannot_be_used_is_refused(folder: Path, lines: list[str], text: str) -> None:
    write(folder, *lines)
    with pytest.raises(ContainerError, match=text):
        look_up("docknet")


def test_where_there_is_no_conf_the_places_are_named(folder: Path) -> None:
    with pytest.raises(
        ContainerError, match=r"write or correct /etc/tunnel/docknet\.conf, or .* tunnel up"
    ):
        look_up("docknet")


@pytest.mark.parametrize("name", ["../docknet", "a b", "x" * 16, "/etc/tunnel/docknet.conf"])
def test_a_tunnel_is_named_not_its_file(folder: Path, name: str) -> None:
    with pytest.raises(ContainerError, match="the name of a tunnel"):
        look_up(name)
