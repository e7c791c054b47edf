"""Faults of the machine that an end runs on: its clock, its processes, its limits, its devices."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from tests.support.daemons import kill, remains
from tests.support.fault_figures import Figures
from tests.support.fault_net import Net
from tests.support.hosts import TwoHosts
from tests.support.pairs import Pair, drops, make_pair, status
from tests.support.streams import Stream
from tunnel.lab import Host
from tunnel.lab.peers import Node, OurEnd, render_conf

pytestmark = pytest.mark.root

RECOVERED = 20.0
"""Seconds within which packets must come through again; for a machine that has much else to do."""

SUSPENDED = float(os.environ.get("TUNNEL_FAULTS_SUSPENDED", "1"))
"""Seconds that a daemon is stopped for; `make reliability` has more than a session lives."""

REJECT_AFTER_TIME = 180
YEARS = 365 * 86_400


def stream(pair: Pair) -> Stream:
    """From a to b."""
    a, b = pair.hosts
    return Stream(a, b, pair.b.node.address())


def restart_link(host: Host) -> None:
    """The interface goes down and up, which ends its sessions: the next packet needs another."""
    host.ip("link set wg0 down", "link set wg0 up")


def test_wall_clock_jumps(two_hosts: TwoHosts, figures: Figures) -> None:
    clock = two_hosts.a.directory / "clock"
    clock.write_text("0")
    nodes = [
        Node(two_hosts.a, ("10.77.0.1/24",), "192.0.2.1"),
        Node(two_hosts.b, ("10.77.0.2/24",), "192.0.2.2"),
    ]
    program = (sys.executable, "-m", "tests.support.clock_program", str(clock))
    a = OurEnd(nodes[0], render_conf(nodes[0], [nodes[1]]), command=program)
    b = OurEnd(nodes[1], render_conf(nodes[1], [nodes[0]]))
    a.up()
    b.up()
    with Stream(two_hosts.a, two_hosts.b, "10.77.0.2") as packets:
        packets.flow()
        for what, ahead in (("10 years ahead", 10 * YEARS), ("a day back", -86_400)):
            begun = packets.mark()
            clock.write_text(str(ahead))
            # What is encrypted goes on, by a clock that no one sets.
            assert packets.recovery(begun, packets.flow(20), RECOVERED).lost == 0
            # The next handshake is newer than the last one, for its peer too.
            begun = packets.mark()
            restart_link(two_hosts.a)
            found = packets.recovery(begun, packets.mark(), RECOVERED)
            figures.recovery(f"the clock jumps {what}, and a handshake", found)
    assert drops(b).get("old_timestamp", 0) == 0


def test_suspended(net: Net, figures: Figures) -> None:
    pid = status(net.a)["pid"]
    before = drops(net.b)
    with net.stream() as packets:
        begun = packets.flow()
        handshake = status(net.a)["peers"][0]["latest_handshake"]
        os.kill(pid, signal.SIGSTOP)
        try:
            packets.wait_sent(int(SUSPENDED / 0.01), bound=10 * SUSPENDED + 30)
        finally:
            os.kill(pid, signal.SIGCONT)
        found = packets.recovery(begun, packets.mark(), RECOVERED)
    figures.recovery(f"the daemon sleeps for {SUSPENDED:.0f} s", found)
    # After that time its keys are too old, and a handshake comes before the first packet.
    renewed = status(net.a)["peers"][0]["latest_handshake"] != handshake
    assert renewed == (SUSPENDED > REJECT_AFTER_TIME)
    assert drops(net.b).get("session_expired", 0) == before.get("session_expired", 0)
    assert status(net.a)["pid"] == pid


def test_killed_and_up_again(pair: Pair, figures: Figures) -> None:
    a, _ = pair.hosts
    with stream(pair) as packets:
        begun = packets.flow()
        killed = status(pair.a)["pid"]
        kill(pair.a)
        a.wait_for(lambda: not a.pids(), RECOVERED, "the processes to end")
        healed = packets.mark()
        pair.a.up()
        found = packets.recovery(begun, healed, RECOVERED)
    figures.recovery("kill -9, then tunnel up", found)
    assert status(pair.a)["pid"] != killed
    pair.a.down()
    assert remains(a) == []


def wait_for_mtu(end: OurEnd, mtu: int) -> None:
    end.node.host.wait_for(lambda: status(end)["mtu"] == mtu, RECOVERED, f"an MTU of {mtu}")


def test_device_set_down_and_its_mtu_changed(net: Net, figures: Figures) -> None:
    with net.stream() as packets:
        begun = packets.flow()
        for mtu in (9000, 1280, 1420):
            net.here.ip(f"link set wg4 mtu {mtu}")
            wait_for_mtu(net.a, mtu)
        found = packets.recovery(begun, packets.mark(), RECOVERED)
        figures.recovery("the MTU of the interface changes", found)
        assert found.lost == 0
        begun = packets.mark()
        net.here.ip("link set wg4 down")
        packets.wait_sent(20)
        net.here.ip("link set wg4 up")
        found = packets.recovery(begun, packets.mark(), RECOVERED)
    figures.recovery("the interface is set down and up", found)
    assert found.lost > 0


def test_device_deleted_or_its_namespace(two_hosts: TwoHosts, figures: Figures) -> None:
    pair = make_pair(two_hosts)
    a, _ = pair.hosts
    with stream(pair) as packets:
        for what in ("the interface", "the namespace that it was moved to"):
            begun = packets.flow()
            start = time.monotonic()
            if what == "the interface":
                a.ip("link delete wg0")
            else:
                inner = pair.lab.host("inner")
                a.ip(f"link set wg0 netns {inner.pid}")
                start = time.monotonic()
                pair.lab.remove_host(inner)
            a.wait_for(lambda: not a.pids(), RECOVERED, "the daemon to leave")
            figures.note(f"{what} is deleted: the daemon ends", time.monotonic() - start)
            ours = f"pid={os.getpid()},"
            assert [line for line in remains(a) if ours not in line] == []
            healed = packets.mark()
            pair.a.up()
            found = packets.recovery(begun, healed, RECOVERED)
            figures.recovery(f"{what} is deleted, then tunnel up", found)


def test_no_more_files_may_be_opened(net: Net, figures: Figures) -> None:
    pid = status(net.a)["pid"]
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    opened = len(os.listdir(f"/proc/{pid}/fd"))
    with net.stream() as packets:
        begun = packets.flow()
        # Lower than the highest descriptor: not one more may be opened.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (opened, limits[1]))
        try:
            command = [*net.a.command, "show", "wg4"]
            asking = subprocess.Popen(
                [*net.here.enter_command(), *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            packets.flow(50)
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        found = packets.recovery(begun, packets.mark(), RECOVERED)
        # Who asked meanwhile is answered, or is given the reason.
        printed, _ = asking.communicate(timeout=30)
    figures.recovery("no more files may be opened", found)
    assert found.lost == 0
    assert asking.returncode == 0 or "open files" in printed, printed
    assert status(net.a)["pid"] == pid
