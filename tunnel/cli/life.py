"""`tunnel up` and `down`: the life of a tunnel.

They load no more than they need, since their callers wait for it: the daemon's modules are
imported when a command wants them, before `up` forks, so that they are loaded once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
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
from tunnel.errors import TunnelError, with_notes
from tunnel.linux.processes import show_command
from tunnel.log import output, writer

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
    successor: Annotated[
        bool,
        typer.Option("--successor", help="Be the daemon after one that has ended.", hidden=True),
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
        _set_log_level(loaded, verbose=verbose)
        status = _serve(loaded, background.Readiness(-1), as_json=log_json)
        if status:
            raise typer.Exit(status)
        return
    serve = _server(loaded, verbose=verbose, log_json=log_json, is_successor=successor)
    if successor:
        raise typer.Exit(serve(background.Readiness(-1), background.log_path(loaded.name)))
    _start_in_background(loaded, serve)


def _server(
    loaded: TunnelConfig,
    *,
    verbose: bool = False,
    log_json: bool = False,
    is_successor: bool = False,
) -> Callable[[background.Readiness, Path], int]:
    """What is the daemon of a conf in the background, with its log in a file."""
    assert loaded.path is not None
    # The daemon leaves the folder that the path may be relative to.
    config = dataclasses.replace(loaded, path=loaded.path.absolute())
    options = [f"--{name}" for name, on in (("verbose", verbose), ("log-json", log_json)) if on]

    def log_to(path: Path) -> None:
        try:
            output.log_to_file(path, verbose=verbose, as_json=log_json, with_stderr=True)
        except OSError as error:
            from tunnel.daemon.lock import unwritable

            raise unwritable(path, error) from error
        _set_log_level(config, verbose=verbose)
        for warning in config.warnings:
            # Of the root logger: the user has seen them on the terminal.
            logging.getLogger().warning("%s", warning)

    def serve(readiness: background.Readiness, log_file: Path) -> int:
        show_command(_as_up())
        return _serve(
            config,
            readiness,
            start_log=partial(log_to, log_file),
            log_file=log_file,
            options=options,
            is_successor=is_successor,
        )

    return serve


def _as_up() -> list[str]:
    """The command line of a daemon as `up` has it, whether `up`, `restart` or a holder began it."""
    program = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    return [*program, "up", *(word for word in sys.argv[2:] if word != "--successor")]


def _start_in_background(
    config: TunnelConfig,
    serve: Callable[[background.Readiness, Path], int],
    *,
    is_stoppable: bool = True,
) -> None:
    """Leave a daemon behind, once packets can flow; or fail with its reason."""
    try:
        background.start(
            config.name,
            serve,
            note=lambda text: complain(f"warning: {text}", logging.WARNING),
            is_stoppable=is_stoppable,
        )
    except background.StartError as error:
        fail(error)
    if sys.stdout is not None and sys.stdout.isatty():
        # Scripts need no line, and do not wait for an answer.
        from tunnel.cli.arrival import announce

        announce(config.name)


def _set_log_level(config: TunnelConfig, *, verbose: bool) -> None:
    """Log what LogLevel asks for; --verbose, being of this moment, has precedence."""
    if not verbose:
        logging.getLogger("tunnel").setLevel(config.interface.options.log_level.upper())


def _serve(
    config: TunnelConfig,
    readiness: background.Readiness,
    *,
    as_json: bool = False,
    start_log: Callable[[], None] = lambda: None,
    log_file: Path | None = None,
    options: Sequence[str] = (),
    is_successor: bool = False,
) -> int:
    """Be the daemon until the tunnel is down; the exit status.

    A failure goes to the parent, by `readiness`, and to the terminal, or else to the log, `as_json`
    or in `log_file`. `start_log` is called once the name is ours: until then the log may be that of
    another daemon. A log of nothing but a failure to start, which the parent reports, is removed.
    `options` are those of `up` for a daemon that comes after this one. With `is_successor` it waits
    for the end of the one before, and does nothing where a `tunnel down` has come first.
    """
    import trio

    from tunnel.daemon import keepers
    from tunnel.daemon.daemon import Daemon
    from tunnel.daemon.descriptors import check_descriptors
    from tunnel.daemon.gc_tuning import avoid_pauses
    from tunnel.daemon.lock import hold
    from tunnel.daemon.rights import give_up
    from tunnel.daemon.run import run
    from tunnel.daemon.sd_notify import Notifier
    from tunnel.daemon.teardown import END_TIME
    from tunnel.linux.memory import release_unused

    def ready() -> None:
        readiness.ready()
        release_unused()

    notifier = Notifier.from_environment()

    avoid_pauses()
    is_new = log_file is not None and not os.path.lexists(log_file)
    has_log = log_file is None
    with readiness:
        try:
            check_descriptors()  # the event loop takes some before `run` can look
            with hold(config.name, patience=END_TIME if is_successor else 0.0):
                # What writes the log is a thread that would keep its rights.
                writer.stop_all()
                if log_file is None:
                    keeper = keepers.of_service(config, notifier)
                else:
                    keeper = keepers.of_background(config, log_file, options, found=is_successor)
                kept = give_up(config)
                start_log()
                has_log = True
                daemon = Daemon(config, notifier=notifier, kept_rights=kept, keeper=keeper)
                try:
                    trio.run(partial(run, daemon, ready=ready, is_held=True, handle_signals=True))
                finally:
                    keeper.close()
                    # Before whatever else is said of the end.
                    output.flush()
        except TunnelError as error:
            notifier.status(str(error))
            # On a terminal nothing else shows what a hook printed; not every user may see that.
            was_heard = readiness.failed(with_notes(error))
            if log_file is None and not as_json:
                complain(f"tunnel: {error}")
            elif has_log:
                # Readers of the log expect its own format there.
                logging.getLogger("tunnel").error("%s", error)
            if was_heard and has_log and is_new and log_file is not None:
                log_file.unlink(missing_ok=True)
            return EXIT_FAILED
    return 0


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
        serve = _server(loaded, is_successor=has_handed_over)
        _start_in_background(loaded, serve, is_stoppable=False)


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
