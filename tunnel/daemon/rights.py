"""What the daemon gives up of root's rights once it has begun.

It keeps what its own work takes. Hooks and resolvconf are other people's programs, which may need
any right: with them in the conf the daemon keeps all, for they are run by it.
"""

from __future__ import annotations

import logging
from typing import Final

from tunnel import host
from tunnel.config import TunnelConfig
from tunnel.linux import rights
from tunnel.linux.rights import Capability

log = logging.getLogger("tunnel")

KEPT: Final = frozenset(
    {
        # The interface, its routes and rules, marks; traces and captures; a port below 1024.
        Capability.NET_ADMIN,
        Capability.NET_RAW,
        Capability.NET_BIND_SERVICE,
        # Confs and logs that belong to other users, written again with their owner.
        Capability.CHOWN,
        Capability.DAC_OVERRIDE,
        Capability.DAC_READ_SEARCH,
        Capability.FOWNER,
        # An interface that was moved to another network namespace, and who lives in which.
        Capability.SYS_ADMIN,
        Capability.SYS_PTRACE,
    }
)


def give_up(config: TunnelConfig) -> bool:
    """Give up what the tunnel of `config` needs no more; whether that was done.

    To be called with the lock of the name, while there is one thread. Where the machine refuses it,
    as a service with a filter of its own does, the log says so, and all goes on.
    """
    try:
        rights.hide_memory()
        if runs_other_programs(config) or _is_left_with_hooks(config.name):
            return False
        rights.give_up_all_but(KEPT)
    except OSError as error:
        log.debug("the daemon keeps the rights it has: %s", error.strerror)
        return False
    return True


def runs_other_programs(config: TunnelConfig) -> bool:
    """Whether the conf has hooks or name servers."""
    return config.interface.has_hooks or bool(config.interface.dns_entries)


def _is_left_with_hooks(name: str) -> bool:
    """Whether a killed daemon of that name has left Down hooks, which this one will run."""
    try:
        record = host.load_record(name)
    except host.HostError:
        return False  # whoever reads it next says so
    return record is not None and record.hooks.are_left()
