"""Hooks of `tunnel up` that call `wg`, what is saved of it, and what `wg` makes of our strip."""

from __future__ import annotations

import sys

import pytest

from tests.support.daemons import remains, rewrite
from tests.support.hosts import TwoHosts
from tests.support.pairs import Pair, make_pair
from tests.support.tunnel_wg import ROOT, start, wg
from tunnel.lab import LabError
from tunnel.lab.peers import Node, OurEnd, generate_preshared_key, render_conf

pytestmark = [pytest.mark.root, pytest.mark.foreign("wg"), pytest.mark.timeout(300)]

SOME_KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="


@pytest.fixture
def end(two_hosts: TwoHosts) -> OurEnd:
    """An end that is not up; its one peer does not answer."""
    a = Node(two_hosts.a, ("10.77.0.1/24", "fd77::1/64"), "192.0.2.1")
    b = Node(two_hosts.b, ("10.77.0.2/24", "fd77::2/64"), "192.0.2.2")
    return OurEnd(a, render_conf(a, [b]))


def add_hooks(end: OurEnd, *lines: str) -> None:
    text = "".join(f"{line}\n" for line in lines)
    rewrite(end, "ListenPort", f"{text}ListenPort")


def test_hooks_may_call_wg_at_every_time_the_interface_is_there(end: OurEnd) -> None:
    host = end.node.host
    seen = host.directory / "seen"
    add_hooks(
        end,
        "PreUp = wg set %i fwmark 0x77",
        f"PreUp = wg show %i fwmark > {seen}",
        f"PostUp = wg set %i peer {SOME_KEY} allowed-ips 10.99.0.0/16",
        f"PostUp = wg show %i allowed-ips >> {seen}",
        f"PreDown = wg set %i peer {SOME_KEY} remove",
        f"PreDown = wg show %i peers >> {seen}",
    )
    end.up()
    # As after wg-quick's setconf, the conf has the last word.
    assert wg(host, "show", "wg0", "fwmark") == "off\n"
    assert f"{SOME_KEY}\t10.99.0.0/16" in wg(host, "show", "wg0", "allowed-ips")
    end.down()
    said = seen.read_text()
    assert said.startswith("0x77\n")
    assert said.count("10.99.0.0/16") == 1
    assert said.splitlines()[-1] != SOME_KEY
    assert remains(host) == []


def test_saveconfig_keeps_what_hooks_and_people_set(end: OurEnd) -> None:
    host = end.node.host
    add_hooks(
        end,
        "# the way home",
        "SaveConfig = true",
        f"PostUp = wg set %i peer {SOME_KEY} allowed-ips 10.99.0.0/16",
        f"PreDown = wg set %i peer {SOME_KEY} persistent-keepalive 21",
    )
    end.up()
    psk = generate_preshared_key()
    peer = ("peer", SOME_KEY, "preshared-key", "/dev/stdin")
    wg(host, "set", "wg0", *peer, stdin=psk)
    said = end.tunnel("save", "wg0").splitlines()
    assert said[0] == f"saved {end.conf}"
    assert [line.partition(": ")[2] for line in said[1:]] == [
        "",
        "[Peer]",
        f"PublicKey = {SOME_KEY}",
        "PresharedKey = (hidden)",
        "AllowedIPs = 10.99.0.0/16",
    ]
    wg(host, "set", "wg0", "listen-port", "6000")
    end.down()
    text = end.conf.read_text()
    assert f"PresharedKey = {psk}\n" in text
    for line in ("# the way home", "ListenPort = 6000", "PersistentKeepalive = 21"):
        assert f"{line}\n" in text
    end.up()
    assert wg(host, "show", "wg0", "listen-port") == "6000\n"
    end.down()
    assert end.conf.read_text() == text
    assert remains(host) == []


def test_conf_that_cannot_be_saved_stops_no_going_down(end: OurEnd) -> None:
    host = end.node.host
    add_hooks(end, "SaveConfig = true")
    end.up()
    wg(host, "set", "wg0", "listen-port", "6000")
    end.conf.write_text(before := end.conf.read_text().replace("[Peer]", "[Pear]"))
    with pytest.raises(LabError, match="Pear"):
        end.tunnel("save", "wg0")
    with pytest.raises(LabError, match="status 1: tunnel: SaveConfig: "):
        end.down()
    assert end.conf.read_text() == before
    assert "SaveConfig: " in host.run(["cat", "/run/tunnel/wg0.log"]).stdout
    assert "ListenPort = 6000" in host.run(["cat", "/run/tunnel/wg0.unsaved.conf"]).stdout
    assert remains(host) == ["wg0.unsaved.conf"]


def test_strip_is_what_wg_takes(end: OurEnd, two_hosts: TwoHosts, script: str) -> None:
    add_hooks(end, "PostUp = true", "DNS = 10.77.0.2", "SaveConfig = true", "MTU = 1300")
    end.conf.write_text(end.conf.read_text() + "\n[Tunnel]\nDatapath = python\n")
    stripped = end.tunnel("strip", str(end.conf))
    start(two_hosts.b, script)
    for command in ("setconf", "addconf", "syncconf"):
        wg(two_hosts.b, command, "wg0", "/dev/stdin", stdin=stripped)
    assert wg(two_hosts.b, "show", "wg0", "private-key") == f"{end.node.private_key}\n"


