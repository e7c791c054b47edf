"""What is not loaded by those who wait: commands that end at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.confs import INTERFACE

DAEMON = (
    "tunnel.cli.entry",
    "tunnel.cli.life",
    "tunnel.daemon.daemon",
    "tunnel.daemon.run",
    "tunnel.daemon.control",
    "tunnel.daemon.metrics",
)
"""Modules that a daemon has loaded when its tunnel comes up. Those of pyroute2 follow with the
first address."""

NEVER = {
    *("asyncio", "concurrent", "decimal", "email", "http", "multiprocessing", "unittest"),
    *("wsgiref", "xml"),
    *("dns", "h11", "jeepney", "prometheus_client", "pydantic", "pyroute2", "rich"),
}
"""What none of them needs: each takes its part of the time of `up`, and of the daemon's memory."""


def test_a_daemon_loads_no_more_than_it_needs() -> None:
    code = f"import sys, {', '.join(DAEMON)}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ran.stdout.split()
    assert {name.partition(".")[0] for name in loaded} & NEVER == set()
    assert not {"tunnel.lab", "tunnel.bench", "tunnel.containers"} & set(loaded)


ASKS = """
import sys
from tunnel.host.rtnetlink import find_ifindex, rtnetlink
with rtnetlink() as netlink:
    before = set(sys.modules)
    assert find_ifindex(netlink, "lo") == 1
    assert netlink.addr("dump", index=0) == [] != netlink.link("dump")
    assert all(rule["family"] == 2 for rule in netlink.rule("dump", family=2))
    assert all(route["family"] == 2 for route in netlink.route("dump", family=2))
# Later the files may be out of reach: in another namespace, or with fewer rights.
assert not {name for name in set(sys.modules) - before if name.startswith("pyroute2")}
print(*sys.modules)
"""
WHOLE = """
import pyroute2
assert pyroute2.IPRoute.__module__ == "pyroute2.iproute.linux"
assert pyroute2.netlink.exceptions.NetlinkError is pyroute2.NetlinkError
"""


def test_of_pyroute2_only_messages_are_loaded_and_others_still_find_all_of_it() -> None:
    command = [sys.executable, "-c", ASKS + WHOLE]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "pyroute2.netlink.rtnl.ifinfmsg" in loaded
    assert not loaded & {"asyncio", "concurrent", "unittest", "pyroute2.iproute", "pyroute2.ndb"}


@pytest.mark.parametrize("module", ["tunnel.daemon.teardown", "tunnel.cli.life", "tunnel.cli.main"])
def test_commands_load_no_more_than_they_need(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert not loaded & {"prometheus_client", "pyroute2"}


SUCCEEDS = """
import sys
import tunnel.daemon.lock
def hold(*_, **__):
    print(*sys.modules)
    raise SystemExit(0)
tunnel.daemon.lock.hold = hold
sys.argv = ["tunnel", "up", "--successor", "--verbose", sys.argv[1]]
from tunnel.cli.entry import run
run()
"""


def test_a_successor_loads_nothing_of_the_command_line_that_it_does_not_need(
    tmp_path: Path,
) -> None:
    conf = tmp_path / "tnlnone.conf"
    conf.write_text(INTERFACE)
    conf.chmod(0o600)
    command = [sys.executable, "-c", SUCCEEDS, str(conf)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert "trio" in loaded
    assert not loaded & {"click", "typer", *NEVER}


FAILS = """
import sys
import tunnel.daemon.lock
from tunnel.errors import DaemonError
def hold(*_, **__):
    raise DaemonError("it fails")
tunnel.daemon.lock.hold = hold
sys.modules["tunnel.cli.common"] = None  # as where an upgrade has replaced it
sys.argv = ["tunnel", "up", "--successor", sys.argv[1]]
from tunnel.cli.entry import run
run()
"""


def test_a_successor_that_fails_loads_nothing_to_say_so(tmp_path: Path) -> None:
    conf = tmp_path / "tnlnone.conf"
    conf.write_text(INTERFACE)
    conf.chmod(0o600)
    command = [sys.executable, "-c", FAILS, str(conf)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (1, "")
