"""Debian's `wg` against `tunnel-wg`: every command, with the kernel's semantics."""

from __future__ import annotations

import base64
import secrets
import socket

import pytest

from tests.support.hosts import TwoHosts
from tests.support.tunnel_wg import SOCKET, mesh_of_tunnel_wg, wg
from tunnel.config import PrivateKey
from tunnel.lab import Host, LabError
from tunnel.lab.peers import Node, generate_preshared_key, render_conf

pytestmark = [pytest.mark.root, pytest.mark.foreign("wg")]


def key_pair() -> tuple[str, str]:
    """A private key and its public half."""
    private = PrivateKey.from_random(secrets.token_bytes(32))
    return private.to_base64(), private.public_key().to_base64()


@pytest.fixture
def peers() -> list[str]:
    """Three public keys."""
    return [key_pair()[1] for _ in range(3)]


def allowed(host: Host) -> dict[str, set[str]]:
    """Allowed IPs by peer."""
    lines = wg(host, "show", "wg0", "allowed-ips").splitlines()
    found = dict(line.split("\t") for line in lines)
    return {key: set(text.split()) - {"(none)"} for key, text in found.items()}


def test_bare_interface_has_a_port_and_no_more(host: Host) -> None:
    assert wg(host, "show", "interfaces") == "wg0\n"
    dump = wg(host, "show", "wg0", "dump").split()
    assert dump[:2] == ["(none)", "(none)"]
    assert int(dump[2]) > 1024
    assert dump[3] == "off"


def test_set_and_show(host: Host, peers: list[str]) -> None:
    private, public = key_pair()
    psk = generate_preshared_key()
    wg(host, "set", "wg0", "private-key", "/dev/stdin", "listen-port", "5555", stdin=private)
    wg(host, "set", "wg0", "fwmark", "0x20")
    peer = ["set", "wg0", "peer", peers[0]]
    wg(host, *peer, "preshared-key", "/dev/stdin", stdin=psk)
    wg(host, *peer, "endpoint", "[2001:db8::2]:51820", "persistent-keepalive", "25")
    wg(host, *peer, "allowed-ips", "10.0.0.5/8,fd00::/64,192.0.2.77")
    assert wg(host, "show", "wg0", "dump").split("\n")[:2] == [
        f"{private}\t{public}\t5555\t0x20",
        f"{peers[0]}\t{psk}\t[2001:db8::2]:51820\t10.0.0.0/8,192.0.2.77/32,fd00::/64\t0\t0\t0\t25",
    ]
    assert wg(host, "showconf", "wg0") == (
        f"[Interface]\nListenPort = 5555\nFwMark = 0x20\nPrivateKey = {private}\n\n"
        f"[Peer]\nPublicKey = {peers[0]}\nPresharedKey = {psk}\n"
        "AllowedIPs = 10.0.0.0/8, 192.0.2.77/32, fd00::/64\n"
        "Endpoint = [2001:db8::2]:51820\nPersistentKeepalive = 25\n"
    )
    # And back to nothing.
    wg(host, "set", "wg0", "private-key", "/dev/null", "fwmark", "off")
    wg(host, *peer, "preshared-key", "/dev/null", "persistent-keepalive", "off")
    wg(host, *peer, "allowed-ips", "")
    device, line = wg(host, "show", "wg0", "dump").splitlines()
    assert device == "(none)\t(none)\t5555\toff"
    assert line == f"{peers[0]}\t(none)\t[2001:db8::2]:51820\t(none)\t0\t0\t0\toff"
    wg(host, *peer, "remove")
    assert wg(host, "show", "wg0", "peers") == ""


def test_private_key_is_clamped(host: Host) -> None:
    wg(
        host,
        "set",
        "wg0",
        "private-key",
        "/dev/stdin",
        stdin=base64.b64encode(b"\xff" * 32).decode(),
    )
    shown = base64.b64decode(wg(host, "show", "wg0", "private-key"))
    assert shown == b"\xf8" + b"\xff" * 30 + b"\x7f"


def test_allowed_ip_has_one_peer_at_a_time(host: Host, peers: list[str]) -> None:
    one, two, _ = peers
    wg(host, "set", "wg0", "peer", one, "allowed-ips", "10.0.0.0/8,10.1.0.0/16")
    wg(host, "set", "wg0", "peer", two, "allowed-ips", "10.1.0.0/16")
    assert allowed(host) == {one: {"10.0.0.0/8"}, two: {"10.1.0.0/16"}}
    wg(host, "set", "wg0", "peer", one, "allowed-ips", "10.1.0.0/16")
    assert allowed(host) == {one: {"10.1.0.0/16"}, two: set()}


def test_peer_with_our_own_key_cannot_be(host: Host) -> None:
    private, public = key_pair()
    wg(host, "set", "wg0", "peer", public, "allowed-ips", "10.0.0.0/8")
    wg(host, "set", "wg0", "private-key", "/dev/stdin", stdin=private)
    assert allowed(host) == {}
    wg(host, "set", "wg0", "peer", public, "allowed-ips", "10.0.0.0/8")
    assert allowed(host) == {}


