"""`tunnel up` and `down`: the life of a tunnel.

They load no more than they need, since their callers wait for it: the daemon's modules are
imported when a command wants them, before `up` forks, so that they are loaded once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from tunnel.cli import background
from tunnel.cli.common import (
    EXIT_FAILED,
    Name,
    complain,
    conf_of_running,
    fail,
    interface_name,
    load_config,
)
from tunnel.cli.serving import serve, server, set_log_level
from tunnel.errors import TunnelError
from tunnel.log import output

if TYPE_CHECKING:
    from tunnel.config import TunnelConfig
    from tunnel.daemon.teardown import Teardown

app = typer.Typer()


@app.command()
def up(
    conf: Name,
    foreground: Annotated[
        bool, typer.Option("--foreground", "-f", help="Stay, and log to standard error.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log one JSON object a line, for programs.")
    ] = False,
) -> None:
    """Set up the tunnel of a conf: interface, addresses, routes, peers.

    Returns as soon as packets can flow, and leaves a daemon behind that logs to
    /run/tunnel/NAME.log. On a terminal it says in one line what is up, and whether a peer answers
    within a second. Undo it with `tunnel down`.

    Examples:

        tunnel up office                  # /etc/tunnel/office.conf
        tunnel up ./office.conf --foreground
    """
    loaded = load_config(conf)
    if foreground:
        output.log_to_stream(verbose=verbose, as_json=log_json)
        set_log_level(loaded, verbose=verbose)
        status = serve(loaded, background.Readiness(-1), as_json=log_json)
        if status:
            raise typer.Exit(status)
        return
    _start_in_background(loaded, server(loaded, verbose=verbose, log_json=log_json))


def _start_in_background(
    config: TunnelConfig,
    daemon: Callable[[background.Readiness, Path], int],
    *,
    is_stoppable: bool = True,
) -> None:
    """Leave a daemon behind, once packets can flow; or fail with its reason."""
    try:
        background.start(
            config.name,
            daemon,
            note=lambda text: complain(f"warning: {text}", logging.WARNING),
            is_stoppable=is_stoppable,
        )
    except background.StartError as error:
        fail(error)
    if sys.stdout is not None and sys.stdout.isatty():
        # Scripts need no line, and do not wait for an answer.
        from tunnel.cli.arrival import announce

        announce(config.name)


@app.command()
def down(
    conf: Name,
    leftovers: Annotated[
        bool,
        typer.Option(
            "--leftovers",
            help="Only clean up after a killed daemon; succeed if there is nothing to do.",
        ),
    ] = False,
) -> None:
    """Take a tunnel down and remove all that `tunnel up` set up, and only that.

    Works too when its daemon was killed: what it left behind is found and removed.

    Example:

        tunnel down office
    """
    from tunnel.daemon import sd_job, teardown

    name = interface_name(conf)
    try:
        if leftovers:
            result = os.environ.get("SERVICE_RESULT", "success")
            if sd_job.is_back_soon(result):
                return  # the next daemon goes on where this one has ended, or cleans up
            # A service that failed: systemd is about to start it again, or has given up.
            done = teardown.clean_up(name, fail_closed=result != "success")
        else:
            done = teardown.take_down(name)
    except TunnelError as error:
        fail(error)
    if leftovers and done.found:
        typer.echo(f"removed what was left of {name}")
    elif not leftovers and not done.found:
        fail(f"no tunnel named {name} is up, and nothing is left of one")
    _report(done)


def _report(done: Teardown) -> None:
    """Print what is to be known of a tunnel that is down; leave if something went wrong."""
    for note in done.notes:
        complain(f"warning: {note}", logging.WARNING)
    for failure in done.failures:
        complain(f"tunnel: {failure}")
    if done.failures:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def restart(conf: Name) -> None:
    """Replace the daemon of a tunnel, and read its conf again.

    The interface, its addresses, routes and rules, the UDP port and the sessions stay; hooks are
    not run. Where that is not possible (PreUp, PostUp, Mode, Bridge or NetNS was changed, a hook
    has changed the interface, it is attached, or SeamlessRestart = off), the tunnel is taken down
    and up again, and a kill switch stays in place meanwhile. A mistake in the conf leaves
    everything as it was.

    Example:

        tunnel restart office
    """
    from tunnel.daemon import teardown

    name = interface_name(conf)
    loaded = load_config((conf_of_running(name) if conf == name else None) or conf)
    options = loaded.interface.options
    unit = _unit_of(name)
    if unit:
        kills = options.kill_switch and not options.seamless_restart
        command = f"systemctl {'kill --signal=KILL' if kills else 'restart'} {unit}"
        why = "; systemd starts it again, and the kill switch stays" if kills else ""
        fail(f"{name} is run by systemd: {command}{why}")
    # Packets wait from the end of the one daemon to the other: what takes its time comes before.
    _load_daemon()
    with _once_uninterrupted(name):
        try:
            has_handed_over = teardown.hand_over(name)
            if not has_handed_over:
                _report(teardown.take_down(name, fail_closed=options.kill_switch))
        except TunnelError as error:
            fail(error)
        daemon = server(loaded, is_successor=has_handed_over)
        _start_in_background(loaded, daemon, is_stoppable=False)


@contextlib.contextmanager
def _once_uninterrupted(name: str) -> Iterator[None]:
    """Let the first ^C end nothing: half a restart is a tunnel that is down."""

    def go_on(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        complain(
            f"the restart of {name} goes on; ^C again leaves it in the background; tunnel down "
            f"{name} ends it",
            logging.WARNING,
        )

    before = signal.signal(signal.SIGINT, go_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _load_daemon() -> None:
    """Load all that a daemon needs."""
    import tunnel.daemon.run  # noqa: F401


def _unit_of(name: str) -> str:
    """The systemd unit that the daemon of the tunnel is; empty if it is none, or does not run."""
    from tunnel.control.client import TunnelClient
    from tunnel.control.json_protocol import ControlError

    try:
        with TunnelClient(name) as client:
            text = Path(f"/proc/{client.peer_pid()}/cgroup").read_text()
    except (ControlError, OSError):
        return ""
    unit = f"tunnel@{name}.service"
    return unit if f"/{unit}" in text else ""
