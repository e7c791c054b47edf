"""`tunnel peer` on the file of a conf that no tunnel runs from."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tunnel import config
from tunnel.cli import main
from tunnel.config.expiry import expiry
from tunnel.linux.networks import without

KEYS = [config.PrivateKey.from_random(bytes([number]) * 32) for number in range(1, 5)]
PUBLIC = [key.public_key().to_base64() for key in KEYS]

HUB = f"""\
# The hub of the office.
[interface]  # here
  PrivateKey={KEYS[0].to_base64()}
Address = 10.9.0.1/29, fd00:1::1/64
ListenPort = 51820
PostUp = echo "#not a comment"

[Peer]   # the first
# friendly_name = desk
PublicKey = {PUBLIC[1]}
AllowedIPs = 10.9.0.2/32, fd00:1::2/128   # both
#! tunnel: LogLevel = debug

# Belongs to the printer.
[Peer]
PublicKey = {PUBLIC[2]}
AllowedIPs = 10.9.0.3
"""


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    path = tmp_path / "office.conf"
    path.write_text(HUB)
    path.chmod(0o640)
    return path


def run(*words: object, code: int = 0) -> tuple[str, str]:
    done = CliRunner().invoke(main.make_app("peer"), ["peer", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.stdout, done.stderr


def add_late(hub: Path, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Add a peer called late by a process whose standard output is a file."""
    command = [sys.executable, "-m", "tunnel", "peer", "add", str(hub), "late", *options]
    with output.open("w") as file:
        return subprocess.run(
            [*command, "--endpoint", "192.0.2.1"],
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )


