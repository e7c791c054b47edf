"""What is not loaded by those who wait: commands that end at once."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["tunnel.daemon.teardown", "tunnel.cli.life", "tunnel.cli.main"])
def test_commands_load_no_more_than_they_need(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert not loaded & {"prometheus_client", "pyroute2"}
