"""What ps shows of a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

SHOWN = """
import sys
from pathlib import Path
from tunnel.linux.processes import show_command

Path("/proc/self/comm").write_bytes(bytes.fromhex(sys.argv[1]))
show_command(sys.argv[2].split())
print(Path("/proc/self/cmdline").read_text().rstrip("\\0").split("\\0"))
"""


@pytest.mark.parametrize(
    "comm",
    ["tunnel", "t) S 1 (", "tunnel-zurich-ü"],  # of the last, Linux keeps 15 bytes
)
def test_a_process_shows_another_command_whatever_its_name(comm: str) -> None:
    command = [sys.executable, "-c", SHOWN, comm.encode().hex(), "tunnel up office"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown == "['tunnel', 'up', 'office']\n"
