"""What a daemon that no service manager confines gives up of root's rights, and what works then."""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import remains, rewrite
from tests.support.hosts import TwoHosts
from tests.support.pairs import status
from tunnel.lab.peers import Node, OurEnd, render_conf
from tunnel.linux.rights import Capability, Held, held_by

pytestmark = pytest.mark.root

OURS = frozenset({Capability.NET_ADMIN})
RESERVE = frozenset({Capability.DAC_OVERRIDE, Capability.SYS_ADMIN, Capability.SYS_PTRACE})
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def of_each_thread(pid: int) -> Iterator[Held]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        held = held_by(int(task.name))
        assert held is not None
        yield held


def sets_of(text: str) -> dict[str, int]:
    """The sets of /proc/PID/status."""
    found = dict(re.findall(r"^(Cap\w+):\t([0-9a-f]+)$", text, re.M))
    return {name: int(found[name], 16) for name in SETS}


def may_lock() -> bool:
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    held = held_by()
    assert held is not None
    return hard == resource.RLIM_INFINITY or Capability.SYS_RESOURCE in held.capabilities


def ends_of(
    two_hosts: TwoHosts, *extra: str, settings: tuple[str, ...] = ()
) -> tuple[OurEnd, OurEnd]:
    a = Node(two_hosts.a, ("10.77.0.1/24",), "192.0.2.1")
    b = Node(two_hosts.b, ("10.77.0.2/24",), "192.0.2.2")
    ours = OurEnd(a, render_conf(a, [b], extra=extra, settings=settings))
    return ours, OurEnd(b, render_conf(b, [a]))


@pytest.mark.parametrize(("attach", "reserve"), [("on", RESERVE), ("off", frozenset())])
def test_every_thread_has_cap_net_admin_and_no_more(
    two_hosts: TwoHosts, attach: str, reserve: frozenset[Capability]
) -> None:
    ours, theirs = ends_of(two_hosts, settings=(f"Attach = {attach}",))
    ours.up()
    theirs.up()
    two_hosts.a.ping("10.77.0.2")
    found = status(ours)
    pid = found["pid"]
    # The main one, the one that writes the log, and those that have set the routes.
    threads = list(of_each_thread(pid))
    assert len(threads) > 1
    assert set(threads) == {
        Held(0, OURS, reserve, no_new_privs=True, filters=True, locked=may_lock())
    }
    # No program that it starts has more.
    assert sets_of(Path(f"/proc/{pid}/status").read_text())["CapBnd"] == 1 << Capability.NET_ADMIN
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 ", limits, re.M)
    # They say so.
    assert found["rights"]["capabilities"] == ["NET_ADMIN"]
    assert set(found["rights"]["reserve"]) == {each.name for each in reserve}
    assert "rights: CAP_NET_ADMIN" in ours.tunnel("show", "wg0")
    assert "rights: CAP_NET_ADMIN" in ours.tunnel("doctor", "wg0")
    # All that a reload does is done with that.
    rewrite(ours, "AllowedIPs = ", "AllowedIPs = 0.0.0.0/0, ")
    assert "+ route 0.0.0.0/0" in ours.tunnel("reload", "wg0")
    two_hosts.a.ping("10.77.0.2")
    if not reserve:
        answer = ours.tunnel("attach", "wg0", "--pid", str(os.getpid()), check=False)
        assert "Attach in its conf has the daemon give up the rights for it" in answer
    ours.down()
    assert remains(two_hosts.a) == []


def test_what_a_conf_takes_beyond_that_is_kept_and_a_reload_says_what_is_not(
    two_hosts: TwoHosts, tmp_path: Path
) -> None:
    ours, _ = ends_of(two_hosts, settings=("Attach = off",))
    rewrite(ours, "ListenPort = 51820", "ListenPort = 53")
    os.chown(ours.conf, 65534, 65534)
    ours.up()
    (held,) = set(of_each_thread(status(ours)["pid"]))
    files = {
        Capability.CHOWN,
        Capability.DAC_OVERRIDE,
        Capability.DAC_READ_SEARCH,
        Capability.FOWNER,
    }
    assert held.capabilities == OURS | files | {Capability.NET_BIND_SERVICE}
    ours.tunnel("save", "wg0")
    assert ours.conf.stat().st_uid == 65534
    rewrite(ours, "ListenPort = 53", "ListenPort = 51820")
    rewrite(ours, "[Tunnel]\n", "[Tunnel]\nForward = on\n")
    said = ours.tunnel("reload", "wg0")
    assert "gave up CAP_NET_RAW when it came up, and may need it for iptables" in said
    ours.down()
    os.chown(ours.conf, 0, 0)
    ours.up()
    (held,) = set(of_each_thread(status(ours)["pid"]))
    assert held.capabilities == OURS | {Capability.NET_RAW}
    rewrite(ours, "ListenPort = 51820", "ListenPort = 53")
    said = ours.tunnel("reload", "wg0", check=False)
    assert "cannot bind UDP port 53" in said
    assert "as ListenPort, then restart the tunnel" in said


def test_hooks_that_a_reload_brings_are_run_and_the_reload_says_with_which_rights(
    two_hosts: TwoHosts, tmp_path: Path
) -> None:
    ours, theirs = ends_of(two_hosts)
    ours.up()
    theirs.up()
    seen = tmp_path / "seen"
    text = ours.conf.read_text()
    hook = f"PostDown = cat /proc/self/status > {seen}; unshare --user true || true; echo goes on"
    ours.conf.write_text(text.replace("[Peer]", f"{hook}\n[Peer]", 1))
    said = ours.tunnel("reload", "wg0")
    assert "gave up rights and system calls that their programs may need" in said
    ours.down()
    log = two_hosts.a.run(["cat", "/run/tunnel/wg0.log"]).stdout
    assert "unshare failed: Operation not permitted" in log
    assert "goes on" in log
    assert sets_of(seen.read_text())["CapPrm"] == 1 << Capability.NET_ADMIN
    assert remains(two_hosts.a) == []


def test_with_hooks_they_have_all_the_rights_of_the_caller(
    two_hosts: TwoHosts, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    ours, _ = ends_of(two_hosts, f"PostUp = cat /proc/self/status > {seen}")
    caller = sets_of(two_hosts.a.run(["cat", "/proc/self/status"]).stdout)
    assert caller["CapEff"] & ~(1 << Capability.NET_ADMIN)
    ours.up()
    assert sets_of(seen.read_text()) == caller
    for each in of_each_thread(status(ours)["pid"]):
        assert sum(1 << number for number in each.capabilities) == caller["CapEff"]
    words = re.search(r"rights: (\d+) capabilities", ours.tunnel("show", "wg0"))
    assert words is not None
    assert "seccomp" not in words.string
    assert int(words[1]) == caller["CapEff"].bit_count()


@pytest.mark.foreign("setpriv")
def test_where_nothing_may_be_given_up_it_comes_up_all_the_same(two_hosts: TwoHosts) -> None:
    """A container that has taken CAP_SETPCAP."""
    ours, theirs = ends_of(two_hosts)
    theirs.up()
    tunnel_up = [sys.executable, "-m", "tunnel", "up", str(ours.conf)]
    two_hosts.a.run(["setpriv", "--bounding-set=-setpcap", *tunnel_up], timeout=30)
    two_hosts.a.ping("10.77.0.2")
    for each in of_each_thread(status(ours)["pid"]):
        assert each.capabilities > OURS
