"""`tunnel top` on a terminal of its own, resized and left, and once for scripts."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import status
from tests.support.pairs import Pair
from tunnel.lab import Host

pytestmark = pytest.mark.root


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(
        self, host: Host, *arguments: str, columns: int = 100, kind: str = "xterm"
    ) -> None:
        self.ours, self.theirs = pty.openpty()
        self.resize(columns, 30)
        self.before = termios.tcgetattr(self.theirs)
        environment = {**os.environ, "TERM": kind, "PYTHONPATH": os.getcwd()}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [*host.enter_command(), sys.executable, "-m", "tunnel", "top", *arguments],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env=environment,
            # As a job of a shell, which is told when it stops.
            process_group=0,
        )
        self.seen = b""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def wait_for(self, text: str, *, bound: float = 15.0) -> None:
        """Read on until `text` has been drawn since the last call."""
        end = time.monotonic() + bound
        while text.encode() not in self.seen:
            ready, _, _ = select.select([self.ours], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no {text!r} in {self.seen.decode(errors='replace')}"
            self.seen += os.read(self.ours, 65536)
        self.seen = self.seen.partition(text.encode())[2]

    def wait_stopped(self, *, bound: float = 15.0) -> None:
        """Read on until the process is stopped."""
        end = time.monotonic() + bound
        stat = Path(f"/proc/{self.process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < end, "it goes on"
            if select.select([self.ours], [], [], 0.05)[0]:
                self.seen += os.read(self.ours, 65536)
        while select.select([self.ours], [], [], 0)[0]:
            self.seen += os.read(self.ours, 65536)

    def end(self) -> bytes:
        """What it prints to its end; it leaves in order and gives the terminal back."""
        rest = self.seen
        while self.process.poll() is None:
            if select.select([self.ours], [], [], 0.2)[0]:
                rest += os.read(self.ours, 65536)
        with contextlib.suppress(OSError):
            while select.select([self.ours], [], [], 0)[0]:
                rest += os.read(self.ours, 65536)
        assert self.process.returncode == 0, rest
        assert b"Traceback" not in rest
        assert b"\x1b[?1049l" in rest, "the screen before is given back"
        assert termios.tcgetattr(self.theirs) == self.before
        return rest

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@contextlib.contextmanager
def terminal(host: Host, *arguments: str, kind: str = "xterm") -> Iterator[Terminal]:
    made = Terminal(host, *arguments, kind=kind)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_follows_resizes_and_quits(pair: Pair, key: bytes) -> None:
    a, _ = pair.hosts
    with terminal(a, "wg0", "--interval", "0.2") as top:
        top.wait_for("never")
        a.ping(pair.b.node.address())
        top.wait_for("kbit/s")
        top.wait_for("1500")
        # Narrower than the column of endpoints needs; drawn again at once, not at the next look.
        top.resize(60, 20)
        top.process.send_signal(signal.SIGWINCH)
        top.wait_for("\x1b[2J")
        top.wait_for("HANDSHAKE")
        os.write(top.ours, key)
        if key == b"\x03":
            # The terminal is not its controlling one here, so the line discipline cannot tell it.
            top.process.send_signal(signal.SIGINT)
        top.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order(pair: Pair, number: int) -> None:
    with terminal(pair.hosts[0], "wg0") as top:
        top.wait_for("never")
        top.process.send_signal(number)
        top.end()


def test_it_may_be_stopped_and_go_on(pair: Pair) -> None:
    """As ^Z and fg do."""
    with terminal(pair.hosts[0], "wg0", "--interval", "0.2") as top:
        for _ in range(2):
            top.wait_for("never")
            top.process.send_signal(signal.SIGTSTP)
            top.wait_stopped()
            assert b"\x1b[?1049l" in top.seen, "the shell's screen is given back"
            assert termios.tcgetattr(top.theirs) == top.before
            top.process.send_signal(signal.SIGCONT)
            top.wait_for("\x1b[?1049h")
        top.wait_for("never")
        os.write(top.ours, b"q")
        top.end()


def test_a_daemon_that_hangs_does_not_keep_it(pair: Pair) -> None:
    a, _ = pair.hosts
    pid = status(pair.a)["pid"]
    with terminal(a, "wg0", "--interval", "0.2") as top:
        top.wait_for("never")
        os.kill(pid, signal.SIGSTOP)
        try:
            top.wait_for("the daemon of wg0 does not answer")
            os.write(top.ours, b"q")
            top.end()
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_terminal_that_cannot_be_drawn_on_is_told_what_to_use(pair: Pair) -> None:
    with terminal(pair.hosts[0], "wg0", kind="dumb") as top:
        top.wait_for("of type dumb; for scripts there is --once")
        assert top.process.wait(15) == 2


def test_ends_with_the_tunnel(pair: Pair) -> None:
    with terminal(pair.hosts[0], "--interval", "0.2") as top:
        top.wait_for("never")
        pair.a.down()
        assert b"the tunnels have ended" in top.end()


def test_once_for_scripts(pair: Pair) -> None:
    a, _ = pair.hosts
    pinging = a.popen(["ping", "-i", "0.02", "-s", "1000", pair.b.node.address()])
    a.ping(pair.b.node.address())
    text = pair.a.tunnel("top", "--once", "wg0")
    assert "\x1b" not in text
    assert pair.b.node.public_key in text
    assert "192.0.2.2:51820" in text
    assert "bit/s" in text
    (found,) = json.loads(pair.a.tunnel("top", "--once", "--json", "--interval", "0.5"))
    pinging.stop()
    assert found["rates"][pair.b.node.public_key]["sent"] > 10_000
    assert found["peers"][0]["path_mtu"] == 1500
    assert 0 < found["cpu"] < 1


def test_says_what_it_needs(pair: Pair) -> None:
    assert "needs a terminal" in pair.a.tunnel("top", "wg0", check=False)
    assert "no tunnel named wg9" in pair.a.tunnel("top", "--once", "wg9", check=False)
