"""Looking where the daemon is: links, routes and rules are those of its network namespace."""

from __future__ import annotations

import json
import os
import subprocess

from tunnel.control.client import TunnelClient
from tunnel.control.json_socket import ControlError
from tunnel.doctor import machine
from tunnel.doctor.facts import Options
from tunnel.doctor.findings import Report
from tunnel.linux import netns
from tunnel.systemd.units import own_command


def examine_elsewhere(name: str, conf: str | None, options: Options) -> Report | None:
    """The report of a doctor in the daemon's network namespace; None if that is ours.

    None as well if it cannot be entered: then what can be seen from here is all there is.
    """
    pid = _daemon_elsewhere(name)
    if pid is None:
        return None
    arguments = [conf or name, "--json", "--wait", str(options.wait)]
    arguments += ["--forward"] if options.forward else []
    arguments += ["--address", options.address] if options.address else []
    try:
        descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # A process of its own: threads that have run once stay where they were begun.
        done = subprocess.run(
            [*own_command(), "doctor", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            preexec_fn=lambda: netns.enter(descriptor),
        )
        (report,) = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    finally:
        os.close(descriptor)
    return Report.from_json(report)


def _daemon_elsewhere(name: str) -> int | None:
    """The process of the daemon, if it is in another network namespace than we."""
    try:
        with TunnelClient(name) as client:
            pid = client.peer_pid()
    except (ControlError, OSError):
        return None
    return None if machine.in_our_namespace(pid) else pid
