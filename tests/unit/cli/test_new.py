"""`tunnel new`: confs that fit together and collide with nothing."""

from __future__ import annotations

import os
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import permutations
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunnel import config
from tunnel.cli import main
from tunnel.config.files import ENVIRONMENT
from tunnel.config.fresh import choose_networks
from tunnel.config.problems import Mistake
from tunnel.pair import choosing


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "etc"))
    monkeypatch.setattr(choosing, "networks_in_use", tuple)
    monkeypatch.setattr(choosing, "udp_ports_in_use", frozenset)
    return tmp_path


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(main.make_app("new"), ["new", *words])
    assert done.exit_code == code, done.output
    return done.output


def confs(tunnel: str) -> dict[str, config.TunnelConfig]:
    return {path.parent.name: config.load(path) for path in Path(tunnel).glob("*/*.conf")}


def reaches(one: config.TunnelConfig, other: config.TunnelConfig) -> str | None:
    """The name of the peer to which `one` sends what is for an address of `other`."""
    names = set()
    for address in other.interface.addresses:
        owners = [
            (network.prefixlen, peer.friendly_name)
            for peer in one.peers
            for network in peer.networks
            if address.ip in network
        ]
        names.add(max(owners)[1] if owners else None)
    (name,) = names
    return name


@pytest.mark.parametrize(
    ("words", "by"),
    [
        ("a=192.0.2.1 b", None),
        ("a=2001:db8::1 b=[2001:db8::2]:7", None),
        ("a=vpn.example.com b c d", "a"),
        ("a=192.0.2.1 b", "a --shape hub"),
        ("a=192.0.2.1 b=192.0.2.2 c", "--shape mesh"),
    ],
)
def test_each_host_reaches_each_other(words: str, by: str | None) -> None:
    hub, _, options = (by or "").partition(" ") if by and by[0] == "a" else ("", "", by or "")
    run("office", *words.split(), *options.split(), "--yes")
    made = confs("office")
    assert sorted(made) == sorted(word.partition("=")[0] for word in words.split())
    keys = {name: conf.interface.private_key for name, conf in made.items()}
    for one, other in permutations(made, 2):
        via = hub if hub and hub != one else other
        assert reaches(made[one], made[other]) == via
    for name, conf in made.items():
        assert conf.warnings == ()
        assert {address.version for address in conf.interface.addresses} == {4, 6}
        for peer in conf.peers:
            there = keys[peer.friendly_name]
            assert there is not None
            assert peer.public_key == there.public_key()
            (back,) = [p for p in made[peer.friendly_name].peers if p.friendly_name == name]
            assert back.preshared_key == peer.preshared_key is not None
            assert peer.endpoint is not None or back.endpoint is not None
            assert bool(peer.persistent_keepalive) is (back.endpoint is None)
            assert peer.endpoint is None or (
                peer.endpoint.port == made[peer.friendly_name].interface.listen_port
            )


def test_no_folder_is_left_where_nothing_was_written() -> None:
    Path("office/b").mkdir(parents=True)
    Path("office/b/office.conf").touch()
    assert "nothing was written" in run("office", "a=192.0.2.1", "b", code=2)
    assert [path.name for path in Path("office").iterdir()] == ["b"]


def test_files_are_for_their_owner_and_none_is_overwritten() -> None:
    before = os.umask(0)
    try:
        run("office", "a=192.0.2.1", "b")
    finally:
        os.umask(before)
    texts = {path: path.read_text() for path in Path("office").glob("*/*.conf")}
    assert [path.stat().st_mode & 0o777 for path in texts] == [0o600, 0o600]
    Path("office/b/office.conf").unlink()
    output = run("office", "b=192.0.2.1", "a", code=2)
    assert "nothing was written" in output
    assert not Path("office/b/office.conf").exists(), "all or none"
    assert Path("office/a/office.conf").read_text() == texts[Path("office/a/office.conf")]


def test_the_next_steps_are_named() -> None:
    output = run("office", "hub=192.0.2.1", "phone", "laptop")
    assert "hub: copy office/hub/office.conf to /etc/tunnel/office.conf there; tunnel up" in output
    assert "tunnel qr ./office/laptop/office.conf" in output


def test_ports_and_prefixes_of_this_host_are_left_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("first", "a=192.0.2.1", "b")
    (here / "etc").mkdir()
    Path("first/a/first.conf").rename(here / "etc" / "first.conf")
    monkeypatch.setattr(choosing, "udp_ports_in_use", lambda: frozenset({51821}))
    # All of 10/8 is in use but for one network.
    free = IPv4Network("10.99.0.0/16")
    monkeypatch.setattr(
        choosing, "networks_in_use", lambda: tuple(IPv4Network("10.0.0.0/8").address_exclude(free))
    )
    run("second", "a=192.0.2.1", "b")
    made = confs("second")["a"]
    assert made.interface.listen_port == 51822
    assert made.interface.addresses[0].ip in free


def test_prefixes_are_private_and_random_and_collide_with_nothing() -> None:
    taken = [ip_network("0.0.0.0/0"), ip_network("::/0"), ip_network("10.64.0.0/11")]
    found = {choose_networks(taken, os.urandom) for _ in range(100)}
    assert len(found) > 50
    for v4, v6 in found:
        assert v4.subnet_of(IPv4Network("10.0.0.0/8"))
        assert not v4.overlaps(ip_network("10.64.0.0/11"))
        assert v6.subnet_of(IPv6Network("fd00::/8"))
        assert (v4.prefixlen, v6.prefixlen) == (24, 64)
    with pytest.raises(Mistake, match="no private prefix"):
        choose_networks([ip_network("10.0.0.0/8")], os.urandom)


def test_given_prefixes() -> None:
    run("office", "a=192.0.2.1", "b", "--network", "192.168.77.0/24")
    made = confs("office")
    assert list(map(str, made["b"].interface.addresses)) == ["192.168.77.2/24"]
    assert ip_address("192.168.77.1") in made["b"].peers[0].networks[0]


@pytest.mark.parametrize(
    "words",
    [
        ("office",),
        ("office", "a=192.0.2.1"),
        ("office", "a", "b"),
        ("office", "a=192.0.2.1", "b", "c", "--shape", "mesh"),
        ("office", "a=192.0.2.1", "b", "c", "--shape", "pair"),
        ("office", "a=192.0.2.1", "a"),
        ("office", "a=192.0.2.1", "../b"),
        ("office", "a=192.0.2.1", ""),
        ("office", "a=http://x", "b"),
        ("a name too long for it", "a=192.0.2.1", "b"),
        ("office", "a=192.0.2.1", "b", "--network", "10.0.0.1/8"),
        ("office", "a=192.0.2.1", "b", "--network", "10.0.0.0/30"),
        ("office", "a=192.0.2.1", *(f"b{number}" for number in range(250))),
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_what_makes_no_tunnel_is_refused_and_nothing_is_written(
    words: tuple[str, ...], here: Path
) -> None:
    assert "Traceback" not in run(*words, code=2)
    assert list(here.iterdir()) == []
