"""What tests do with an end whose daemon runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any

from tests.support.pairs import remains as remains_now
from tunnel.lab import Host, LabTimeoutError
from tunnel.lab.peers import OurEnd
from tunnel.lab.process import HostProcess


def remains(host: Host) -> list[str]:
    """What a tunnel left behind, once its process has ended: that comes just after its last act."""
    with contextlib.suppress(LabTimeoutError):
        host.wait_for(lambda: not host.pids(), 3, "the processes to end")
    return remains_now(host)


def status(end: OurEnd) -> dict[str, Any]:
    """What `tunnel show` says of the end."""
    (found,) = json.loads(end.tunnel("show", end.node.interface, "--json"))
    assert isinstance(found, dict)
    return found


def kill(end: OurEnd) -> None:
    """End the daemon by force, and before that what would start another one."""
    found = status(end)
    os.kill(found["pid"], signal.SIGSTOP)
    for pid in (found["holder"], found["pid"]):
        if pid:
            os.kill(pid, signal.SIGKILL)


def follow(end: OurEnd) -> HostProcess:
    """`tunnel events --json` of the end, which from now on misses nothing."""
    command = [sys.executable, "-m", "tunnel", "events", end.node.interface, "--json"]
    events = end.node.host.popen(command)
    events.wait_for_output("following the events")
    return events


def followed(events: HostProcess) -> list[dict[str, Any]]:
    """The events that have come so far."""
    return [json.loads(line) for line in events.log().splitlines() if line.startswith("{")]


def rewrite(end: OurEnd, old: str, new: str) -> None:
    """Replace a piece of the end's conf that is there."""
    text = end.conf.read_text()
    assert old in text
    end.conf.write_text(text.replace(old, new))
