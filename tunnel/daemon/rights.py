"""What the daemon gives up of root's rights once it has begun, and what for it keeps the rest.

It keeps CAP_NET_ADMIN, and of the others what its conf takes. System calls that no part of it makes
are refused from then on. What lets it follow the interface into other network namespaces is in
reserve: no thread has it but while it looks up or enters one. Hooks and resolvconf are other
people's programs, which may need any right: with them in the conf the daemon keeps all, for they
are run by it.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tunnel import host
from tunnel.config import TunnelConfig
from tunnel.daemon import attach_target
from tunnel.errors import DaemonError
from tunnel.linux import rights, seccomp
from tunnel.linux.rights import Capability

log = logging.getLogger("tunnel")

_RESERVE: Final = frozenset(
    {
        # Into a namespace, and to see who is in which.
        Capability.SYS_ADMIN,
        Capability.SYS_PTRACE,
        # The socket of another user's container engine.
        Capability.DAC_OVERRIDE,
    }
)
_FILES: Final = frozenset(
    {
        Capability.CHOWN,
        Capability.DAC_OVERRIDE,
        Capability.DAC_READ_SEARCH,
        Capability.FOWNER,
    }
)
_FIRST_FREE_PORT: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@dataclass(frozen=True, slots=True)
class Needs:
    """The capabilities that a conf takes, each with what for, and those in reserve."""

    always: dict[Capability, str]
    reserve: frozenset[Capability]


def give_up(config: TunnelConfig) -> frozenset[Capability] | None:
    """Give up what the tunnel of `config` does not need; what was kept, None for everything.

    To be called with the lock of the name, while there is one thread. Where the machine refuses it,
    as a service with a filter of its own does, the log says so, and all goes on.
    """
    _try(rights.hide_memory, rights.keep_memory_from_swap)
    if runs_other_programs(config) or _is_left_with_hooks(config.name):
        return None
    needs = needs_of(config)
    try:
        rights.give_up_all_but(needs.always, needs.reserve)
    except OSError as error:
        log.debug("the daemon keeps the rights it has: %s", error.strerror)
        return None
    _try(rights.refuse_new_code, seccomp.install)
    return frozenset(needs.always)


def _try(*steps: Callable[[], object]) -> None:
    for step in steps:
        try:
            step()
        except OSError as error:
            log.debug("%s: not permitted here (%s)", step.__name__, error.strerror)


def needs_of(config: TunnelConfig) -> Needs:
    """What the tunnel of `config` takes, as the machine is now."""
    options = config.interface.options
    always = {Capability.NET_ADMIN: "the interface, its routes, rules and firewall"}
    ports = [config.interface.listen_port]
    if not isinstance(options.metrics, str):
        ports.append(options.metrics.port)
    low = [port for port in ports if port and port < _first_free_port()]
    if low:
        always[Capability.NET_BIND_SERVICE] = f"port {low[0]}"
    if options.forwards or options.bridge:
        always[Capability.NET_RAW] = "iptables, for docker's firewall"
    if config.path is not None and not _is_ours(config.path.absolute()):
        always |= dict.fromkeys(_FILES, "a conf of another user")
    moves = options.attach or bool(options.netns) or _is_elsewhere(config.name)
    return Needs(always, _RESERVE if moves else frozenset())


def runs_other_programs(config: TunnelConfig) -> bool:
    """Whether the conf has hooks or name servers."""
    return bool(config.interface.hooks or config.interface.dns_entries)


def notes_on(config: TunnelConfig, kept: frozenset[Capability] | None) -> tuple[str, ...]:
    """What a daemon that has only `kept` lacks for `config`, and how it gets that."""
    if kept is None:
        return ()
    remedy = f"to have all: tunnel restart {config.name}"
    if runs_other_programs(config):
        return (
            "this daemon came up without hooks and name servers, and gave up rights and system "
            f"calls that their programs may need; {remedy}",
        )
    lacking = {
        why: f"CAP_{number.name}"
        for number, why in needs_of(config).always.items()
        if number not in kept
    }
    return tuple(
        f"this daemon gave up {name} when it came up, and may need it for {why}; {remedy}"
        for why, name in lacking.items()
    )


def _is_left_with_hooks(name: str) -> bool:
    """Whether a killed daemon of that name has left Down hooks, which this one will run."""
    record = _record(name)
    return record is not None and record.hooks.are_left()


def _is_elsewhere(name: str) -> bool:
    """Whether the tunnel is attached, or a killed daemon has left things in another namespace."""
    record = _record(name)
    try:
        is_attached = attach_target.load(name) is not None
    except DaemonError:
        is_attached = False  # reported by what reads it next
    return is_attached or (record is not None and (bool(record.place) or not record.is_here()))


def _record(name: str) -> host.Record | None:
    try:
        return host.load_record(name)
    except host.HostError:
        return None  # reported by what reads it next


def _first_free_port() -> int:
    try:
        return int(_FIRST_FREE_PORT.read_text())
    except (OSError, ValueError):
        return 1024


def _is_ours(conf: Path) -> bool:
    """Whether conf and folders can be read and replaced by our user without a capability."""
    uid = os.geteuid()
    try:
        file, *folders = (os.stat(path) for path in (conf, *conf.parents))
    except OSError:
        return False
    return (
        file.st_uid == uid
        and bool(file.st_mode & stat.S_IRUSR)
        and all(_may_enter(folder, uid) for folder in folders)
        and folders[0].st_uid == uid
    )


def _may_enter(folder: os.stat_result, uid: int) -> bool:
    if folder.st_uid == uid:
        return bool(folder.st_mode & stat.S_IXUSR)
    # Of a group we know too little; what all may do is enough for the folders there are.
    return bool(folder.st_mode & stat.S_IXOTH)
