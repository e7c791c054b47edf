"""What is not loaded by those who wait: commands that end at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

DAEMON = (
    "tunnel.cli.entry",
    "tunnel.cli.life",
    "tunnel.daemon.daemon",
    "tunnel.daemon.run",
    "tunnel.daemon.control",
    "tunnel.daemon.metrics",
)
"""Modules that a daemon has loaded when its tunnel comes up. pyroute2 follows with the first
address, and asyncio with it."""

NEVER = {
    *("asyncio", "concurrent", "email", "http", "multiprocessing", "unittest", "wsgiref", "xml"),
    *("dns", "h11", "jeepney", "prometheus_client", "pydantic", "pyroute2", "rich"),
}
"""What none of them needs: each takes its part of the time of `up`, and of the daemon's memory."""


def test_a_daemon_loads_no_more_than_it_needs() -> None:
    code = f"import sys, {', '.join(DAEMON)}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ran.stdout.split()
    assert {name.partition(".")[0] for name in loaded} & NEVER == set()
    assert not {"tunnel.lab", "tunnel.bench", "tunnel.containers"} & set(loaded)


@pytest.mark.parametrize("module", ["tunnel.daemon.teardown", "tunnel.cli.life", "tunnel.cli.main"])
def test_commands_load_no_more_than_they_need(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert not loaded & {"prometheus_client", "pyroute2"}
