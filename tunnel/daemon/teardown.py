"""Taking a tunnel down from outside its daemon, also when that was killed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from tunnel import host
from tunnel.control import json_client, run_folder, unix_socket
from tunnel.control.client import TunnelClient
from tunnel.control.json_protocol import ControlError
from tunnel.daemon import redaction
from tunnel.daemon.keeper import dismiss
from tunnel.daemon.lock import hold
from tunnel.device import uapi
from tunnel.errors import AlreadyRunningError, DaemonError, with_notes

_WG_QUICK = "tunnel-wg-quick"

ANSWER_TIME = 5.0
"""Seconds for a daemon that holds its lock to answer on its control socket."""

END_TIME = 10.0
"""Seconds for a daemon that has undone everything to end."""


@dataclass(frozen=True, slots=True)
class Teardown:
    """Whether there was anything to take down, what went wrong on the way, and what else there is
    to know of it, in words.
    """

    found: bool
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def clean_up(name: str, *, fail_closed: bool = False) -> Teardown:
    """Remove what a killed daemon of interface `name` left behind; with `fail_closed` all but a
    kill switch.

    Raises AlreadyRunningError if it is still running, DaemonError and HostError. Blocks.
    """
    with hold(name):
        # First: it would start another daemon.
        had_holder = dismiss(name)
        left = undo_leftovers(name, fail_closed=fail_closed)
        found = left.found or had_holder
        for path in (run_folder.socket_path(name), run_folder.metrics_path(name)):
            if path.exists():
                path.unlink(missing_ok=True)
                found = True
        if found:
            # A socket that another program listens on stays.
            with contextlib.suppress(OSError):
                unix_socket.remove_stale_socket(uapi.socket_path(name))
        return Teardown(found, left.failures, left.notes)


def undo_leftovers(
    name: str, log: Callable[[str], None] = lambda line: None, *, fail_closed: bool = False
) -> Teardown:
    """Undo what a killed daemon did to the machine, for a caller that holds the lock.

    With `fail_closed`, a kill switch stays. Its Down hooks are run, once; `log` gets what they
    print. Raises DaemonError and HostError.
    """
    record = host.load_record(name)
    refuse_others(record)
    hooks = host.DownHooks()
    if record is not None and record.is_here():
        hooks = record.hooks
    hide = redaction.hook_hider(None)
    left: tuple[str, ...] = ()
    if not host.wait_for_hook(name):
        left = (f"a hook of {name} did not end and still runs: what it does now will stay",)
    failures = host.run_down_hooks("PreDown", hooks, name, log, hide=hide)
    found = host.remove(name, fail_closed=fail_closed)
    failures += host.run_down_hooks("PostDown", hooks, name, log, hide=hide)
    unsure = [error for error in failures if isinstance(error, host.UnsureHookError)]
    sure = [error for error in failures if error not in unsure]
    return Teardown(found, (*left, *map(with_notes, sure)), tuple(map(with_notes, unsure)))


def refuse_others(record: host.Record | None) -> None:
    """Raise DaemonError if another command set the tunnel up, and it stands. Blocks."""
    if record is not None and record.owner and host.is_standing(record):
        name, owner = record.interface, record.owner
        # What sets up networks of containers has no command to take one down.
        program = owner.partition(" ")[0]
        remedy = f"take it down by {program} down {name}"
        if program != _WG_QUICK:
            remedy = "it goes with its network of containers"
        raise DaemonError(f"{name} was set up by {owner}; {remedy}")


def refuse_taken(name: str) -> None:
    """Raise DaemonError if an interface has that name. Blocks."""
    taken = who_has_name(name)
    if taken is not None:
        what, remedy = taken
        raise DaemonError(f"an interface named {name} already exists, {what}: {remedy}")


def who_has_name(name: str) -> tuple[str, str] | None:
    """Whose the interface of that name is, and what helps; None if there is none.

    No remedy deletes an interface that may be in use. Blocks.
    """
    kind = host.describe_link(name)
    if kind is None:
        return None
    other_name = "or give this conf another name, as the interface is named after it"
    if kind == "wireguard" or (kind == "tun" and uapi.socket_path(name).exists()):
        what = "a WireGuard interface of another program"
        remedy = f"take it down with that (wg-quick down {name} if that set it up), {other_name}"
    elif kind == "tun":
        what = "a TUN or TAP device of another program"
        remedy = f"end that, {other_name}"
    else:
        what = f"of another kind ({kind})" if kind else "a network card, or another device"
        remedy = "give this conf another name, as the interface is named after it"
    return what, remedy


def hand_over(name: str) -> bool:
    """Have the daemon of `name` end and leave everything to another one; whether it does, which
    then may wait for its lock. Raises ControlError. Blocks.
    """
    try:
        with TunnelClient(name) as client:
            return client.hand_over()
    except json_client.NotRunningError:
        return False
    except ControlError as error:
        # The daemon of a version before this method.
        if error.code == "unknown_method":
            return False
        raise


def take_down(name: str, *, fail_closed: bool = False) -> Teardown:
    """Take down the tunnel `name` and wait until everything is undone; with `fail_closed` all but a
    kill switch.

    One that is starting goes down too; what a killed one left behind is removed. Raises
    ControlError, AlreadyRunningError, DaemonError and HostError. Blocks.
    """
    deadline = time.monotonic() + ANSWER_TIME
    while True:
        try:
            with TunnelClient(name) as client:
                pid = client.peer_pid()
                ended = client.down(stays_shut=fail_closed)
        except json_client.NotRunningError:
            try:
                return clean_up(name, fail_closed=fail_closed)
            except AlreadyRunningError:
                # Between its lock and its socket, at the beginning or at the end.
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.05)
        else:
            left = _clean_up_after(pid, name, fail_closed=fail_closed)
            if left is not None:
                return Teardown(
                    True, (*ended.failures, *left.failures), (*ended.notes, *left.notes)
                )
            # It was handing over to another one, which goes down too.
            deadline = time.monotonic() + ANSWER_TIME


def _clean_up_after(pid: int, name: str, *, fail_closed: bool) -> Teardown | None:
    """`clean_up` as soon as the daemon `pid` has ended; None if another one is there by then."""
    deadline = time.monotonic() + END_TIME
    while True:
        try:
            return clean_up(name, fail_closed=fail_closed)
        except AlreadyRunningError:
            # It holds its lock until its very end.
            if time.monotonic() >= deadline:
                raise
            with contextlib.suppress(ControlError), TunnelClient(name) as client:
                if client.peer_pid() != pid:
                    return None
            time.sleep(0.05)
