"""A real engine under traffic, killed at random points: no counter comes twice, and no packet.

TUNNEL_CRASHES says how many points there are for each datapath (`make nonces`: 500).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunnel import datapath

ROOT = Path(__file__).parents[3]
POINTS = int(os.environ.get("TUNNEL_CRASHES") or 50)


@pytest.mark.timeout(60 + 2 * POINTS)
@pytest.mark.parametrize("path", datapath.available())
def test_a_process_killed_at_any_point_uses_no_counter_twice(path: str) -> None:
    command = [sys.executable, "-m", "tests.support.crash_program", path, str(POINTS), "1"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found.pop("datagrams") > POINTS
    assert found.pop("packets") > POINTS
    assert found == {"points": POINTS, "repeated": 0, "delivered twice": 0, "not revived": 0}
