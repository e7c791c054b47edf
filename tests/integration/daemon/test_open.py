"""`tunnel.open` inside a trio program: all that it offers, and how it ends."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.support.daemons import remains
from tests.support.hosts import TwoHosts
from tunnel.lab.peers import Node, OurEnd, render_conf

pytestmark = pytest.mark.root


@pytest.mark.foreign("wg")
def test_a_program_drives_its_tunnel_to_the_end(two_hosts: TwoHosts) -> None:
    a = Node(two_hosts.a, ("10.77.0.1/24",), "192.0.2.1")
    b = Node(two_hosts.b, ("10.77.0.2/24",), "192.0.2.2")
    end = OurEnd(a, render_conf(a, [b]))
    conf = end.conf.read_text()
    program = [sys.executable, "-m", "tests.support.open_program"]
    run = two_hosts.a.run([*program, str(end.conf), b.public_key], check=False)
    steps: dict[str, Any] = {}
    for line in run.stdout.splitlines():
        steps |= json.loads(line)
    assert steps.pop("body") == "in the body"
    assert steps.pop("name") == "wg0"
    changes = steps.pop("diff")
    assert changes
    assert all("mtu" in change for change in changes)
    assert steps.pop("reload") == changes
    assert len(steps.pop("event")) == len(changes)
    assert steps.pop("mtu") == [1380, 1380]
    # Its own file says otherwise.
    assert len(steps.pop("again")) == len(changes)
    assert steps.pop("unchanged") is False
    assert steps.pop("saved") is True
    assert b.public_key in conf
    assert b.public_key not in end.conf.read_text()
    assert steps.pop("closed") is True
    assert steps == {"error": "state"}, run.stderr
    assert "Traceback" not in run.stderr
    assert remains(two_hosts.a) == []
