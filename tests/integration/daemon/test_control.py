"""The event stream, what lives from it, saving, and the interface for Python programs."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemons import follow, followed, remains, rewrite
from tests.support.hosts import TwoHosts
from tests.support.pairs import Pair, make_pair

pytestmark = pytest.mark.root

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_events_tell_what_happens(pair: Pair) -> None:
    a, b = pair.hosts
    events = follow(pair.a)
    pair.a.tunnel("reload", "wg0")
    a.ping(pair.b.node.address())
    b.ip("address add 10.99.0.1/32 dev wg0")
    b.run(["ping", "-c", "1", "-W", "1", "-I", "10.99.0.1", pair.a.node.address()], check=False)
    events.wait_for_output("source_not_allowed")
    a.ip("address delete 192.0.2.1/24 dev eth0", "address add 192.0.2.101/24 dev eth0")
    rewrite(pair.a, "ListenPort", "ListenPrt")
    pair.a.tunnel("reload", "wg0", check=False)
    rewrite(pair.a, "ListenPrt", "ListenPort")
    pair.a.down()
    assert events.wait(10) == 0
    told = followed(events)
    kinds = [event["type"] for event in told]
    assert kinds[0] == "reload"
    assert kinds[-1] == "down"
    done = next(event for event in told if event["type"] == "handshake")
    assert done["outcome"] == "completed"
    assert done["peer"] == pair.b.node.public_key
    assert done["round_trip"] > 0
    dropped = next(event for event in told if event["type"] == "drops")
    assert dropped["new"] == {"source_not_allowed": 1}
    refused = [event for event in told if event["type"] == "reload"][-1]
    assert "ListenPrt" in refused["error"]


def test_watch_on_a_terminal_follows_and_quits_on_interrupt(pair: Pair) -> None:
    a, _ = pair.hosts
    ours, theirs = pty.openpty()
    command = [*a.enter_command(), sys.executable, "-m", "tunnel", "show", "--watch", "wg0"]
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": os.getcwd()}
    watching = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    seen = b""
    try:
        while b"listening port" not in seen:
            seen += os.read(ours, 65536)
        a.ping(pair.b.node.address())
        while b"latest handshake" not in seen:
            seen += os.read(ours, 65536)
        watching.send_signal(signal.SIGINT)
        rest = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:
                break
            rest += chunk
        assert watching.wait(10) == 0
        assert b"Traceback" not in rest
        # The screen before is given back.
        assert b"\x1b[?1049l" in rest
    finally:
        watching.kill()
        watching.wait()
        os.close(ours)


def test_watch_ends_with_the_tunnel(pair: Pair) -> None:
    a, _ = pair.hosts
    watching = a.popen([sys.executable, "-m", "tunnel", "show", "--watch"])
    watching.wait_for_output("listening port", 15)
    pair.a.down()
    assert watching.wait(10) == 0


def test_save_keeps_comments_and_writes_what_was_done_by_hand(two_hosts: TwoHosts) -> None:
    pair = make_pair(two_hosts)
    a, _ = pair.hosts
    a.ping(pair.b.node.address())
    rewrite(pair.a, "Address", "# where we live\nAddress")
    rewrite(pair.a, "ListenPort = 51820", "ListenPort = 51820  # as ever")
    assert pair.a.tunnel("save", "wg0") == f"{pair.a.conf} is up to date\n"
    a.ip("address add 10.78.0.1/24 dev wg0")
    assert pair.a.tunnel("save", "wg0").splitlines() == [
        f"saved {pair.a.conf}",
        "- line 5: Address = 10.77.0.1/24, fd77::1/64",
        "+ line 5: Address = 10.77.0.1/24, fd77::1/64, 10.78.0.1/24",
    ]
    text = pair.a.conf.read_text()
    assert "# where we live\nAddress = 10.77.0.1/24, fd77::1/64, 10.78.0.1/24\n" in text
    assert "ListenPort = 51820  # as ever\n" in text
    assert pair.a.conf.stat().st_mode & 0o777 == 0o600


def test_strip_reads_the_conf_of_a_running_tunnel(two_hosts: TwoHosts) -> None:
    pair = make_pair(two_hosts)
    stripped = pair.a.tunnel("strip", "wg0")
    assert stripped == pair.a.tunnel("strip", str(pair.a.conf))
    assert "[Peer]" in stripped


def test_save_leaves_out_what_no_conf_may_say(two_hosts: TwoHosts) -> None:
    pair = make_pair(two_hosts)
    a, _ = pair.hosts
    rewrite(pair.a, "Address", "MTU = 1400\nAddress")
    pair.a.tunnel("reload", "wg0")
    a.ip("link set wg0 mtu 65535", "address add 10.78.0.1/24 dev wg0")
    said = pair.a.tunnel("save", "wg0", check=False)
    assert 'the MTU in use, "65535", cannot be saved' in said
    assert "MTU = 1400\n" in pair.a.conf.read_text()
    assert "10.78.0.1/24" in pair.a.conf.read_text()
    pair.a.tunnel("reload", "wg0")


def test_saveconfig_saves_on_down(two_hosts: TwoHosts) -> None:
    pair = make_pair(two_hosts)
    a, _ = pair.hosts
    rewrite(pair.a, "ListenPort", "# kept\nSaveConfig = true\nListenPort")
    pair.a.tunnel("reload", "wg0")
    a.ip("address add 10.78.0.1/24 dev wg0")
    # b is told by a where it is now.
    pair.hosts[1].ip("address add 192.0.2.102/24 dev eth0")
    pair.a.down()
    text = pair.a.conf.read_text()
    assert "10.78.0.1/24" in text
    assert "# kept\n" in text
    assert remains(a) == []
