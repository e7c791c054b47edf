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

import pytest

from tests.integration.daemon.conftest import Pair, make_pair, pair
from tunnel.lab import Host

__all__ = ["make_pair", "pair"]

pytestmark = pytest.mark.root


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, host: Host, *arguments: str, columns: int = 100) -> None:
        self.ours, self._theirs = pty.openpty()
        self.resize(columns, 30)
        self.before = termios.tcgetattr(self._theirs)
        environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": os.getcwd()}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [*host.enter_command(), sys.executable, "-m", "tunnel", "top", *arguments],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env=environment,
            start_new_session=True,
        )
        self.seen = b""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def wait_for(self, text: str, *, bound: float = 15.0) -> None:
        """Read on until `text` has been drawn since the last call."""
        end = time.monotonic() + bound
        while text.encode() not in self.seen:
            ready, _, _ = select.select([self.ours], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no {text!r} in {self.seen.decode(errors='replace')}"
            self.seen += os.read(self.ours, 65536)
        self.seen = self.seen.partition(text.encode())[2]

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
        assert termios.tcgetattr(self._theirs) == self.before
        return rest

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self._theirs)


@contextlib.contextmanager
def terminal(host: Host, *arguments: str, columns: int = 100) -> Iterator[Terminal]:
    made = Terminal(host, *arguments, columns=columns)
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
