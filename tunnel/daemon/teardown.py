"""Taking a tunnel down from outside its daemon, also when that was killed."""

from __future__ import annotations

import contextlib
import time

from tunnel import host
from tunnel.control import json_client, run_folder, unix_socket
from tunnel.control.client import TunnelClient
from tunnel.daemon.lock import hold
from tunnel.device import uapi
from tunnel.errors import AlreadyRunningError, DaemonError

ANSWER_TIME = 5.0
"""Seconds for a daemon that holds its lock to answer on its control socket."""

DOWN_TIME = 120.0
"""Seconds for a daemon to go down, hooks included."""


def clean_up(name: str, *, patience: float = 0.0) -> bool:
    """Remove what a killed daemon of interface `name` left behind; whether there was anything.

    Waits `patience` seconds for one that is going down. Raises AlreadyRunningError if it is still
    running then, DaemonError and HostError. Blocks.
    """
    with hold(name, patience=patience):
        _refuse_others(name)
        found = host.remove(name)
        for path in (run_folder.socket_path(name), run_folder.metrics_path(name)):
            if path.exists():
                path.unlink(missing_ok=True)
                found = True
        if found:
            # A socket that another program listens on stays.
            with contextlib.suppress(OSError):
                unix_socket.remove_stale_socket(uapi.socket_path(name))
        return found


def _refuse_others(name: str) -> None:
    record = host.load_record(name)
    if record is not None and record.owner and host.is_standing(record):
        raise DaemonError(
            f"{name} was set up by {record.owner}; take it down by {record.owner} down {name}"
        )


def take_down(name: str) -> bool:
    """Take down the tunnel `name` and wait until everything is undone; False if there was nothing.

    One that is starting goes down too; what a killed one left behind is removed. Raises
    ControlError, AlreadyRunningError, DaemonError and HostError. Blocks.
    """
    deadline = time.monotonic() + ANSWER_TIME
    while True:
        try:
            with TunnelClient(name) as client:
                client.down()
        except json_client.NotRunningError:
            try:
                return clean_up(name)
            except AlreadyRunningError:
                # Between its lock and its socket, at the beginning or at the end.
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.05)
        else:
            # It holds its lock until the end, and hooks may take their time.
            clean_up(name, patience=DOWN_TIME)
            return True