@pytest.mark.parametrize("options", [[], ["--qr"]])
def test_no_conf_is_printed_for_a_peer_that_could_not_be_added(
    hub: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    stdout, stderr = run("add", hub, "late", "--endpoint", "192.0.2.1", *options, code=2)
    assert not stdout
    assert "could not be replaced (No space left on device), and is as it was" in stderr
    assert "late" not in hub.read_text()


@pytest.mark.parametrize("options", [[], ["--qr"]])
def test_a_peer_whose_conf_cannot_be_printed_is_not_added(hub: Path, options: list[str]) -> None:
    done = add_late(hub, Path("/dev/full"), *options)
    assert done.returncode == 1
    assert "tunnel: the peer was not added, as its conf could not be printed\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.read_text() == HUB
    assert hub.stat().st_mode & 0o777 == 0o640


def test_a_conf_that_others_can_read_is_not_to_be_made_again(hub: Path, tmp_path: Path) -> None:
    path = tmp_path / "late.conf"
    path.touch()
    path.chmod(0o644)
    done = add_late(hub, path)
    assert done.returncode == 0, done.stderr
    assert "world accessible file.\nRun chmod 600 on it, " in done.stderr
    assert "again" not in done.stderr


def test_a_peer_that_cannot_be_taken_back_is_not_said_to_be_gone(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, done = os.replace, 0

    def replace_once(*words: Any, **options: Any) -> None:
        nonlocal done
        done += 1
        if done > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(*words, **options)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", replace_once)
    monkeypatch.setattr("tunnel.cli.peer._print", refuse)
    stdout, stderr = run("add", hub, "late", "--endpoint", "192.0.2.1", code=2)
    assert not stdout
    assert stderr == (
        f"{hub}: the file could not be replaced (No space left on device), and still has the "
        f"new peer; fix the cause, and remove that peer: tunnel peer remove {hub} NAME\n"
    )
    assert "late" in hub.read_text()


def added(hub: Path, *words: object) -> config.TunnelConfig:
    text, _ = run("add", hub, *words)
    return config.parse(text, name="wg0")


def test_the_other_side_of_a_new_peer_fits(hub: Path) -> None:
    theirs = added(hub, "laptop", "--endpoint", "vpn.example.com")
    ours = config.load(hub).peers[-1]
    assert ours.friendly_name == "laptop"
    assert theirs.interface.private_key is not None
    assert ours.public_key == theirs.interface.private_key.public_key()
    assert list(map(str, ours.networks)) == ["10.9.0.4/32", "fd00:1::3/128"]
    assert list(map(str, theirs.interface.addresses)) == ["10.9.0.4/32", "fd00:1::3/128"]
    (there,) = theirs.peers
    assert there.public_key == KEYS[0].public_key()
    assert there.preshared_key == ours.preshared_key is not None
    assert str(there.endpoint) == "vpn.example.com:51820"
    assert list(map(str, there.networks)) == ["10.9.0.0/29", "fd00:1::/64"]


def test_the_text_keeps_every_line_and_its_mode(hub: Path) -> None:
    added(hub, "laptop", "--endpoint", "vpn.example.com:443")
    lines = hub.read_text().splitlines()
    kept = HUB.splitlines()
    kept.insert(2, "# endpoint = vpn.example.com:443")
    assert lines[: len(kept)] == kept
    assert hub.stat().st_mode & 0o777 == 0o640
    assert str(added(hub, "phone").peers[0].endpoint) == "vpn.example.com:443", "as it was noted"


def test_addresses_run_out(hub: Path) -> None:
    for number in range(3):
        added(hub, f"peer {number}", "--endpoint", "192.0.2.1", "--address", f"10.9.0.{4 + number}")
    assert list(map(str, added(hub, "v6").interface.addresses)) == ["fd00:1::3/128"]
    hub.write_text(hub.read_text().replace(", fd00:1::1/64", ""))
    before = hub.read_text()
    _, error = run("add", hub, "one more", code=2)
    assert "--address" in error
    assert hub.read_text() == before


def test_excluded_prefixes_are_not_sent(hub: Path) -> None:
    theirs = added(
        hub,
        *("laptop", "--endpoint", "192.0.2.1", "--allowed-ips", "0.0.0.0/0,::/0"),
        *("--exclude", "192.168.1.0/24", "--exclude", "192.0.2.1"),
    )
    networks = theirs.networks
    for text, is_sent in {
        "192.168.1.7": False,
        "192.0.2.1": False,
        "192.168.2.1": True,
        "192.0.2.0": True,
        "192.0.2.2": True,
        "8.8.8.8": True,
        "2001:db8::1": True,
    }.items():
        assert any(ip_address(text) in network for network in networks) is is_sent, text
    assert ip_network("::/0") in networks


@pytest.mark.parametrize(
    ("networks", "holes", "left"),
    [
        (["10.0.0.0/8"], ["10.0.0.0/8"], []),
        (["10.0.0.0/8"], ["0.0.0.0/0"], []),
        (["10.0.0.0/8", "fd00::/8"], ["192.168.0.0/16"], ["10.0.0.0/8", "fd00::/8"]),
        (["10.0.0.0/30"], ["10.0.0.1/32", "10.0.0.0/32"], ["10.0.0.2/31"]),
        (["10.0.0.0/25", "10.0.0.128/25"], ["fd00::/8"], ["10.0.0.0/24"]),
    ],
)
def test_networks_minus_networks(networks: list[str], holes: list[str], left: list[str]) -> None:
    found = without(map(ip_network, networks), map(ip_network, holes))
    assert list(map(str, found)) == left


def test_a_disabled_peer_is_as_it_was_once_it_is_enabled(hub: Path) -> None:
    run("disable", hub, "desk")
    loaded = config.load(hub)
    assert [peer.public_key.to_base64() for peer in loaded.peers] == [PUBLIC[2]]
    assert loaded.interface.options.log_level == "debug", "an option of the whole tunnel stays"
    assert "desk     10.9.0.2/32" not in run("list", hub)[0]
    listed = json.loads(run("list", hub, "--json")[0])
    assert [(peer["public_key"], peer["disabled"]) for peer in listed] == [
        (PUBLIC[1], True),
        (PUBLIC[2], False),
    ]
    assert "10.9.0.4/32" in run("add", hub, "x", "--endpoint", "192.0.2.1")[1], (
        "it keeps its address"
    )
    run("remove", hub, "x")
    run("disable", hub, "desk", code=1)
    run("enable", hub, "desk")
    run("enable", hub, "desk", code=1)
    assert hub.read_text().replace("# endpoint = 192.0.2.1:51820\n", "").rstrip() == HUB.rstrip()


def test_a_disabled_peer_survives_the_removal_of_the_next(hub: Path) -> None:
    hub.write_text(HUB.replace("#! tunnel: LogLevel = debug\n\n# Belongs to the printer.\n", ""))
    run("disable", hub, "desk")
    run("remove", hub, PUBLIC[2])
    run("enable", hub, "desk")
    assert [peer.friendly_name for peer in config.load(hub).peers] == ["desk"]


@pytest.mark.parametrize("is_disabled", [False, True])
def test_removal_takes_the_section_and_its_comment(hub: Path, is_disabled: bool) -> None:
    if is_disabled:
        run("disable", hub, "10.9.0.3")
    run("remove", hub, PUBLIC[2])
    assert hub.read_text().rstrip() == HUB[: HUB.index("# Belongs")].rstrip()


@pytest.mark.parametrize("is_disabled", [False, True])
def test_a_peer_gets_another_name_or_its_first(hub: Path, is_disabled: bool) -> None:
    if is_disabled:
        run("disable", hub, "desk")
        run("disable", hub, PUBLIC[2])
    run("rename", hub, "desk", "Ann’s desk")
    run("rename", hub, PUBLIC[2], "printer")
    names = [peer["name"] for peer in json.loads(run("list", hub, "--json")[0])]
    assert names == ["Ann’s desk", "printer"]
    if is_disabled:
        run("enable", hub, "Ann’s desk")
        run("enable", hub, "printer")
    expected = HUB.replace("= desk", "= Ann’s desk")
    head = "printer.\n[Peer]\n"
    assert hub.read_text() == expected.replace(head, f"{head}# friendly_name = printer\n")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("7d", "2030-01-08T00:00:00Z"),
        ("90s", "2030-01-01T00:01:30Z"),
        ("2031-01-01T01:00:00+01:00", "2031-01-01T00:00:00Z"),
    ],
)
def test_a_peer_for_a_time(
    hub: Path, given: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = expiry("2030-01-01T00:00:00Z")
    monkeypatch.setattr("tunnel.cli.peer.time.time", lambda: now)
    added(hub, "guest", "--endpoint", "192.0.2.1", "--expires", given)
    until = config.load(hub).peers[-1].expires
    assert until == expiry(expected)
    assert f"(expires {expected})" in run("list", hub)[0]
    hub.write_text(hub.read_text().replace(expected, "2020-01-01T00:00:00Z"))
    assert "(expired 2020-01-01T00:00:00Z)" in run("list", hub)[0]
    hub.write_text(hub.read_text().replace("2020-01-01T00:00:00Z", expected))
    run("disable", hub, "guest")
    assert config.load(hub).peers[-1].friendly_name != "guest"
    run("enable", hub, "guest")
    run("rename", hub, "guest", "visitor")
    assert config.load(hub).peers[-1].expires == until
    run("remove", hub, "visitor")
    assert "expires" not in hub.read_text()


@pytest.mark.parametrize(
    "words",
    [
        ("add", "guest", "--endpoint", "192.0.2.1", "--expires", "soon"),
        ("add", "guest", "--endpoint", "192.0.2.1", "--expires", "2020-01-01T00:00:00Z"),
        ("add", "desk", "--endpoint", "192.0.2.1"),
        ("add", "two\nlines", "--endpoint", "192.0.2.1"),
        ("add", "", "--endpoint", "192.0.2.1"),
        ("add", "laptop"),
        ("add", "laptop", "--endpoint", "vpn.example.com:99999"),
        ("add", "laptop", "--endpoint", "192.0.2.1", "--exclude", "10.0.0.1/8"),
        ("add", "laptop", "--endpoint", "192.0.2.1", "--dns", "-"),
        ("remove", "nobody"),
        ("rename", "desk", "desk"),
    ],
    ids=str,
)
def test_a_mistake_changes_nothing(hub: Path, words: tuple[str, ...]) -> None:
    command, *others = words
    _, error = run(command, hub, *others, code=2)
    assert "Traceback" not in error
    assert hub.read_text() == HUB


def test_a_conf_is_written_for_its_owner_only_and_over_nothing(hub: Path, tmp_path: Path) -> None:
    output = tmp_path / "laptop.conf"
    before = os.umask(0)
    try:
        run("add", hub, "laptop", "--endpoint", "192.0.2.1", "--output", output)
    finally:
        os.umask(before)
    assert output.stat().st_mode & 0o777 == 0o600
    config.load(output)
    text = hub.read_text()
    _, error = run("add", hub, "phone", "--output", output, code=2)
    assert "nothing was changed" in error
    assert hub.read_text() == text


def test_lines_that_end_as_on_another_system_go_on_so(hub: Path) -> None:
    hub.write_bytes(HUB.replace("\n", "\r\n").encode())
    added(hub, "laptop", "--endpoint", "192.0.2.1")
    run("rename", hub, PUBLIC[2], "printer")
    run("disable", hub, "desk")
    run("enable", hub, "desk")
    lines = hub.read_bytes().split(b"\n")
    assert all(line.endswith(b"\r") for line in lines[:-1])
    assert lines[-1] == b""
