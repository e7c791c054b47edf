"""What comes and goes leaves no cycles of ours, which only the garbage collector could free.

Those of libraries are not ours, and how they are collected without a pause is tested in
tests/unit/daemon/test_gc_tuning.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.support.churn_program import KINDS
from tests.support.hosts import TwoHosts
from tests.support.watched import Watched
from tunnel.lab.peers import Node, OurEnd, render_conf

pytestmark = pytest.mark.root

ROUNDS = 5
OURS = ("tunnel.", "crypto.", "trio.")


@pytest.fixture
def daemon(two_hosts: TwoHosts) -> Iterator[Watched]:
    node = Node(two_hosts.a, ("10.77.0.1/24", "fd77::1/64"), "192.0.2.1")
    other = Node(two_hosts.b, ("10.77.0.2/24", "fd77::2/64"), "192.0.2.2")
    watched = Watched(two_hosts.a, OurEnd(node, render_conf(node, [other])).conf)
    yield watched
    watched.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_no_object_of_ours_waits_for_the_collector(
    two_hosts: TwoHosts, daemon: Watched, kind: str
) -> None:
    program = [sys.executable, "-m", "tests.support.churn_program"]
    # What is made once only (modules, caches) is made here.
    two_hosts.a.run([*program, "1", kind])
    daemon.garbage()
    two_hosts.a.run([*program, str(ROUNDS), kind])
    garbage = daemon.garbage()
    ours = {name: count for name, count in garbage.items() if name.startswith(OURS)}
    # An error of the kernel met by chance keeps its frames in a cycle; a cycle of each round is
    # there as often as there are rounds.
    assert all(count < ROUNDS for count in ours.values()), ours


def test_watching_finds_garbage(daemon: Watched) -> None:
    """The test above can fail: a cycle that was made between two reports is found."""
    daemon.garbage()
    assert daemon.garbage()["__main__.Cycle"] == 1
