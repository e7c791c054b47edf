"""What of `tunnel run` needs no namespace."""

from __future__ import annotations

import os
import re
import socket
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from tests.support.confs import PEER, PRIVATE
from tunnel import config as confs
from tunnel.containers import command, messages, mounts, ports
from tunnel.containers.errors import ContainerError
from tunnel.containers.inside import wanted_state
from tunnel.containers.run import RunRequest, run
from tunnel.host import Route


def test_hosts_are_looked_up_in_files_and_by_dns_only() -> None:
    text = "passwd: files systemd\nhosts:\tmymachines resolve [!UNAVAIL=return] files dns\nnet: x\n"
    assert mounts.without_services(text) == "passwd: files systemd\nhosts: files dns\nnet: x\n"
    assert mounts.without_services("passwd: files\n") == "passwd: files\n"


def conf(*allowed: str, address: str = "10.0.0.1/24, fd00::1/64") -> confs.TunnelConfig:
    text = (
        f"[Interface]\nPrivateKey = {PRIVATE}\nAddress = {address}\n"
        f"[Peer]\nPublicKey = {PEER}\nAllowedIPs = {', '.join(allowed)}\n"
    )
    return confs.parse(text, name="wg0")


def test_a_tunnel_of_frames_is_refused() -> None:
    text = f"[Interface]\nPrivateKey = {PRIVATE}\n[Tunnel]\nMode = tap\n"
    with pytest.raises(ContainerError, match="use tunnel up with NetNS"):
        run(RunRequest(confs.parse(text, name="wg0"), ["true"], {}))


@pytest.mark.parametrize("line", ["PeerUp = true", "PeerDown = true", "Records = flows"])
def test_what_no_one_does_there_is_not_left_out_in_silence(
    line: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"[Interface]\nPrivateKey = {PRIVATE}\n[Tunnel]\n{line}\nMode = tap\n"
    with pytest.raises(ContainerError):
        run(RunRequest(confs.parse(text, name="wg0"), ["true"], {}))
    assert f"leaves out of the conf: {line.partition(' ')[0]}" in caplog.text


def test_a_default_route_is_a_route_like_any_other() -> None:
    state = wanted_state(conf("0.0.0.0/0", "::/0", "10.0.0.0/24", "192.168.0.0/16"), 1420)
    assert {str(route.destination) for route in state.routes} == {
        "0.0.0.0/0",
        "::/0",
        "192.168.0.0/16",
    }
    assert all(route == Route(route.destination) for route in state.routes)
    assert state.rules == ()
    assert state.firewall is None
    assert state.mark == 0
    assert state.addresses == (ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64"))


def test_with_a_small_mtu_there_is_no_ipv6() -> None:
    state = wanted_state(conf("0.0.0.0/0", "::/0"), 1200)
    assert state.routes == (Route(ip_network("0.0.0.0/0")),)
    assert state.addresses == (ip_interface("10.0.0.1/24"),)


def test_a_message_carries_descriptors() -> None:
    ours, theirs = messages.pair()
    reading, writing = os.pipe()
    with ours, theirs:
        messages.send(ours, {"request": "socket"}, (reading, writing))
        found = messages.receive(theirs)
        assert found is not None
        assert found.body == {"request": "socket"}
        assert [os.get_inheritable(number) for number in found.descriptors] == [False, False]
        os.write(found.descriptors[1], b"through")
        assert os.read(reading, 100) == b"through"
        ours.shutdown(socket.SHUT_RDWR)
        assert messages.receive(theirs) is None
    for number in (reading, writing, *found.descriptors):
        os.close(number)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("sh", None),
        ("/bin/sh", None),
        ("no-such-command", 127),
        ("/no/such", 127),
        ("plain", 126),
        ("./plain", 126),
        ("/etc", 126),
    ],
)
def test_a_command_is_found_as_by_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").touch(mode=0o644)
    problem = command.find([name], {"PATH": f"{os.environ['PATH']}:{tmp_path}"})
    assert (problem and problem[0]) == code


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("8080:80", ["8080:80/tcp"]),
        ("8080:80/tcp", ["8080:80/tcp"]),
        ("127.0.0.1:5353:53/udp", ["127.0.0.1:5353:53/udp"]),
        ("[::1]:80:8080", ["[::1]:80:8080/tcp"]),
        ("7000-7002:80-82", ["7000:80/tcp", "7001:81/tcp", "7002:82/tcp"]),
        (":9:9", ["9:9/tcp"]),
    ],
)
def test_ports_are_written_as_for_docker(text: str, meaning: list[str]) -> None:
    assert [str(each) for each in ports.parse(text)] == meaning


@pytest.mark.parametrize(
    "text",
    [
        "",
        "80",
        "80:",
        "0:80",
        "80:65536",
        "a:b",
        "1.2.3:1:2",
        "1:2/sctp",
        "1-2:1",
        "2-1:1-2",
        "::1:80:80",
        "1:2:3:4",
        "[::1:80:80",
        "1:2/",
        "٣:80",
    ],
)
def test_other_ports_are_refused_with_the_text_that_was_found(text: str) -> None:
    with pytest.raises(ports.PublishError, match=re.escape(f"-p {text}: ")):
        ports.parse(text)


def test_a_port_in_use_names_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        (published,) = ports.parse(f"127.0.0.1:{held.getsockname()[1]}:80")
        with pytest.raises(ContainerError, match=rf"is in use by .*process {os.getpid()}"):
            published.listen()


def test_an_address_of_another_host_is_named() -> None:
    (published,) = ports.parse("198.51.100.77:8080:80")
    with pytest.raises(ContainerError, match=r"no interface of this host has .* 198.51.100.77"):
        published.listen()
