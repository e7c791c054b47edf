"""The daemon with the unit's rights and no more, started by hand."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support.daemons import remains
from tests.support.hosts import TwoHosts
from tunnel.lab.peers import Node, OurEnd, render_conf
from tunnel.systemd import units

pytestmark = [pytest.mark.root, pytest.mark.foreign("systemd-analyze", "setpriv")]

CONFINE = Path(__file__).parents[2] / "support" / "machine" / "confine.py"


@pytest.fixture
def confined(tmp_path: Path) -> list[str]:
    """The words before a command that is to be confined."""
    unit = tmp_path / units.UNIT
    unit.write_text(units.render(units.UNIT, ["/usr/bin/true"]))
    return [sys.executable, str(CONFINE), str(unit)]


@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        pytest.param("import os; os.setuid(1000)", marks=pytest.mark.real_root),
        pytest.param("import os; os.chown('/dev/shm', 0, 0)", marks=pytest.mark.real_root),
        "import os; os.chroot('/')",
        "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)",
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.unshare(0x40000000): raise OSError(ctypes.get_errno(), 'unshare')",
        "import os; os.sched_setaffinity(0, {0})",
    ],
)
def test_the_filter_holds(two_hosts: TwoHosts, confined: list[str], attempt: str) -> None:
    """Each attempt works without it, so the daemon's success within it says something."""
    free = two_hosts.a.run([sys.executable, "-c", attempt], check=False)
    assert free.returncode == 0, free.stderr
    held = two_hosts.a.run([*confined, sys.executable, "-c", attempt], check=False)
    assert "PermissionError: [Errno 1]" in held.stderr


def test_up_ping_show_reload_down(two_hosts: TwoHosts, confined: list[str]) -> None:
    a = Node(two_hosts.a, ("10.77.0.1/24", "fd77::1/64"), "192.0.2.1")
    b = Node(two_hosts.b, ("10.77.0.2/24", "fd77::2/64"), "192.0.2.2")
    OurEnd(b, render_conf(b, [a])).up()
    end = OurEnd(a, render_conf(a, [b]))
    tunnel = [*confined, sys.executable, "-m", "tunnel"]
    process = two_hosts.a.popen([*tunnel, "up", "--foreground", str(end.conf)])
    two_hosts.a.wait_for(lambda: "is up" in process.log(), 20, "the daemon to be up")
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert re.search(r"^NoNewPrivs:\t1$", status, re.M)
    assert re.search(r"^Seccomp:\t2$", status, re.M)
    for inner in ("10.77.0.2", "fd77::2"):
        two_hosts.a.run(["ping", "-c", "2", "-i", "0.2", "-W", "5", inner])
    assert "10.77.0.2" in two_hosts.a.run([*tunnel, "show", "wg0"]).stdout
    end.conf.write_text(end.conf.read_text().replace("10.77.0.1/24", "10.77.0.9/24"))
    two_hosts.a.run([*tunnel, "reload", "wg0"])
    two_hosts.a.run([*tunnel, "down", "wg0"])
    assert process.wait(10) == 0, process.log()
    assert remains(two_hosts.a) == []


def test_leftovers_of_a_killed_daemon(two_hosts: TwoHosts, confined: list[str]) -> None:
    """What ExecStopPost= does, with the rights it has."""
    a = Node(two_hosts.a, ("10.77.0.1/24",), "192.0.2.1")
    b = Node(two_hosts.b, ("10.77.0.2/24",), "192.0.2.2", routes=("0.0.0.0/0",))
    end = OurEnd(a, render_conf(a, [b]))
    tunnel = [*confined, sys.executable, "-m", "tunnel"]
    # Nothing to do is no failure, and no words.
    quiet = two_hosts.a.run([*tunnel, "down", "--leftovers", "wg0"])
    assert quiet.stdout + quiet.stderr == ""
    process = two_hosts.a.popen([*tunnel, "up", "--foreground", str(end.conf)])
    two_hosts.a.wait_for(lambda: "is up" in process.log(), 20, "the daemon to be up")
    running = two_hosts.a.run([*tunnel, "down", "--leftovers", "wg0"], check=False)
    assert running.returncode == 1
    assert "is already running" in running.stderr
    two_hosts.a.run(["kill", "-KILL", str(process.pid)])
    process.wait(5)
    cleaned = two_hosts.a.run([*tunnel, "down", "--leftovers", "wg0"])
    assert cleaned.stdout == "removed what was left of wg0\n"
    assert remains(two_hosts.a) == []
