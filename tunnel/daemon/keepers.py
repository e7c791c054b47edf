"""Which keeper a daemon has: systemd, a holder, or none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from tunnel.config import TunnelConfig
from tunnel.daemon.keeper import HolderProcess, Keeper, SystemdStore, dismiss
from tunnel.daemon.sd_notify import Notifier
from tunnel.errors import DaemonError
from tunnel.linux.rights import held_by
from tunnel.systemd.units import own_command

log = logging.getLogger("tunnel")


def of_service(config: TunnelConfig, notifier: Notifier) -> Keeper:
    """For a daemon in the foreground, which a service manager starts again, or no one does.

    For a caller that has the lock of the name. Blocks.
    """
    dismiss(config.name)
    return SystemdStore(notifier) if notifier.socket_name else Keeper()


def of_background(
    config: TunnelConfig, log_file: Path, options: Sequence[str], *, found: bool = False
) -> Keeper:
    """For a daemon in the background: the holder that is there, or a new one.

    `options` are those of `up` for another daemon. To be called by a caller that has the lock of
    the name, while it has all of root's rights: what the holder starts has what it has. With
    `found`, raises DaemonError if there is none. Blocks.
    """
    keeper = HolderProcess.of(config.name, log_file)
    if keeper is None and found:
        raise DaemonError(f"{config.name} has been taken down meanwhile")
    if keeper is None and (not config.interface.options.seamless_restart or config.path is None):
        return Keeper()
    try:
        if keeper is None:
            keeper = HolderProcess.start(config.name, log_file)
        elif _has_less_than_we(keeper.pid):
            keeper = keeper.replaced()
    except OSError as error:
        if str(error.filename) == str(log_file):
            return Keeper()  # the log is opened next, and says what is wrong with it
        log.warning("a restart will interrupt %s: no holder can be started: %s", config.name, error)
        return Keeper()
    # Of this daemon, for one that was there: conf and program may be elsewhere than its own were.
    command = own_command()
    keeper.set_commands(
        (*command, "up", "--successor", *options, str(config.path)),
        (*command, "down", "--leftovers", config.name),
    )
    return keeper


def _has_less_than_we(pid: int) -> bool:
    """Whether a process lacks capabilities that this one has, as a holder does that was started by
    a daemon which had given up some.
    """
    ours, its = held_by(), held_by(pid)
    return ours is not None and its is not None and not ours.capabilities <= its.capabilities
