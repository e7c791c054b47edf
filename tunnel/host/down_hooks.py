"""PreDown and PostDown: what is still to be run is in the tunnel's record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

from tunnel.host.errors import HostError, UnsureHookError
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

    Each is on record until it has ended. One that was begun before a crash is run once more, and no
    third time. A failure of one that may have had nothing to undo is an UnsureHookError. See
    `run_hooks` for the rest.
    """
    limits = None
    if output is None:
        limits = HookLimits(hooks.seconds, stopper or HookStopper())
    run = partial(run_hooks, log=log, hide=hide, output=output, limits=limits)
    commands = hooks.pre_down if kind == "PreDown" else hooks.post_down
    was_begun = hooks.begun and (kind == "PreDown" or not hooks.pre_down)
    failures = []

    def keep(left: tuple[str, ...], *, begun: bool) -> None:
        kept = replace(hooks, begun=begun)
        if kind == "PreDown":
            kept = replace(kept, pre_down=left)
        else:
            kept = replace(kept, pre_down=(), post_down=left)
        try:
            keep_hooks(interface, kept)
        except HostError as error:
            log(f"{kind} number {number} may be run again after a crash: {error}")

    for number, command in enumerate(commands, 1):
        again = was_begun and number == 1
        keep(commands[number if again else number - 1 :], begun=not again)
        try:
            run(kind, (command,), interface, first=number)
        except HostError as error:
            failures.append(_unsure(error) if again or hooks.unsure else error)
        keep(commands[number:], begun=False)
    return failures


def _unsure(error: HostError) -> UnsureHookError:
    reason = f"{error.reason}; it may have had nothing to undo, as the daemon was killed before"
    made = UnsureHookError(error.step, error.subject, reason)
    for note in getattr(error, "__notes__", ()):
        made.add_note(note)
    return made
