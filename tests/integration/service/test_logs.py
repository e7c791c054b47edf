"""The log of a daemon that runs: every line in its form, and no key in any of them."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import signal
import sys

import pytest

from tests.support.hosts import TwoHosts
from tunnel.lab.peers import Node, OurEnd, render_conf

pytestmark = pytest.mark.root

LOG = "/run/tunnel/wg0.log"


def random_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def make_ends(two: TwoHosts, psk: str, *hooks: str) -> tuple[OurEnd, OurEnd]:
    a = Node(two.a, ("10.77.0.1/24",), "192.0.2.1")
    b = Node(two.b, ("10.77.0.2/24",), "192.0.2.2")
    other = OurEnd(b, render_conf(b, [a], psk))
    other.up()
    return OurEnd(a, render_conf(a, [b], psk, extra=hooks)), other


@pytest.mark.foreign("wg")
@pytest.mark.parametrize("as_json", [False, True])
def test_no_key_and_no_control_character_gets_into_the_log(
    two_hosts: TwoHosts, as_json: bool
) -> None:
    psk, later = random_key(), random_key()
    end, _ = make_ends(
        two_hosts,
        psk,
        f"PostUp = echo told {psk}; echo PrivateKey = {random_key()}",
        r"PostUp = printf 'red \033[31m and \302\233 and \r over\n'",
    )
    host = two_hosts.a
    end.tunnel("up", "-v", *(["--log-json"] if as_json else []), str(end.conf))
    host.run(["ping", "-c", "1", "-W", "5", "10.77.0.2"])
    # Keys that come later, on other ways than the conf.
    (host.directory / "psk").write_text(later)
    peer = host.run(["wg", "show", "wg0", "peers"]).stdout.strip()
    command = ["wg", "set", "wg0", "peer", peer, "preshared-key", str(host.directory / "psk")]
    host.run(command)
    end.conf.write_text(end.conf.read_text().replace(psk, random_key()))
    end.tunnel("reload", "wg0")
    end.down()
    log = host.run(["cat", LOG]).stdout
    for conf in (end.conf.read_text(), f"PresharedKey = {psk}\nPresharedKey = {later}"):
        for key in re.findall(r"(?:PrivateKey|PresharedKey|echo PrivateKey) = (\S{44})", conf):
            assert key not in log
            assert base64.b64decode(key).hex() not in log.lower()
    lines = log.splitlines()
    assert all(line.isprintable() for line in lines)
    if as_json:
        texts = [json.loads(line)["text"] for line in lines]
    else:
        stamp = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (debug|info|warning|error): (.*)")
        matches = [stamp.fullmatch(line) for line in lines]
        texts = [match[2] for match in matches if match is not None]
        assert len(texts) == len(lines)
        assert r"\x1b[31m" in log
    assert any(text.startswith("wg0 is up") for text in texts)
    assert any(text.startswith("wg0 is going down") for text in texts)
    assert any("(hidden)" in text for text in texts)


def test_failure_is_printed_and_a_line_of_the_log_in_the_foreground(two_hosts: TwoHosts) -> None:
    end, _ = make_ends(two_hosts, random_key(), "PostUp = false")
    assert "PostUp" in end.tunnel("up", str(end.conf), check=False)
    # What is set up by a failed start is undone, its log included.
    assert two_hosts.a.run(["cat", LOG], check=False).returncode == 1
    printed = end.tunnel("up", "-f", "--log-json", str(end.conf), check=False)
    last = [json.loads(line) for line in printed.splitlines() if line.startswith("{")][-1]
    assert last["level"] == "error"
    assert "PostUp" in last["text"]


def test_hostile_conf_cannot_act_upon_the_terminal(two_hosts: TwoHosts) -> None:
    end, _ = make_ends(two_hosts, random_key(), "MTU = 1\x1b[2J\x1b]0;title\x07")
    printed = end.tunnel("up", "-f", str(end.conf), check=False)
    assert "MTU" in printed
    assert all(line.isprintable() for line in printed.splitlines())


def test_log_that_nobody_reads_stops_no_packet(two_hosts: TwoHosts) -> None:
    """As a terminal after ^S: the pipe is full before the first line."""
    end, _ = make_ends(two_hosts, random_key(), "PostUp = seq 20000")
    host = two_hosts.a
    fifo = host.directory / "fifo"
    os.mkfifo(fifo)
    script = 'exec 3<>"$1"; head -c 65536 /dev/zero >&3; shift; exec "$@" 2>&3'
    command = [sys.executable, "-m", "tunnel", "up", "-f", "-v", str(end.conf)]
    process = host.popen(["bash", "-c", script, "bash", str(fifo), *command])
    ping = ["ping", "-c", "1", "-W", "1", "10.77.0.2"]
    host.wait_for(lambda: host.run(ping, check=False).returncode == 0, 60, "an answer")
    process.signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert "wg0" not in host.interfaces()
