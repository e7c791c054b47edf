"""The confs that `tunnel new` makes, brought up as they are."""

from __future__ import annotations

import sys

import pytest

from tests.support.hosts import TwoHosts

pytestmark = pytest.mark.root


def test_a_new_pair_reaches_each_other_on_a_free_prefix(two_hosts: TwoHosts) -> None:
    a, b = two_hosts.a, two_hosts.b
    # Of 10/8 only one network is left.
    for network in ("10.0.0.0/9", "10.128.0.0/10", "10.192.0.0/11", "10.240.0.0/12"):
        a.run(["ip", "route", "add", "unreachable", network])
    folder = a.directory / "new"
    command = [sys.executable, "-m", "tunnel"]
    words = ["new", "wg0", "a=192.0.2.1", "b", "--folder", str(folder), "--yes"]
    said = a.run([*command, *words]).stdout
    assert " in 10.22" in said or " in 10.23" in said, "10.224.0.0/12"
    for host in (a, b):
        host.run([*command, "up", str(folder / host.name / "wg0.conf")])
    addresses = a.addresses("wg0")
    assert len(addresses) == 2
    for each in addresses:
        b.ping(str(each.address.ip))


def test_on_a_terminal_up_says_who_answered(two_hosts: TwoHosts) -> None:
    a, b = two_hosts.a, two_hosts.b
    command = [sys.executable, "-m", "tunnel"]
    words = ["new", "wg0", "a=192.0.2.1", "b", "--folder", str(a.directory / "new"), "--yes"]
    a.run([*command, *words])
    said = a.run([*command, "up", str(a.directory / "new/a/wg0.conf")]).stdout
    assert said == "", "to a script"
    terminal = [sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])"]
    shown = b.run([*terminal, *command, "up", str(a.directory / "new/b/wg0.conf")]).stdout
    line = next(each for each in shown.splitlines() if each)
    assert line.startswith("wg0 is up: 10.")
    # Which of the two it is depends on how fast this machine is.
    assert line.endswith(("; a answered", "; no peer has answered yet: tunnel doctor wg0"))
