"""A daemon ends, by request or by force, and another one goes on with the same interface."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import follow, followed, remains, rewrite, status
from tests.support.hosts import TwoHosts
from tunnel.lab import Host, wait_for
from tunnel.lab.peers import Node, OurEnd, render_conf
from tunnel.lab.process import HostProcess

pytestmark = pytest.mark.root

FULL = ("0.0.0.0/0", "::/0")


def up(two: TwoHosts, *lines: str, routes: tuple[str, ...] = ()) -> tuple[OurEnd, OurEnd]:
    """Both ends up; the first, that of host a, with more lines of [Interface]."""
    a = Node(two.a, ("10.77.0.1/24", "fd77::1/64"), "192.0.2.1")
    b = Node(two.b, ("10.77.0.2/24", "fd77::2/64"), "192.0.2.2", routes=routes)
    end, other = OurEnd(a, render_conf(a, [b], extra=lines)), OurEnd(b, render_conf(b, [a]))
    other.up()
    end.up()
    return end, other


def ifindex(host: Host) -> str:
    return host.run(["cat", "/sys/class/net/wg0/ifindex"]).stdout.strip()


@contextlib.contextmanager
def untouched(host: Host) -> Iterator[None]:
    """Nothing of links, addresses, routes and rules changes in the body."""
    watch = host.popen(["ip", "-oneline", "monitor", "link", "address", "route", "rule"])
    _mark(host, watch, "203.0.113.1")
    before, said = ifindex(host), len(watch.log())
    yield
    assert ifindex(host) == before
    _mark(host, watch, "203.0.113.2")
    assert [line for line in watch.log()[said:].splitlines() if "203.0.113." not in line] == []
    watch.kill()


def _mark(host: Host, watch: HostProcess, address: str) -> None:
    """Change something, until the one who watches has seen it."""

    def is_seen() -> bool:
        host.run(["ip", "address", "add", f"{address}/32", "dev", "lo"])
        host.run(["ip", "address", "delete", f"{address}/32", "dev", "lo"])
        return address in watch.log()

    host.wait_for(is_seen, 10, "ip monitor")


class Conversation:
    """A TCP connection through the tunnel that is held, with an echo at the other end."""

    def __init__(self, two: TwoHosts, stack: contextlib.ExitStack) -> None:
        listener = stack.enter_context(two.b.socket(socket.AF_INET, socket.SOCK_STREAM))
        listener.bind(("10.77.0.2", 7))
        listener.listen()
        self._near = stack.enter_context(two.a.socket(socket.AF_INET, socket.SOCK_STREAM))
        self._near.settimeout(20)
        self._near.connect(("10.77.0.2", 7))
        self._far = stack.enter_context(listener.accept()[0])
        self._far.settimeout(20)

    def go_on(self) -> None:
        """Send a line there and back."""
        self._near.sendall(b"are you there?")
        assert self._far.recv(100) == b"are you there?"
        self._far.sendall(b"I am")
        assert self._near.recv(100) == b"I am"


@contextlib.contextmanager
def without_a_handshake(end: OurEnd) -> Iterator[None]:
    """The session of before is the one of afterwards."""
    (before,) = status(end)["peers"]
    yield
    (after,) = status(end)["peers"]
    assert before["latest_handshake"] > 0
    assert after["latest_handshake"] == before["latest_handshake"]


def wait_for_beginning(events: HostProcess, number: int) -> None:
    """Return when the events are those of the daemon after so many restarts."""
    wait_for(
        lambda: (
            [one["restarts"] for one in followed(events) if one["type"] == "restarted"]
            == [*range(1, number + 1)]
        ),
        20,
        "the event `restarted`",
    )


@contextlib.contextmanager
def undisturbed(two: TwoHosts, end: OurEnd, other: OurEnd) -> Iterator[Conversation]:
    """A conversation through the tunnel, in which host a is not touched, and no handshake made."""
    with contextlib.ExitStack() as stack:
        talk = Conversation(two, stack)
        talk.go_on()
        stack.enter_context(untouched(two.a))
        stack.enter_context(without_a_handshake(end))
        stack.enter_context(without_a_handshake(other))
        yield talk


def command_line(end: OurEnd) -> list[str]:
    """That of the daemon, as ps shows it, from the command on."""
    words = Path(f"/proc/{status(end)['pid']}/cmdline").read_text().rstrip("\0").split("\0")
    return words[-2:]


def test_a_restart_keeps_all_but_the_daemon(two_hosts: TwoHosts) -> None:
    end, other = up(two_hosts, "PostUp = echo hook >> /run/tunnel/hooks", routes=FULL)
    a = two_hosts.a
    first = status(end)
    with undisturbed(two_hosts, end, other) as talk:
        events = follow(end)
        end.tunnel("restart", str(end.conf))
        talk.go_on()
        wait_for_beginning(events, 1)
        second = status(end)
        assert command_line(end) == ["up", str(end.conf)]
    assert second["pid"] != first["pid"]
    assert second["restarts"] == 1
    assert second["holder"] == first["holder"]
    assert second["listen_port"] == first["listen_port"]
    assert "restarted: 1 time, up for" in end.tunnel("show", "wg0")
    assert a.run(["cat", "/run/tunnel/hooks"]).stdout == "hook\n"
    end.down()
    assert events.wait(10) == 0
    a.run(["rm", "/run/tunnel/hooks"])
    assert remains(a) == []


def test_a_killed_daemon_has_a_successor(two_hosts: TwoHosts) -> None:
    end, other = up(two_hosts)
    a = two_hosts.a
    with undisturbed(two_hosts, end, other) as talk:
        events = follow(end)
        for number in (1, 2):
            os.kill(status(end)["pid"], signal.SIGKILL)
            a.wait_for(lambda: restarts(end) == number, 20, "another daemon")  # noqa: B023
            talk.go_on()
            wait_for_beginning(events, number)
        assert command_line(end) == ["up", str(end.conf)]
    assert "waiting for the next one" in events.log()
    log = a.run(["cat", "/run/tunnel/wg0.log"]).stdout
    assert "restart number 2, 1 session kept" in log
    end.down()
    assert events.wait(10) == 0
    assert remains(a) == []


def test_a_killed_holder_is_replaced_and_the_next_one_does_its_work(two_hosts: TwoHosts) -> None:
    end, other = up(two_hosts)
    a = two_hosts.a
    first = status(end)
    assert (first["is_kept"], first["lost_holders"]) == (True, 0)
    with undisturbed(two_hosts, end, other) as talk:
        os.kill(first["holder"], signal.SIGKILL)
        a.wait_for(lambda: status(end)["holder"] not in (0, first["holder"]), 20, "a holder")
        second = status(end)
        assert (second["pid"], second["is_kept"]) == (first["pid"], True)
        assert f"holder: process {second['holder']}, after 1 that ended" in end.tunnel(
            "show", "wg0"
        )
        # It was started by a daemon with few rights; so is the next daemon.
        os.kill(second["pid"], signal.SIGKILL)
        a.wait_for(lambda: restarts(end) == 1, 20, "another daemon")
        talk.go_on()
        third = status(end)
        assert (third["holder"], third["is_kept"]) == (second["holder"], True)
        assert third["rights"]["reserve"] == []
        # One of all rights has another holder.
        end.tunnel("restart", str(end.conf))
        talk.go_on()
        fourth = status(end)
        assert fourth["restarts"] == 2
        assert fourth["holder"] not in (0, third["holder"])
        assert fourth["rights"] == first["rights"]
    end.down()
    assert remains(a) == []


def restarts(end: OurEnd) -> int | None:
    """How often it was restarted; None while there is no daemon to ask."""
    printed = end.tunnel("show", "wg0", "--json", check=False)
    found = re.search(r'"restarts": (\d+)', printed)
    return int(found[1]) if found else None


def test_a_peer_stays_where_it_is_whatever_came_before_the_restart(two_hosts: TwoHosts) -> None:
    end, other = up(two_hosts)
    two_hosts.a.ping("10.77.0.2")

    def move(old: int, new: int) -> None:
        """The peer has another port from now on, and is heard from there."""
        rewrite(other, f"ListenPort = {old}", f"ListenPort = {new}")
        other.tunnel("reload", "wg0")
        two_hosts.b.ping("10.77.0.1")

    def port() -> int:
        return int(status(end)["peers"][0]["endpoint"].rpartition(":")[2])

    rewrite(end, "192.0.2.2:51820", "192.0.2.2:51821")
    end.tunnel("reload", "wg0")
    assert port() == 51821
    move(51820, 51822)
    assert port() == 51822
    with without_a_handshake(end):
        end.tunnel("restart", str(end.conf))
        assert port() == 51822
    # What a save has written is no change of the conf, either.
    end.tunnel("save", "wg0")
    assert "192.0.2.2:51822" in end.conf.read_text()
    move(51822, 51823)
    end.tunnel("reload", "wg0")
    assert port() == 51823
    end.tunnel("restart", str(end.conf))
    assert port() == 51823
    end.down()
    assert remains(two_hosts.a) == []


def begin_restart(end: OurEnd) -> HostProcess:
    return end.node.host.popen([*end.command, "restart", str(end.conf)])


def test_an_interrupted_restart_goes_on(two_hosts: TwoHosts) -> None:
    end, other = up(two_hosts)
    a = two_hosts.a
    before = status(end)["pid"]
    with contextlib.ExitStack() as stack:
        talk = Conversation(two_hosts, stack)
        talk.go_on()
        stack.enter_context(without_a_handshake(end))
        stack.enter_context(without_a_handshake(other))
        restart = begin_restart(end)
        a.wait_for(lambda: before not in a.pids(), 20, "the daemon to end")
        restart.signal(signal.SIGINT)
        assert restart.wait(20) == 0, restart.log()
        talk.go_on()
        assert status(end)["restarts"] == 1
    # The same where hooks are run, which may take their time; then only the command is left.
    wait = "PostUp = touch /run/tunnel/waits; while [ -e /run/tunnel/waits ]; do sleep 0.05; done"
    rewrite(end, "[Interface]", f"[Interface]\n{wait}")
    restart = begin_restart(end)
    a.wait_for(lambda: not a.run(["ls", "/run/tunnel/waits"], check=False).returncode, 20, "PostUp")
    restart.signal(signal.SIGINT)
    restart.wait_for_output("the restart of wg0 goes on; ^C again leaves it in the background")
    restart.signal(signal.SIGINT)
    assert restart.wait(20) != 0
    assert "Traceback" not in restart.log()
    a.run(["rm", "/run/tunnel/waits"])
    a.wait_for(lambda: restarts(end) == 0, 20, "the tunnel to be up")
    a.ping("10.77.0.2")
    end.down()
    assert remains(a) == []


def test_what_only_an_up_can_change_is_changed_by_a_restart(two_hosts: TwoHosts) -> None:
    end, _ = up(two_hosts, "PostUp = true", "PreDown = echo down >> /run/tunnel/hooks")
    a = two_hosts.a
    before = ifindex(a)
    rewrite(end, "PostUp = true", "PostUp = echo up >> /run/tunnel/hooks")
    moved = end.conf.rename(end.conf.with_name("wg0.moved.conf"))
    said = end.tunnel("restart", "wg0", check=False)
    assert f"wg0 was set up from {end.conf}, which is gone: put it back" in said
    moved.rename(end.conf)
    said = end.tunnel("restart", str(end.conf), check=False)
    assert "PreUp, PostUp, NetNS, Mode or Bridge in the conf was changed" in said
    assert "killed" not in said
    assert ifindex(a) != before
    assert a.run(["cat", "/run/tunnel/hooks"]).stdout == "down\nup\n"
    assert status(end)["restarts"] == 0
    a.ping("10.77.0.2")
    # One that is switched off leaves no holder at the next start.
    rewrite(end, "[Interface]", "#! tunnel: SeamlessRestart = off\n[Interface]")
    end.tunnel("reload", "wg0")
    before = ifindex(a)
    end.tunnel("restart", str(end.conf))
    assert ifindex(a) != before
    assert status(end)["holder"] == 0
    end.down()
    a.run(["rm", "/run/tunnel/hooks"])
    assert remains(a) == []


def test_down_ends_what_would_start_it_again(two_hosts: TwoHosts) -> None:
    end, _ = up(two_hosts, routes=FULL)
    found = status(end)
    # Stopped, the holder starts none in the time that it takes to ask.
    os.kill(found["holder"], signal.SIGSTOP)
    os.kill(found["pid"], signal.SIGKILL)
    assert "its holder starts another one in a moment" in end.tunnel("show", "wg0", check=False)
    os.kill(found["holder"], signal.SIGCONT)
    end.down()
    assert remains(two_hosts.a) == []


def test_a_successor_that_cannot_go_on_leaves_nothing(two_hosts: TwoHosts) -> None:
    a = two_hosts.a
    end, _ = up(two_hosts, routes=FULL)
    with a.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 0))
        port = other.getsockname()[1]
        rewrite(end, "ListenPort = 51820", f"ListenPort = {port}")
        assert f"UDP port {port} is taken" in end.tunnel("restart", str(end.conf), check=False)
    assert remains(a) == []
