"""What all tests share: the two markers, the lab fixtures, and the check that nothing leaks.

`root` tests need euid 0, /dev/net/tun and network namespaces; `foreign("program", …)` tests
need programs that are not ours. On a machine that lacks them they are skipped with the reason;
with CI=true they fail instead, so that nothing goes untested unseen.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.support.hosts import TwoHosts
from tests.support.pairs import Pair, make_pair
from tunnel.lab import Lab, state
from tunnel.lab.namespace import NETNS_DIRECTORY

MARK = "TUNNEL_TEST_SESSION"


def pytest_configure() -> None:
    # A shell starts what it puts into the background with SIGINT ignored, and that is inherited;
    # tests that end something as ^C does must find it as it is in a foreground.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let every worker begin with slow tests, so that none of them is what the others wait for."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = [item for item in items if item.get_closest_marker("slow")]
    others = [item for item in items if not item.get_closest_marker("slow")]
    # Each worker is given a piece of the list first, in order.
    items[:] = []
    for number in range(workers):
        items += slow[number::workers]
        items += others[number * len(others) // workers : (number + 1) * len(others) // workers]


@cache
def missing_for_root() -> str | None:
    """Why this process cannot run `root` tests, or None."""
    if os.geteuid() != 0:
        return "needs root"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "needs /dev/net/tun"
    for program in ("ip", "nsenter", "unshare", "nft", "ping"):
        if shutil.which(program) is None:
            return f"needs the program {program!r}"
    made = subprocess.run(
        ["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        return f"needs network namespaces ({made.stderr.strip()})"
    return None


def missing_for(item: pytest.Item) -> str | None:
    """Why this machine cannot run the test `item`, or None."""
    if item.get_closest_marker("root") is not None:
        reason = missing_for_root()
        if reason is not None:
            return reason
    for marker in item.iter_markers("foreign"):
        for program in marker.args:
            if shutil.which(program) is None:
                return f"needs the program {program!r}"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = missing_for(item)
    if reason is None:
        return
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason} (CI=true: a test may not be skipped for that)", pytrace=False)
    pytest.skip(reason)


@dataclass(frozen=True)
class MachineState:
    """What a test may not change for good in the namespace the tests run in."""

    namespaces: frozenset[str]
    interfaces: frozenset[str]
    rules: str
    routes: str
    tables: str

    @classmethod
    def read(cls) -> MachineState:
        return cls(
            namespaces=frozenset(_lab_namespaces()),
            interfaces=frozenset(os.listdir("/sys/class/net")),
            rules=_output("ip", "rule") + _output("ip", "-6", "rule"),
            routes=_output("ip", "route", "show", "table", "all", "type", "unicast"),
            tables=_output("nft", "list", "tables") if os.geteuid() == 0 else "",
        )


def _output(*arguments: str) -> str:
    if shutil.which(arguments[0]) is None:
        return ""
    return subprocess.run(arguments, capture_output=True, text=True, check=False).stdout


def _lab_namespaces() -> Iterator[str]:
    """Namespaces of labs, but for those of other programs that run now."""
    others = {f.id for f in state.read_all() if f.alive and f.owner != os.getpid()}
    if NETNS_DIRECTORY.is_dir():
        for path in NETNS_DIRECTORY.glob(f"{state.PREFIX}*"):
            if path.name.split("-")[1] not in others:
                yield path.name


def _processes_with(mark: str) -> Iterator[str]:
    """PID and command line of all other processes that have `mark` in their environment."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                if mark.encode() in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    yield f"{entry} {Path(f'/proc/{entry}/cmdline').read_text()!r}"


@pytest.fixture(scope="session", autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Fail the session if it leaves namespaces, interfaces, rules, tables or processes."""
    # Every process a test starts inherits this, daemons too.
    mark = f"tests-{os.getpid()}-{secrets.token_hex(4)}"
    os.environ[MARK] = mark
    # What a killed run left behind is swept away by the first lab of this one; not a leak of ours.
    state.sweep()
    before = MachineState.read()
    yield
    left = sorted(_processes_with(f"{MARK}={mark}"))
    assert not left, f"processes left behind: {left}"
    assert MachineState.read() == before, "the tests changed the machine they ran on"
    del os.environ[MARK]


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An empty lab, taken down after the test."""
    with Lab() as made:
        yield made


@pytest.fixture
def two_hosts(lab: Lab) -> TwoHosts:
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b, ["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"])
    return TwoHosts(lab, a, b, link)


@pytest.fixture
def pair(two_hosts: TwoHosts) -> Pair:
    """Two of our ends that are up, on `two_hosts`."""
    return make_pair(two_hosts)
