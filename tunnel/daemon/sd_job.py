"""What systemd is about to do with the service that this process is of: systemctl(1) says it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ANSWER_TIME = 2.0
"""Seconds for systemctl to answer; the service has longer to stop."""

DEATHS = frozenset({"signal", "core-dump", "watchdog", "oom-kill"})
"""Results of a service that was killed, or has crashed ($SERVICE_RESULT in systemd.exec(5))."""

_UNIT = re.compile(r"/([^/\n]+\.service)$", re.MULTILINE)


def own_unit() -> str:
    """The name of the service that this process is of, by its cgroup; empty if of none."""
    try:
        found = _UNIT.search(Path("/proc/self/cgroup").read_text())
    except OSError:
        return ""
    return found[1] if found else ""


def is_restarting() -> bool:
    """Whether the service stops to start again: `systemctl restart`. Blocks."""
    return _job(own_unit()) == "restart"


def is_back_soon(result: str) -> bool:
    """Whether systemd is about to start the service again that has ended with that result. Blocks.

    For a command of ExecStopPost=.
    """
    unit = own_unit()
    job = _job(unit)
    if job or result not in DEATHS:
        return job == "restart"
    return _ask("show", "--value", "--property=Restart", unit) not in ("", "no", "on-success")


def _job(unit: str) -> str:
    """The type of the job that the unit has; empty for none."""
    for line in _ask("list-jobs", "--plain", "--no-legend", unit).splitlines():
        words = line.split()
        if len(words) >= 3 and words[1] == unit:
            return words[2]
    return ""


def _ask(*arguments: str) -> str:
    """What systemctl prints; empty if there is none, or it does not answer."""
    if not arguments[-1]:
        return ""
    command = ["systemctl", "--no-pager", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_TIME, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
