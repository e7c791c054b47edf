"""What a daemon that no service manager confines gives up of root's rights, and what works then."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import remains
from tests.support.hosts import TwoHosts
from tests.support.pairs import status
from tunnel.daemon.rights import KEPT
from tunnel.lab.peers import Node, OurEnd, render_conf
from tunnel.linux.rights import Capability

pytestmark = pytest.mark.root

MASK = sum(1 << number for number in KEPT)
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def rights_in(text: str) -> dict[str, int]:
    """The sets of /proc/PID/status, and NoNewPrivs."""
    found = re.findall(r"^(Cap\w+):\t([0-9a-f]+)$", text, re.M)
    no_new = re.search(r"^NoNewPrivs:\t(\d)$", text, re.M)
    assert no_new is not None
    return {**{name: int(value, 16) for name, value in found}, "NoNewPrivs": int(no_new[1])}


def of_each_thread(pid: int) -> Iterator[dict[str, int]]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield rights_in((task / "status").read_text())


def ends_of(two_hosts: TwoHosts, *extra: str) -> tuple[OurEnd, OurEnd]:
    a = Node(two_hosts.a, ("10.77.0.1/24",), "192.0.2.1")
    b = Node(two_hosts.b, ("10.77.0.2/24",), "192.0.2.2")
    ours = OurEnd(a, render_conf(a, [b], extra=extra))
    return ours, OurEnd(b, render_conf(b, [a]))


def test_without_hooks_every_thread_has_a_few_rights_and_no_more(two_hosts: TwoHosts) -> None:
    ours, theirs = ends_of(two_hosts)
    ours.up()
    theirs.up()
    two_hosts.a.ping("10.77.0.2")
    pid = status(ours)["pid"]
    # The main one, the one that writes the log, and those that have set the routes.
    found = list(of_each_thread(pid))
    assert len(found) > 1
    for each in found:
        assert {each[name] & ~MASK for name in SETS} == {0}
        assert each["CapEff"] >> Capability.NET_ADMIN & 1
        assert each["NoNewPrivs"] == 1
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 ", limits, re.M)


def test_hooks_that_a_reload_brings_are_run_and_the_reload_says_with_which_rights(
    two_hosts: TwoHosts, tmp_path: Path
) -> None:
    ours, theirs = ends_of(two_hosts)
    ours.up()
    theirs.up()
    seen = tmp_path / "seen"
    text = ours.conf.read_text()
    hook = f"PostDown = cat /proc/self/status > {seen}"
    ours.conf.write_text(text.replace("[Peer]", f"{hook}\n[Peer]", 1))
    said = ours.tunnel("reload", "wg0")
    assert "gave up rights that their programs may need" in said
    ours.down()
    assert rights_in(seen.read_text())["CapEff"] & ~MASK == 0
    assert remains(two_hosts.a) == []


def test_with_hooks_they_have_all_the_rights_of_the_caller(
    two_hosts: TwoHosts, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    ours, _ = ends_of(two_hosts, f"PostUp = cat /proc/self/status > {seen}")
    caller = rights_in(two_hosts.a.run(["cat", "/proc/self/status"]).stdout)
    assert caller["CapEff"] & ~MASK
    ours.up()
    hook = rights_in(seen.read_text())
    assert hook == caller
    assert {each["CapEff"] for each in of_each_thread(status(ours)["pid"])} == {caller["CapEff"]}


@pytest.mark.foreign("setpriv")
def test_where_nothing_may_be_given_up_it_comes_up_all_the_same(two_hosts: TwoHosts) -> None:
    """A container that has taken CAP_SETPCAP."""
    ours, theirs = ends_of(two_hosts)
    theirs.up()
    tunnel_up = [sys.executable, "-m", "tunnel", "up", str(ours.conf)]
    two_hosts.a.run(["setpriv", "--bounding-set=-setpcap", *tunnel_up], timeout=30)
    two_hosts.a.ping("10.77.0.2")
    for each in of_each_thread(status(ours)["pid"]):
        assert each["CapEff"] & ~MASK
