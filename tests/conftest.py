"""What all tests share: the markers, the lab fixtures, and the check that nothing leaks.

`root` tests need euid 0, /dev/net/tun and network namespaces, `real_root` tests also what the root
of a user namespace has not: other users, cgroups, large buffers, a network. `foreign("program", …)`
tests need programs that are not ours, and may call no others (tests/support/programs.py). On a
machine that lacks them they are skipped with the reason; with CI=true they fail instead, so that
nothing goes untested unseen.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.support import fault_figures
from tests.support.hosts import TwoHosts, two_hosts
from tests.support.pairs import Pair, make_pair
from tests.support.programs import Programs
from tunnel.lab import Lab, state
from tunnel.lab.namespace import NETNS_DIRECTORY, outer_uid

pytest_plugins = ["tunnel.testing.plugin"]
"""It is found by itself only where the package was installed since it has one."""

MARK = "TUNNEL_TEST_SESSION"


PROGRAMS = pytest.StashKey[Programs]()
PROGRAMS_FOLDER = "TUNNEL_TEST_PROGRAMS"


def pytest_configure(config: pytest.Config) -> None:
    # One for the session, removed by the process that made it: xdist may kill its workers.
    if PROGRAMS_FOLDER not in os.environ:
        os.environ[PROGRAMS_FOLDER] = made = tempfile.mkdtemp(prefix="tunnel-test-programs-")
        # Daemons of tests may run as other users.
        os.chmod(made, 0o755)
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(PROGRAMS_FOLDER)))
    folder = Path(tempfile.mkdtemp(dir=os.environ[PROGRAMS_FOLDER]))
    config.stash[PROGRAMS] = Programs(folder, os.environ["PATH"])
    # The library readline writes the size of the terminal into the environment of what is started
    # by a process that has loaded it, as that of xdist's workers; for our programs it is an order.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
    # A shell starts what it puts into the background with SIGINT ignored, and that is inherited;
    # tests that end something as ^C does must find it as it is in a foreground. The same goes for
    # SIGQUIT, and nohup does it to SIGHUP.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


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
def missing_for_root(programs: Programs) -> str | None:
    """Why this process cannot run `root` tests, or None."""
    if os.geteuid() != 0:
        return "needs root"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "needs /dev/net/tun"
    for program in programs.table.groups["lab"]:
        if programs.which(program) is None:
            return f"needs the program {program!r}"
    made = subprocess.run(
        ["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        return f"needs network namespaces ({made.stderr.strip()})"
    return None


def needs_root(item: pytest.Item) -> bool:
    return item.get_closest_marker("root") is not None


def foreign_programs(item: pytest.Item) -> list[str]:
    return [program for marker in item.iter_markers("foreign") for program in marker.args]


def missing_for(item: pytest.Item) -> str | None:
    """Why this machine cannot run the test `item`, or None."""
    programs = item.config.stash[PROGRAMS]
    if needs_root(item):
        reason = missing_for_root(programs)
        if reason is not None:
            return reason
    if item.get_closest_marker("real_root") is not None and outer_uid() != 0:
        return "needs the root of the machine, not of a user namespace"
    for program in foreign_programs(item):
        if programs.which(program) is None:
            return f"needs the program {program!r}"
    return None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the faults have cost, if any were tested."""
    properties = [
        noted
        for report in terminalreporter.getreports("passed")
        for noted in getattr(report, "user_properties", ())
        if report.when == "call"
    ]
    lines = fault_figures.table(properties)
    if lines:
        terminalreporter.section("what the faults have cost")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    programs = item.config.stash[PROGRAMS]
    declared = programs.table.declared(root=needs_root(item), foreign=foreign_programs(item))
    os.environ["PATH"] = programs.path_with(declared)
    reason = missing_for(item)
    if reason is None:
        return
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason} (CI=true: a test may not be skipped for that)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def machine_path(pytestconfig: pytest.Config) -> str:
    """This machine's own PATH: for a look at what is here, and for a build that calls compilers."""
    return pytestconfig.stash[PROGRAMS].path


@pytest.fixture(autouse=True)
def only_declared_programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that called a program which no marker of it declares."""
    yield
    called = request.config.stash[PROGRAMS].take_called()
    assert not called, f"called, but not declared by @pytest.mark.foreign: {', '.join(called)}"


@dataclass(frozen=True)
class MachineState:
    """What a test may not change for good in the namespace the tests run in."""

    namespaces: frozenset[str]
    interfaces: frozenset[str]
    rules: str
    routes: str
    tables: str

    @classmethod
    def read(cls, programs: Programs) -> MachineState:
        def output(program: str, *arguments: str) -> str:
            path = programs.which(program)
            if path is None:
                return ""
            return subprocess.run(
                [path, *arguments], capture_output=True, text=True, check=False
            ).stdout

        return cls(
            namespaces=frozenset(_lab_namespaces()),
            interfaces=frozenset(os.listdir("/sys/class/net")),
            rules=output("ip", "rule") + output("ip", "-6", "rule"),
            routes=output("ip", "route", "show", "table", "all", "type", "unicast"),
            tables=output("nft", "list", "tables") if os.geteuid() == 0 else "",
        )


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
def nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the session if it leaves namespaces, interfaces, rules, tables or processes."""
    # Every process a test starts inherits this, daemons too.
    mark = f"tests-{os.getpid()}-{secrets.token_hex(4)}"
    os.environ[MARK] = mark
    programs = request.config.stash[PROGRAMS]
    # What a killed run left behind is swept away by the first lab of this one; not a leak of ours.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", programs.path_with(programs.table.declared(root=True, foreign=())))
        state.sweep()
    before = MachineState.read(programs)
    yield
    left = sorted(_processes_with(f"{MARK}={mark}"))
    assert not left, f"processes left behind: {left}"
    assert MachineState.read(programs) == before, "the tests changed the machine they ran on"
    del os.environ[MARK]


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An empty lab, taken down after the test."""
    with Lab() as made:
        yield made


@pytest.fixture(name="two_hosts")
def two_hosts_fixture(lab: Lab) -> TwoHosts:
    return two_hosts(lab)


@pytest.fixture
def pair(two_hosts: TwoHosts) -> Pair:
    """Two of our ends that are up, on `two_hosts`."""
    return make_pair(two_hosts)
