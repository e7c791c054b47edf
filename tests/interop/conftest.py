"""What the tests against `wg` and wg-quick share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import tunnel_wg
from tests.support.hosts import TwoHosts
from tunnel.lab import Host


@pytest.fixture
def script(tmp_path: Path) -> str:
    """The path of `tunnel-wg`."""
    return tunnel_wg.write_script(tmp_path)


@pytest.fixture
def host(two_hosts: TwoHosts, script: str) -> Host:
    """A host with a bare wg0 of ours."""
    tunnel_wg.start(two_hosts.a, script)
    return two_hosts.a
