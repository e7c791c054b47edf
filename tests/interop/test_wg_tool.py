"""The real `wg` drives a running tunnel."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.daemons import status
from tests.support.hosts import TwoHosts
from tests.support.pairs import Pair, make_pair
from tunnel.cli.fields import FIELDS
from tunnel.lab import Host
from tunnel.lab.peers import generate_preshared_key

pytestmark = [pytest.mark.root, pytest.mark.foreign("wg")]

SOME_KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
SOCKET = "/run/wireguard/wg0.sock"


def wg(host: Host, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
    result = host.run(["wg", *arguments], stdin=stdin, check=check)
    return result.stdout if check else result.stderr


def show(host: Host, what: str) -> str:
    return wg(host, "show", "wg0", what).strip()


def test_show_tells_what_our_own_show_tells(pair: Pair) -> None:
    a, _ = pair.hosts
    a.ping(pair.b.node.address())
    found = status(pair.a)
    (peer,) = found["peers"]
    assert wg(a, "show", "interfaces").split() == ["wg0"]
    assert show(a, "public-key") == pair.a.node.public_key
    assert show(a, "listen-port") == str(found["listen_port"])
    assert show(a, "fwmark") == "off"
    assert show(a, "peers") == peer["public_key"]
    assert show(a, "endpoints").split()[1] == peer["endpoint"]
    assert show(a, "allowed-ips").split()[1:] == peer["allowed_ips"]
    assert int(show(a, "latest-handshakes").split()[1]) == int(peer["latest_handshake"])
    assert int(show(a, "transfer").split()[1]) > 0
    assert "latest handshake" in wg(a, "show")
    assert a.run(["stat", "-c", "%a %F", SOCKET]).stdout == "600 socket\n"


@pytest.mark.parametrize("name", ["wg0", "all"])
def test_each_field_is_what_wg_prints(pair: Pair, name: str) -> None:
    a, _ = pair.hosts
    a.ping(pair.b.node.address())

    def both_say_the_same(field: str) -> bool:
        return pair.a.tunnel("show", name, field) == wg(a, "show", name, field)

    for field in FIELDS:
        # A keepalive may come between the two.
        a.wait_for(partial(both_say_the_same, field), 10, f"the same {field} of both")
    assert pair.a.tunnel("show", "interfaces") == wg(a, "show", "interfaces")


def test_showconf_goes_back_in_by_syncconf_and_keeps_the_session(pair: Pair) -> None:
    a, _ = pair.hosts
    a.ping(pair.b.node.address())
    conf = wg(a, "showconf", "wg0")
    before = show(a, "latest-handshakes")
    wg(a, "syncconf", "wg0", "/dev/stdin", stdin=conf)
    assert wg(a, "showconf", "wg0") == conf
    a.ping(pair.b.node.address())
    assert show(a, "latest-handshakes") == before


def test_setconf_and_addconf(pair: Pair) -> None:
    a, _ = pair.hosts
    conf = wg(a, "showconf", "wg0")
    more = f"[Peer]\nPublicKey = {SOME_KEY}\nAllowedIPs = 10.99.0.0/16\n"
    wg(a, "addconf", "wg0", "/dev/stdin", stdin=more)
    assert set(show(a, "peers").split()) == {SOME_KEY, pair.b.node.public_key}
    wg(a, "setconf", "wg0", "/dev/stdin", stdin=conf)
    assert wg(a, "showconf", "wg0") == conf
    a.ping(pair.b.node.address())


def test_set_every_value_of_a_peer_and_remove_it(pair: Pair) -> None:
    a, _ = pair.hosts
    psk = generate_preshared_key()
    command = ["set", "wg0", "peer", SOME_KEY, "endpoint", "[2001:db8::2]:9", "allowed-ips"]
    command += ["10.99.0.0/16,fd99::/64", "persistent-keepalive", "25", "preshared-key"]
    wg(a, *command, "/dev/stdin", stdin=psk + "\n")
    dump = wg(a, "show", "wg0", "dump").splitlines()
    (line,) = (line.split("\t") for line in dump if line.startswith(SOME_KEY))
    # Not the counters: it tries to reach the peer.
    assert line[1:4] == [psk, "[2001:db8::2]:9", "10.99.0.0/16,fd99::/64"]
    assert line[7] == "25"
    wg(a, "set", "wg0", "peer", SOME_KEY, "remove")
    assert show(a, "peers") == pair.b.node.public_key


def test_allowed_ips_move_between_peers(pair: Pair) -> None:
    a, _ = pair.hosts
    taken = f"{pair.b.node.address()}/32"
    wg(a, "set", "wg0", "peer", SOME_KEY, "allowed-ips", taken)
    lines = dict(line.split("\t", 1) for line in show(a, "allowed-ips").splitlines())
    assert lines[SOME_KEY] == taken
    assert taken not in lines[pair.b.node.public_key].split()


def test_listen_port_moves_under_a_running_session(pair: Pair) -> None:
    a, b = pair.hosts
    a.ping(pair.b.node.address())
    wg(a, "set", "wg0", "listen-port", "7777", "fwmark", "0x10")
    assert (show(a, "listen-port"), show(a, "fwmark")) == ("7777", "0x10")
    a.ping(pair.b.node.address(), count=2)
    assert show(b, "endpoints").split()[1] == "192.0.2.1:7777"


def test_preshared_key_on_both_sides(two_hosts: TwoHosts) -> None:
    pair = make_pair(two_hosts)
    psk = generate_preshared_key()
    for end, other in ((pair.a, pair.b), (pair.b, pair.a)):
        arguments = ["set", "wg0", "peer", other.node.public_key, "preshared-key", "/dev/stdin"]
        wg(end.node.host, *arguments, stdin=psk + "\n")
    pair.hosts[0].ping(pair.b.node.address(), count=2)
    assert show(pair.hosts[0], "preshared-keys").split()[1] == psk


def test_a_set_that_fails_says_why_and_changes_nothing(pair: Pair) -> None:
    a, _ = pair.hosts
    before = wg(a, "showconf", "wg0")
    holder = a.popen(
        [
            "python3",
            "-c",
            "import socket, time\ns = socket.socket(2, 2)\n"
            "s.bind(('', 7778))\nprint('bound', flush=True)\ntime.sleep(60)",
        ]
    )
    holder.wait_for_output("bound")
    command = ["set", "wg0", "fwmark", "7", "listen-port", "7778"]
    error = wg(a, *command, "peer", SOME_KEY, "allowed-ips", "10.99.0.0/16", check=False)
    assert "Address already in use" in error
    assert wg(a, "showconf", "wg0") == before
    assert show(a, "fwmark") == "off"
    a.ping(pair.b.node.address())


def test_many_allowed_ips_go_in_and_come_out_whole(pair: Pair) -> None:
    a, _ = pair.hosts
    networks = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(1 << 15)]
    networks += [f"fd99:{n:x}::/64" for n in range(1 << 15)]
    more = f"[Peer]\nPublicKey = {SOME_KEY}\nAllowedIPs = {', '.join(networks)}\n"
    conf = wg(a, "showconf", "wg0")
    wg(a, "setconf", "wg0", "/dev/stdin", stdin=conf + more)
    shown = show(a, "allowed-ips").splitlines()
    (line,) = (line for line in shown if line.startswith(SOME_KEY))
    assert len(set(line.split("\t")[1].split())) == len(networks)


def test_the_socket_goes_with_the_tunnel(pair: Pair) -> None:
    a, _ = pair.hosts
    pair.a.down()
    assert a.run(["test", "-e", SOCKET], check=False).returncode != 0