@pytest.mark.parametrize(
    "hook",
    [
        "PreUp = false",
        "PreUp = wg set %i peer nonsense",
        "PostUp = false",
        "PostUp = wg set %i private-key /nowhere",
    ],
)
def test_hook_that_fails_undoes_everything_and_saves_nothing(end: OurEnd, hook: str) -> None:
    host = end.node.host
    done = host.directory / "done"
    add_hooks(
        end,
        "SaveConfig = true",
        f"PreUp = wg set %i peer {SOME_KEY}",
        f"PreDown = touch {done}",
        f"PostDown = touch {done}",
        hook,
    )
    before = end.conf.read_text()
    with pytest.raises(LabError, match=f"status 1: .*{hook.partition(' ')[0]}"):
        end.up()
    assert remains(host) == []
    assert end.conf.read_text() == before
    assert not done.exists()


def test_hook_may_ask_its_own_daemon(two_hosts: TwoHosts) -> None:
    """A daemon that waits for a hook still answers: also the hook itself."""
    pair: Pair = make_pair(two_hosts)
    a, _ = pair.hosts
    pair.a.down()
    command = f"PYTHONPATH={ROOT} {sys.executable} -m tunnel"
    add_hooks(pair.a, f"PreDown = {command} show %i > {a.directory}/shown")
    pair.a.up()
    pair.a.down()
    assert "listening port: 51820" in (a.directory / "shown").read_text()


@pytest.mark.parametrize("kind", ["PreUp", "PostUp"])
def test_private_key_by_a_hook_is_used_and_never_saved(end: OurEnd, kind: str) -> None:
    host = end.node.host
    key_file = host.directory / "key"
    key_file.write_text(end.node.private_key)
    rewrite(
        end,
        f"PrivateKey = {end.node.private_key}",
        f"SaveConfig = true\n{kind} = wg set %i private-key <(cat {key_file})",
    )
    end.up()
    assert wg(host, "show", "wg0", "private-key").strip() == end.node.private_key
    assert end.tunnel("diff", "wg0") == "reload would change nothing\n"
    end.tunnel("reload", "wg0")
    assert wg(host, "show", "wg0", "private-key").strip() == end.node.private_key
    wg(host, "set", "wg0", "peer", SOME_KEY)
    end.down()
    assert SOME_KEY in end.conf.read_text()
    assert end.node.private_key not in end.conf.read_text()


def test_tunnel_that_no_hook_gave_a_key_says_so(end: OurEnd) -> None:
    rewrite(end, f"PrivateKey = {end.node.private_key}", "PostUp = true")
    said = end.node.host.run([sys.executable, "-m", "tunnel", "up", str(end.conf)]).stderr
    assert "has no private key, so no peer can be reached" in said
    end.down()


def test_what_hooks_change_is_part_of_the_conf(end: OurEnd, two_hosts: TwoHosts) -> None:
    host, peer = end.node.host, Node(two_hosts.b, ()).public_key
    psk = host.directory / "psk"
    psk.write_text(generate_preshared_key())
    conf_peer = end.conf.read_text().partition("PublicKey = ")[2].split()[0]
    rewrite(end, "AllowedIPs = ", "AllowedIPs = 10.66.0.0/16, ")
    add_hooks(
        end,
        "PostUp = ip link set dev %i mtu 1380",
        "PostUp = ip route del 10.66.0.0/16 dev %i",
        f"PostUp = wg set %i peer {conf_peer} preshared-key {psk}",
        f"PostUp = wg set %i peer {peer} allowed-ips 10.67.0.0/16 endpoint 192.0.2.7:7",
    )
    end.up()

    def state() -> list[str]:
        link = host.ip_json(["link", "show", "dev", "wg0"])[0]["mtu"]
        routes = [route["dst"] for route in host.ip_json(["route", "show", "dev", "wg0"])]
        return [str(link), *routes, wg(host, "showconf", "wg0")]

    before = state()
    assert before[0] == "1380"
    assert "10.66.0.0/16" not in before
    assert peer in before[-1]
    assert psk.read_text().strip() in before[-1]
    assert end.tunnel("diff", "wg0") == "reload would change nothing\n"
    assert end.tunnel("reload", "wg0") == "nothing to change\n"
    assert state() == before
    # With the interface set down and up, too.
    host.ip("link set wg0 down", "link set wg0 up")
    assert end.tunnel("diff", "wg0") == "reload would change nothing\n"
    # Damage is damage still, and what the conf says by itself counts.
    wg(host, "set", "wg0", "peer", conf_peer, "allowed-ips", "")
    rewrite(end, "PostUp = ip link", "MTU = 1390\nPostUp = ip link")
    said = end.tunnel("reload", "wg0")
    assert f"+ peer {conf_peer} allowed IPs" in said
    assert host.ip_json(["link", "show", "dev", "wg0"])[0]["mtu"] == 1390
    assert peer in wg(host, "show", "wg0", "peers")
    end.down()
    assert remains(host) == []
