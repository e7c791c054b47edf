"""What holds for every command: names of peers beside their keys, and no traceback at ^C."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator

import pytest

from tests.support.daemons import follow, rewrite
from tests.support.hosts import TwoHosts
from tunnel.lab.peers import Node, OurEnd, render_conf
from tunnel.lab.process import HostProcess

pytestmark = pytest.mark.root

NAME = "the office's laptop"
TUNNEL = [sys.executable, "-m", "tunnel"]


@pytest.fixture
def end(two_hosts: TwoHosts) -> Iterator[OurEnd]:
    """Host a with a peer that has a name, is connected, and is forgotten soon after."""
    a = Node(two_hosts.a, ("10.77.0.1/24",), "192.0.2.1")
    b = Node(two_hosts.b, ("10.77.0.2/24",), "192.0.2.2")
    other = OurEnd(b, render_conf(b, [a]))
    found = OurEnd(a, f"{render_conf(a, [b])}# friendly_name = {NAME}\n")
    other.up()
    found.up()
    yield found
    found.down()


def key_of_peer(end: OurEnd) -> str:
    (found,) = re.findall(r"PublicKey = (\S+)", end.conf.read_text())
    assert isinstance(found, str)
    return found


def test_the_name_of_a_peer_is_wherever_its_key_is(end: OurEnd, two_hosts: TwoHosts) -> None:
    a, key = two_hosts.a, key_of_peer(end)
    events = follow(end)
    spoken = a.popen([*TUNNEL, "events", "wg0"])
    spoken.wait_for_output("following the events")
    watching = a.popen([*TUNNEL, "show", "wg0", "--watch"])
    watching.wait_for_output(key)
    a.ping("10.77.0.2")
    rewrite(end, "AllowedIPs = 10.77.0.2", "AllowedIPs = 10.77.0.2, 10.77.0.3")
    said = {
        "diff": end.tunnel("diff", "wg0"),
        "reload": end.tunnel("reload", "wg0"),
        "show": end.tunnel("show", "wg0"),
        "show --json": end.tunnel("show", "wg0", "--json"),
        "top": end.tunnel("top", "--once", "--interval", "0.1"),
        "trace": end.tunnel("trace", "wg0", "--", "ping", "-c1", "10.77.0.2"),
    }
    rewrite(end, key, "nu27NTFqyF4vHsb3pXyQy0b1GxppWnieUOy5+xEdzz8=")
    said["diff of another peer"] = end.tunnel("diff", "wg0")
    end.tunnel("reload", "wg0")
    said["doctor"] = end.tunnel("doctor", "wg0", "--wait", "0.5", check=False)
    a.wait_for(lambda: "peer_removed" in events.log(), 10, "the peer to be removed")
    a.wait_for(lambda: "removed" in spoken.log(), 10, "the same in words")
    a.wait_for(lambda: f"wg0: peer {NAME}" in watching.log(), 10, "the same in --watch")
    said |= {"events --json": events.log(), "events": spoken.log()}
    said["show --watch"] = watching.log()
    said["the log"] = a.run(["cat", "/run/tunnel/wg0.log"]).stdout
    keys = (key, "nu27NTFqyF4vHsb3pXyQy0b1GxppWnieUOy5+xEdzz8=")
    for surface, text in said.items():
        assert NAME in text, surface
        if surface.startswith(("show", "doctor")):
            continue  # the name has a line of its own, or the key is an argument of a remedy
        for line in text.splitlines():
            assert NAME in line or not any(each in line for each in keys), f"{surface}: {line}"


LONG = {
    "events": ["events", "wg0"],
    "show --watch": ["show", "wg0", "--watch"],
    "trace": ["trace", "wg0"],
    "capture": ["capture", "wg0", "-w", "-"],
    "doctor": ["doctor", "wg0", "--wait", "30", "--address", "10.77.0.9"],
    "up": ["up", "--foreground", "./first.conf"],
    "run": ["run", "./second.conf", "--", "sleep", "60"],
    "top --once": ["top", "--once", "--interval", "60"],
    "lab": ["lab"],
    "bench": ["bench", "--quick", "--only", "native"],
    "docker-plugin": ["docker-plugin"],
}


@pytest.mark.foreign("iperf3")
def test_an_interrupt_prints_no_traceback(end: OurEnd, two_hosts: TwoHosts) -> None:
    """All at the same time, each at a moment of its own."""
    a = two_hosts.a
    for name in ("first", "second"):
        path = a.directory / f"{name}.conf"
        path.touch(0o600)
        path.write_text(f"[Interface]\nPrivateKey = {end.node.private_key}\n")
    script = ["sh", "-c", 'cd "$0" && exec "$@"', str(a.directory)]
    started = {each: a.popen([*script, *TUNNEL, *words]) for each, words in LONG.items()}
    for command, process in started.items():
        a.wait_for(lambda: is_at_work(process), 30, f"{command} to be at work")  # noqa: B023
        process.signal(signal.SIGINT)
    for command, process in started.items():
        process.wait(30)
        assert "Traceback" not in process.log(), f"{command}: {process.log()}"
        assert "KeyboardInterrupt" not in process.log(), command


def is_at_work(process: HostProcess) -> bool:
    """Whether it has printed something or opened a socket, or has ended already."""
    if process.returncode is not None or process.log():
        return True
    try:
        folder = f"/proc/{process.pid}/fd"
        opened = [os.readlink(f"{folder}/{number}") for number in os.listdir(folder)]
    except OSError:
        return False
    return any(each.startswith("socket:") for each in opened)
