"""The client of the UAPI, against daemons that answer well and badly."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.confs import OTHER, PEER, PRIVATE, PSK
from tunnel.config import PrivateKey, PublicKey, parse
from tunnel.config.values import network_text
from tunnel.control.uapi_client import UapiClientError, get, set_config, set_fwmark
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import unpack

CONF = f"""\
[Interface]
PrivateKey = {PRIVATE}
ListenPort = 51820
Address = 10.0.0.1/24

[Peer]
PublicKey = {PEER}
PresharedKey = {PSK}
AllowedIPs = 10.0.0.2/32, fd00::/64
Endpoint = vpn.example.com:51820
PersistentKeepalive = 25

[Peer]
PublicKey = {OTHER}
"""


def hexadecimal(key: str) -> str:
    return PublicKey.from_base64(key).to_hex()


@pytest.fixture
def answering(tmp_path: Path) -> Callable[[str], tuple[Path, list[str]]]:
    """Makes a daemon that gives one answer and hangs up: where it listens, what it was asked."""

    def make(answer: str) -> tuple[Path, list[str]]:
        path, asked = tmp_path / "wg0.sock", list[str]()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with listener, listener.accept()[0] as connection:
                text = b""
                while not text.endswith(b"\n\n"):
                    text += connection.recv(1 << 16)
                asked.append(text.decode())
                connection.sendall(answer.encode())

        threading.Thread(target=serve, daemon=True).start()
        return path, asked

    return make


Answering = Callable[[str], tuple[Path, list[str]]]


def test_what_is_set(answering: Answering) -> None:
    path, asked = answering("errno=0\n\n")
    config = parse(CONF, name="wg0")
    endpoint = Endpoint(bytes.fromhex("20010db8") + bytes(11) + b"\1", 51820)
    set_config(path, config, {config.peers[0].public_key: endpoint}, fwmark=7)
    assert asked[0].splitlines() == [
        "set=1",
        f"private_key={PrivateKey.from_base64(PRIVATE).to_hex()}",
        "listen_port=51820",
        "fwmark=7",
        "replace_peers=true",
        f"public_key={hexadecimal(PEER)}",
        f"preshared_key={hexadecimal(PSK)}",
        "endpoint=[2001:db8::1]:51820",
        "persistent_keepalive_interval=25",
        "replace_allowed_ips=true",
        "allowed_ip=10.0.0.2/32",
        "allowed_ip=fd00::/64",
        f"public_key={hexadecimal(OTHER)}",
        "persistent_keepalive_interval=0",
        "replace_allowed_ips=true",
        "",
    ]


def test_what_is_got(answering: Answering) -> None:
    config = parse(CONF, name="wg0")
    path, asked = answering(
        f"private_key={PrivateKey.from_base64(PRIVATE).to_hex()}\nlisten_port=5\n"
        f"public_key={hexadecimal(PEER)}\npreshared_key={hexadecimal(PSK)}\nprotocol_version=1\n"
        "endpoint=[fe80::1%3]:6\nrx_bytes=1\npersistent_keepalive_interval=25\n"
        "allowed_ip=10.0.0.2/32\nallowed_ip=fd00::/64\n"
        f"public_key={hexadecimal(OTHER)}\npreshared_key={'0' * 64}\nendpoint=192.0.2.1:7\n"
        "errno=0\n\n"
    )
    found = get(path)
    assert asked == ["get=1\n\n"]
    assert (found.private_key, found.listen_port, found.fwmark) == (
        config.interface.private_key,
        5,
        0,
    )
    one, other = found.peers
    assert str(one.endpoint) == "[fe80::1%3]:6"
    assert one.preshared_key == config.peers[0].preshared_key
    assert one.persistent_keepalive == 25
    assert [network_text(*unpack(network)) for network in one.networks] == [
        "10.0.0.2/32",
        "fd00::/64",
    ]
    assert one.network_count == 2
    assert other.preshared_key is None
    assert str(other.endpoint) == "192.0.2.1:7"
    assert other.networks == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("errno=98\n\n", "refused: Address already in use"),
        ("errno=-22\n\n", "refused: Invalid argument"),
        ("listen_port=5\n\n", "refused: Protocol error"),
        ("errno=what\n\n", "refused: what"),
        ("\n\n", "refused: Protocol error"),
        ("listen_port=5\n", "closed the connection before"),
        ("listen_port=x\nerrno=0\n\n", "cannot be understood: listen_port = 1 characters"),
        ("allowed_ip=10.0.0.0/8\nerrno=0\n\n", "cannot be understood: allowed_ip"),
        ("private_key=secret\nerrno=0\n\n", "cannot be understood: private_key = 6 characters"),
    ],
)
def test_bad_answers(answering: Answering, answer: str, reason: str) -> None:
    path, _ = answering(answer)
    with pytest.raises(UapiClientError, match=reason) as caught:
        get(path)
    assert "secret" not in str(caught.value)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(UapiClientError, match="No such file"):
        set_fwmark(tmp_path / "none.sock", 1)
