"""PreDown and PostDown, each once: what is still to be run is in the tunnel's record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

from tunnel.host.errors import HostError
from tunnel.host.hook_watch import HookLimits, HookStopper
from tunnel.host.hooks import run_hooks
from tunnel.host.record import DownHooks, keep_hooks


def run_down_hooks(
    kind: Literal["PreDown", "PostDown"],
    hooks: DownHooks,
    interface: str,
    log: Callable[[str], None],
    *,
    hide: Callable[[str], str] = str,
    output: int | None = None,
    stopper: HookStopper | None = None,
) -> list[HostError]:
    """Run the commands of one `kind`, and go on after one that fails; the failures. Blocks.

    Each is struck from the record before it is run, so that none is run again by a `down` after a
    crash. See `run_hooks` for the rest.
    """
    limits = None
    if output is None:
        limits = HookLimits(hooks.seconds, stopper or HookStopper())
    run = partial(run_hooks, log=log, hide=hide, output=output, limits=limits)
    commands = hooks.pre_down if kind == "PreDown" else hooks.post_down
    failures = []
    for number, command in enumerate(commands, 1):
        left = (
            replace(hooks, pre_down=commands[number:])
            if kind == "PreDown"
            else replace(hooks, pre_down=(), post_down=commands[number:])
        )
        try:
            keep_hooks(interface, left)
        except HostError as error:
            log(f"{kind} number {number} may be run again after a crash: {error}")
        try:
            run(kind, (command,), interface, first=number)
        except HostError as error:
            failures.append(error)
    return failures