def conf(private: str, peers: dict[str, str], *more: str) -> str:
    lines = ["[Interface]", f"PrivateKey = {private}", *more]
    for key, networks in peers.items():
        lines += ["[Peer]", f"PublicKey = {key}", f"AllowedIPs = {networks}"]
    return "\n".join(lines) + "\n"


def test_setconf_replaces_addconf_adds_syncconf_changes(host: Host, peers: list[str]) -> None:
    one, two, three = peers
    private, public = key_pair()

    def load(command: str, text: str) -> None:
        wg(host, command, "wg0", "/dev/stdin", stdin=text)

    load("setconf", conf(private, {one: "10.1.0.0/16", two: "10.2.0.0/16"}, "ListenPort = 5000"))
    assert wg(host, "show", "wg0", "public-key").strip() == public
    assert allowed(host) == {one: {"10.1.0.0/16"}, two: {"10.2.0.0/16"}}
    load("addconf", f"[Peer]\nPublicKey = {three}\nAllowedIPs = 10.3.0.0/16, 10.2.0.0/16\n")
    assert allowed(host) == {
        one: {"10.1.0.0/16"},
        two: set(),
        three: {"10.3.0.0/16", "10.2.0.0/16"},
    }
    assert wg(host, "show", "wg0", "listen-port") == "5000\n"
    load("syncconf", conf(private, {three: "10.3.0.0/16, fd03::/64"}, "ListenPort = 5000"))
    assert allowed(host) == {three: {"10.3.0.0/16", "fd03::/64"}}
    load("setconf", conf(private, {one: "10.1.0.0/16"}))
    assert allowed(host) == {one: {"10.1.0.0/16"}}
    assert wg(host, "show", "wg0", "listen-port") != "5000\n"
    # What showconf prints is what setconf takes.
    text = wg(host, "showconf", "wg0")
    load("setconf", text)
    assert wg(host, "showconf", "wg0") == text


def test_wg_says_why_it_was_refused_and_nothing_changed(host: Host, peers: list[str]) -> None:
    wg(host, "set", "wg0", "listen-port", "5000", "peer", peers[0], "allowed-ips", "10.0.0.0/8")
    before = wg(host, "show", "wg0", "dump")
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("0.0.0.0", 7777))
        with pytest.raises(LabError, match="Address already in use"):
            wg(host, "set", "wg0", "listen-port", "7777", "peer", peers[0], "remove")
    assert wg(host, "show", "wg0", "dump") == before
    assert wg(host, "show", "wg0", "listen-port") == "5000\n"


@pytest.mark.parametrize(
    ("operation", "answer", "said"),
    [
        ("set", b"errno=-22\n\n", "Invalid argument"),
        ("set", b"errno=22\n\n", "Unknown error"),
        ("get", b"errno=22\n\n", "Invalid argument"),
        ("get", b"errno=-22\n\n", "Protocol error"),
    ],
)
def test_which_sign_wg_wants_in_an_answer(
    two_hosts: TwoHosts, operation: str, answer: bytes, said: str
) -> None:
    """The sign is what `wg` does, not what anybody wrote down: a stub of a daemon shows it."""
    host = two_hosts.a
    stub = (
        "import os, socket, sys\n"
        f"os.makedirs(os.path.dirname('{SOCKET}'))\n"
        "listener = socket.socket(socket.AF_UNIX)\n"
        f"listener.bind('{SOCKET}')\n"
        "listener.listen()\n"
        "print('listening', flush=True)\n"
        "while True:\n"
        "    client = listener.accept()[0]\n"
        f"    if client.recv(65536): client.sendall({answer!r})\n"
        "    client.close()\n"
    )
    host.popen(["python3", "-c", stub]).wait_for_output("listening")
    with pytest.raises(LabError, match=said):
        wg(host, *{"set": ("set", "wg0", "listen-port", "1"), "get": ("show", "wg0")}[operation])


def test_syncconf_and_setconf_keep_the_sessions_of_peers_that_stay(
    two_hosts: TwoHosts, script: str
) -> None:
    nodes = [
        Node(host, (f"10.77.0.{n}/24", f"fd77::{n}/64"), f"192.0.2.{n}")
        for n, host in enumerate((two_hosts.a, two_hosts.b), start=1)
    ]
    end, _ = mesh_of_tunnel_wg(nodes, script)
    a = two_hosts.a
    a.ping("10.77.0.2")
    handshake = wg(a, "show", "wg0", "latest-handshakes")
    text = render_conf(nodes[0], [nodes[1]], quick=False)
    more = f"[Peer]\nPublicKey = {key_pair()[1]}\nAllowedIPs = 10.9.0.0/16\n"
    for command in ("syncconf", "setconf"):
        wg(a, command, "wg0", "/dev/stdin", stdin=text + more)
        a.ping("fd77::2")
        assert handshake.strip() in wg(a, "show", "wg0", "latest-handshakes")
        assert len(allowed(a)) == 2
        wg(a, command, "wg0", str(end.conf))
        assert len(allowed(a)) == 1
