"""Being a tunnel's daemon, after `tunnel up`, or after a daemon that has ended.

Packets wait while a successor starts, most of all for its modules: this one loads no more of the
command line than that needs.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunnel.cli import background
from tunnel.errors import TunnelError, with_notes
from tunnel.linux.processes import show_command
from tunnel.log import output, writer

if TYPE_CHECKING:
    from tunnel.config import TunnelConfig


def succeed(arguments: Sequence[str]) -> int:
    """`tunnel up --successor [--verbose] [--log-json] CONF`, by which a holder starts the daemon
    after one that has ended; the exit status.
    """
    gc.disable()  # what is loaded leaves no garbage; a daemon enables it again
    from tunnel import config

    *options, conf = arguments
    try:
        loaded = config.load(config.find(conf))
    except config.ConfigErrors as errors:
        from tunnel.cli.common import EXIT_USAGE, complain

        complain(errors)
        return EXIT_USAGE
    verbose, log_json = "--verbose" in options, "--log-json" in options
    daemon = server(loaded, verbose=verbose, log_json=log_json, is_successor=True)
    return daemon(background.Readiness(-1), background.log_path(loaded.name))


def server(
    loaded: TunnelConfig,
    *,
    verbose: bool = False,
    log_json: bool = False,
    is_successor: bool = False,
) -> Callable[[background.Readiness, Path], int]:
    """A function that is the daemon of a conf in the background, with its log in a file."""
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
        set_log_level(config, verbose=verbose)
        for warning in config.warnings:
            # Of the root logger: the user has seen them on the terminal.
            logging.getLogger().warning("%s", warning)

    def run(readiness: background.Readiness, log_file: Path) -> int:
        show_command(_as_up())
        return serve(
            config,
            readiness,
            start_log=partial(log_to, log_file),
            log_file=log_file,
            options=options,
            is_successor=is_successor,
        )

    return run


def _as_up() -> list[str]:
    """The command line of a daemon as `up` has it, whether `up`, `restart` or a holder began it."""
    program = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    return [*program, "up", *(word for word in sys.argv[2:] if word != "--successor")]


def set_log_level(config: TunnelConfig, *, verbose: bool) -> None:
    """Log what LogLevel asks for; --verbose, being of this moment, has precedence."""
    if not verbose:
        logging.getLogger("tunnel").setLevel(config.interface.options.log_level.upper())


def serve(
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
                from tunnel.cli.common import complain

                complain(f"tunnel: {error}")
            elif has_log:
                # Readers of the log expect its own format there.
                logging.getLogger("tunnel").error("%s", error)
            if was_heard and has_log and is_new and log_file is not None:
                log_file.unlink(missing_ok=True)
            return 1  # and load nothing for it: an upgrade may have replaced the program meanwhile
    return 0
