"""`tunnel reload` and `tunnel diff`: every kind of change, under traffic where it matters."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import pytest

from tests.support.daemons import remains, rewrite, status
from tests.support.hosts import TwoHosts
from tests.support.pairs import Pair
from tunnel.lab import Host, LabError
from tunnel.lab.peers import Node, OurEnd, generate_preshared_key, render_conf

pytestmark = pytest.mark.root

TUNNEL = (sys.executable, "-m", "tunnel")

OTHER = "[Peer]\nPublicKey = {key}\nAllowedIPs = 10.99.0.0/16, 10.77.0.9/32\n"
SOME_KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="


def lines(text: str) -> set[str]:
    return set(text.splitlines())


def handshake(end: OurEnd) -> float:
    found = status(end)["peers"][0]["latest_handshake"]
    assert found
    return float(found)


def addresses(host: Host) -> list[str]:
    return [str(found.address) for found in host.addresses("wg0")]


def routes(host: Host) -> set[str]:
    return {route["dst"] for route in host.ip_json(["route", "show", "dev", "wg0"])}


def test_nothing_changed(pair: Pair) -> None:
    assert pair.a.tunnel("diff", "wg0") == "reload would change nothing\n"
    assert pair.a.tunnel("reload", "wg0") == "nothing to change\n"
    assert json.loads(pair.a.tunnel("diff", "wg0", "--json")) == {
        "changes": [],
        "notes": [],
        "warnings": [],
    }


def test_addresses_routes_mtu_and_peers_at_once_keep_the_session(pair: Pair) -> None:
    a, b = pair.hosts
    a.ping(pair.b.node.address())
    before = handshake(pair.a)
    conf = pair.a.conf.read_text()
    rewrite(pair.a, "Address = ", "MTU = 1400\nAddress = 10.78.0.1/24, ")
    rewrite(pair.a, "AllowedIPs = ", "AllowedIPs = 10.88.0.0/16, ")
    pair.a.conf.write_text(pair.a.conf.read_text() + OTHER.format(key=SOME_KEY))
    expected = {
        "~ mtu: 1420 becomes 1400",
        "+ address 10.78.0.1/24",
        "+ route 10.88.0.0/16",
        "+ route 10.99.0.0/16",
        f"+ peer {pair.b.node.public_key} allowed IPs: 10.88.0.0/16",
        f"+ peer {SOME_KEY}: 10.77.0.9/32, 10.99.0.0/16",
    }
    assert lines(pair.a.tunnel("diff", "wg0")) == expected
    assert addresses(a) == ["10.77.0.1/24", "fd77::1/64"]
    assert lines(pair.a.tunnel("reload", "wg0")) == expected
    assert set(addresses(a)) == {"10.77.0.1/24", "fd77::1/64", "10.78.0.1/24"}
    assert {"10.88.0.0/16", "10.99.0.0/16"} <= routes(a)
    found = status(pair.a)
    assert found["mtu"] == 1400
    assert len(found["peers"]) == 2
    a.ping(pair.b.node.address(), count=2)
    b.ping(pair.a.node.address(), count=2)
    assert handshake(pair.a) == before
    # And back.
    pair.a.conf.write_text(conf)
    pair.a.tunnel("reload", "wg0")
    assert addresses(a) == ["10.77.0.1/24", "fd77::1/64"]
    assert not {"10.88.0.0/16", "10.99.0.0/16"} & routes(a)
    assert len(status(pair.a)["peers"]) == 1
    assert pair.a.tunnel("diff", "wg0") == "reload would change nothing\n"
    a.ping(pair.b.node.address(), count=2)
    assert handshake(pair.a) == before
    pair.a.down()
    assert remains(a) == []


def test_port_keys_psk_and_keepalive(pair: Pair) -> None:
    a, _ = pair.hosts
    a.ping(pair.b.node.address())
    psk = generate_preshared_key()
    for end in (pair.a, pair.b):
        rewrite(end, "AllowedIPs", f"PresharedKey = {psk}\nPersistentKeepalive = 25\nAllowedIPs")
    rewrite(pair.a, "ListenPort = 51820", "ListenPort = 51999")
    fresh = type(pair.a.node)(a, ()).private_key
    rewrite(pair.a, pair.a.node.private_key, fresh)
    public = type(pair.a.node)(a, (), private_key=fresh).public_key
    rewrite(pair.b, pair.a.node.public_key, public)
    rewrite(pair.b, "192.0.2.1:51820", "192.0.2.1:51999")
    printed = pair.a.tunnel("reload", "wg0")
    assert "~ listen port: 51820 becomes 51999" in printed
    assert f"~ private key: the public key becomes {public}" in printed
    assert f"~ peer {pair.b.node.public_key} preshared key: is set" in printed
    assert "persistent keepalive: off becomes 25 s" in printed
    assert psk not in printed
    assert fresh not in printed
    printed = pair.b.tunnel("reload", "wg0")
    assert f"- peer {pair.a.node.public_key}" in printed
    assert f"+ peer {public}" in printed
    assert f"+ peer {public} endpoint: 192.0.2.1:51999" in printed
    a.ping(pair.b.node.address(), timeout=15)
    found = status(pair.a)
    assert found["listen_port"] == 51999
    assert found["peers"][0]["has_preshared_key"] is True
    assert "51999" in status(pair.b)["peers"][0]["endpoint"]


def test_becoming_a_full_tunnel_and_back_by_sighup(pair: Pair) -> None:
    a, _ = pair.hosts
    a.ping(pair.b.node.address())
    before = handshake(pair.a)
    plain = pair.a.conf.read_text()
    rewrite(pair.a, "AllowedIPs = ", "AllowedIPs = 0.0.0.0/0, ::/0, ")

    def hang_up() -> None:
        os.kill(status(pair.a)["pid"], signal.SIGHUP)

    hang_up()
    a.wait_for(lambda: status(pair.a)["fwmark"] == 51820, 10, "the mark")
    a.ping(pair.b.node.address(), count=3)
    assert "lookup 51820" in a.run(["ip", "rule"]).stdout
    assert a.run(["nft", "list", "tables"]).stdout
    pair.a.conf.write_text(plain)
    hang_up()
    a.wait_for(lambda: status(pair.a)["fwmark"] == 0, 10, "the mark to go")
    a.wait_for(lambda: "lookup 51820" not in a.run(["ip", "rule"]).stdout, 10, "the rules to go")
    a.ping(pair.b.node.address(), count=3)
    assert handshake(pair.a) == before
    pair.a.down()
    assert remains(a) == []


def state(host: Host, end: OurEnd) -> list[Any]:
    found = status(end)
    del found["cpu_seconds"]
    for peer in found["peers"]:
        del peer["rx_bytes"], peer["tx_bytes"]
    return [
        found,
        host.run(["ip", "address", "show", "dev", "wg0"]).stdout,
        host.run(["ip", "rule"]).stdout,
        host.run(["ip", "route", "show", "table", "all"]).stdout,
        host.run(["nft", "list", "ruleset"]).stdout,
    ]


def test_errors_leave_everything_as_it_was(pair: Pair) -> None:
    a, _ = pair.hosts
    a.ping(pair.b.node.address())
    good = pair.a.conf.read_text()
    before = state(a, pair.a)
    many = good.replace("Address = ", "Address = 10.78.0.1/24, ").replace("51820\n", "51999\n", 1)
    a.ip("route add 10.88.0.0/16 via 192.0.2.2")
    conflict = many.replace("AllowedIPs = ", "AllowedIPs = 10.88.0.0/16, 10.89.0.0/16, ")
    with a.socket(2, 2) as holder:
        holder.bind(("0.0.0.0", 51998))
        for conf, words in (
            (many.replace("Address =", "Adress ="), r"status 2: .*wg0.conf:\d+: Adress"),
            (many + OTHER.format(key="short"), "status 2: .*PublicKey"),
            (conflict, r"status 1: tunnel: .*10.88.0.0/16.*File exists"),
            (many.replace("51999", "51998"), r"status 1: .*UDP port 51998 is taken.*\.conf:3\)"),
            (
                many + OTHER.format(key=SOME_KEY) + "Endpoint = no.invalid:1\n",
                "no.invalid",
            ),
        ):
            pair.a.conf.write_text(conf)
            with pytest.raises(LabError, match=f"(?s){words}"):
                pair.a.tunnel("reload", "wg0")
            a.ip("route del 10.88.0.0/16 via 192.0.2.2")
            assert state(a, pair.a) == before, words
            a.ip("route add 10.88.0.0/16 via 192.0.2.2")
    pair.a.conf.unlink()
    with pytest.raises(LabError, match="does not exist"):
        pair.a.tunnel("reload", "wg0")
    a.ip("route del 10.88.0.0/16 via 192.0.2.2")
    assert state(a, pair.a) == before
    a.ping(pair.b.node.address())


def tcp_counters(host: Host) -> dict[str, int]:
    """The TCP counters of the host, by the names of netstat(8)."""
    found: dict[str, int] = {}
    for file in ("snmp", "netstat"):
        lines = host.run(["cat", f"/proc/{host.pid}/net/{file}"]).stdout.splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            found.update(zip(names.split()[1:], map(int, values.split()[1:]), strict=True))
    return found


@pytest.mark.foreign("iperf3")
def test_reload_under_iperf3_loses_no_packet(pair: Pair) -> None:
    a, b = pair.hosts
    a.ping(pair.b.node.address())
    before = handshake(pair.a)
    server = b.popen(["iperf3", "-s", "-1", "--forceflush"])
    server.wait_for_output("Server listening")
    address = pair.b.node.address()
    # A rate at which nothing is lost for want of processor time.
    client = a.popen(["iperf3", "-c", address, "-t", "6", "-b", "40M", "-J"])
    a.wait_for(lambda: status(pair.a)["peers"][0]["tx_bytes"] > 1 << 20, 10, "traffic")
    plain = pair.a.conf.read_text()
    for number in range(3):
        networks = ", ".join(f"10.{number + 100}.{n}.0/24" for n in range(10))
        more = f"[Peer]\nPublicKey = {SOME_KEY}\nAllowedIPs = {networks}\n"
        changed = plain.replace("Address = ", f"Address = 10.78.{number}.1/24, ")
        pair.a.conf.write_text(changed + more)
        pair.a.tunnel("reload", "wg0")
    assert client.wait(30) == 0
    result = json.loads(client.log())
    assert result["end"]["sum_received"]["bytes"] > 20 << 20
    # On a busy machine TCP also repeats what was merely late. The receiver tells of each segment
    # that it had already; one that was lost would not be among these. A last report may come
    # when the connection has ended.
    after = tcp_counters(a)
    repeated = after["RetransSegs"]
    assert after.get("TCPDSACKRecvSegs", repeated) >= repeated - 1
    for end in (pair.a, pair.b):
        assert status(end)["drops"] == {}
        (link,) = end.node.host.ip_json(["-statistics", "link", "show", "wg0"])
        for way in ("rx", "tx"):
            assert (link["stats64"][way]["dropped"], link["stats64"][way]["errors"]) == (0, 0)
    assert handshake(pair.a) == before


@pytest.mark.parametrize(
    ("move", "where"),
    [
        (
            "ip netns add %i-away; ip link set %i netns %i-away",
            "moved to another network namespace",
        ),
        ("ip link set %i down; ip link set %i name wg7; ip link set wg7 up", "renamed to wg7"),
    ],
)
def test_interface_that_a_hook_moved_or_renamed(two_hosts: TwoHosts, move: str, where: str) -> None:
    a = Node(two_hosts.a, ("10.77.0.1/24",), "192.0.2.1")
    b = Node(two_hosts.b, ("10.77.0.2/24",), "192.0.2.2")
    hooks = [f"PostUp = {move}", "PostDown = ip netns del %i-away || true"]
    end = OurEnd(a, render_conf(a, [b], extra=hooks))
    end.up()
    note = f"wg0 was {where}, so its addresses, MTU, routes, rules and DNS stay as they are"
    assert end.tunnel("diff", "wg0") == f"note: {note}\nreload would change nothing\n"
    # What does not need the interface is changed all the same.
    end.conf.write_text(end.conf.read_text() + OTHER.format(key=SOME_KEY))
    said = end.tunnel("reload", "wg0")
    assert f"+ peer {SOME_KEY}" in said
    assert note in said
    assert len(status(end)["peers"]) == 2
    end.down()
    assert remains(two_hosts.a) == []


@pytest.mark.foreign("wg")
def test_after_a_save_nothing_differs_and_an_edited_conf_is_kept(two_hosts: TwoHosts) -> None:
    a = Node(two_hosts.a, ("10.77.0.1/24",), "192.0.2.1")
    b = Node(two_hosts.b, ("10.77.0.2/24",), "192.0.2.2")
    extra = ["MTU = 1400", "SaveConfig = true", "PostUp = ip address add 10.79.0.1/24 dev %i"]
    end = OurEnd(a, render_conf(a, [b], extra=extra))
    end.up()
    wg = f"wg set wg0 peer {SOME_KEY} endpoint 192.0.2.2:7 allowed-ips 10.77.0.9/32".split()
    two_hosts.a.run(wg)
    two_hosts.a.ip("address add 10.78.0.1/24 dev wg0", "link set wg0 mtu 1380")
    end.tunnel("save", "wg0")
    text = end.conf.read_text()
    assert "MTU = 1380\n" in text
    assert "10.78.0.1/24" in text
    assert SOME_KEY in text
    assert text.count("10.79.0.1/24") == 1, "what PostUp adds stands there alone"
    assert end.tunnel("diff", "wg0") == "reload would change nothing\n"
    assert not list(end.conf.parent.glob("*.edited"))
    # Doubtful as at `up`, and said as there.
    edited = text.replace("AllowedIPs = ", "AllowedIPs = 10.77.0.9/32, ", 1)
    end.conf.write_text(edited)
    for command in ("diff", "reload"):
        done = two_hosts.a.run([*TUNNEL, command, "wg0"])
        assert "AllowedIPs has 10.77.0.9/32, which the peer of line" in done.stderr
    end.conf.write_text(edited + "# a remark\n")
    two_hosts.a.ip("link set wg0 mtu 1390")
    done = two_hosts.a.run([*TUNNEL, "down", "wg0"])
    copy = end.conf.with_name("wg0.conf.edited")
    assert "the file was edited since it was read" in done.stderr
    assert copy.read_text() == edited + "# a remark\n"
    assert "MTU = 1390\n" in end.conf.read_text()


@pytest.mark.foreign("wg")
def test_a_network_of_two_peers_is_named_each_time_and_the_later_one_has_it(
    two_hosts: TwoHosts,
) -> None:
    a = Node(two_hosts.a, ("10.77.0.1/24",), "192.0.2.1")
    b, c = (
        Node(two_hosts.b, (f"10.77.0.{number}/32",), "192.0.2.2", routes=("10.5.0.0/24",))
        for number in (2, 3)
    )
    end = OurEnd(a, render_conf(a, [b, c]))

    def said(command: str) -> str:
        name = str(end.conf) if command == "up" else "wg0"
        done = two_hosts.a.run([*TUNNEL, command, name])
        assert "AllowedIPs has 10.5.0.0/24, which the peer of line" in done.stderr
        return done.stdout

    said("up")
    assert said("diff") == "reload would change nothing\n"
    allowed = f"wg set wg0 peer {b.public_key} allowed-ips 10.77.0.2/32,10.5.0.0/24"
    two_hosts.a.run(allowed.split())
    back = [
        f"- peer {b.public_key} allowed IPs: 10.5.0.0/24",
        f"+ peer {c.public_key} allowed IPs: 10.5.0.0/24",
    ]
    assert said("diff").splitlines() == back
    assert said("reload").splitlines() == back
    assert said("diff") == "reload would change nothing\n"
    end.down()
