"""Notice when another program takes away what was set up around the tunnel.

A full tunnel without its rules sends in clear, and nothing else would say so. The kernel reports
each change of routes, rules, addresses and nftables; then what should be there is compared with
what is. What is missing is reported, and restored if the conf says `Repair = on`.
"""

from __future__ import annotations

import contextlib
import logging
from functools import partial

import trio

from tunnel import host
from tunnel.control.messages.sentences import sentence
from tunnel.daemon.daemon import Daemon
from tunnel.errors import unwrapped
from tunnel.host.route_watch import RouteWatch
from tunnel.io.errors import TunError

log = logging.getLogger("tunnel")

SETTLE = 0.3
"""Seconds from the first change to the look: changes come in groups, ours too."""

LOOK_AGAIN = 5.0
"""Seconds between two looks into another network namespace."""

SHARE = 100
"""A look takes at most one part in so many of the time while changes go on."""

PATIENCE = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds between two repairs, the more of them there were: another program means it."""

MAX_ITEMS = 100
"""Items that an event names; the rest is counted."""


async def watch(daemon: Daemon) -> None:
    """Report what goes missing around the tunnel, wherever it is, until cancelled."""
    while True:
        with daemon.staying():
            await _watch_here(daemon)
            await trio.sleep_forever()


async def _watch_here(daemon: Daemon) -> None:
    # A socket of ours in another namespace would keep that alive after its owner has removed it.
    polls = daemon.place.netns is not None
    watching = contextlib.nullcontext() if polls else RouteWatch(firewall=True)
    try:
        with unwrapped(host.HostError), watching as changes:
            repairs = 0
            while True:
                if changes is None:
                    await trio.sleep(LOOK_AGAIN)
                else:
                    await changes.changed(SETTLE)
                begin = trio.current_time()
                _report(daemon, await _missing(daemon))
                if not daemon.missing:
                    await trio.sleep(SHARE * (trio.current_time() - begin))
                elif daemon.config.interface.options.repair:
                    await daemon.restore()
                    _report(daemon, await _missing(daemon))
                    await trio.sleep(PATIENCE[min(repairs, len(PATIENCE) - 1)])
                    repairs += 1
    except host.HostError as error:
        log.warning("what other programs remove is not noticed: %s", error)


async def _missing(daemon: Daemon) -> frozenset[host.Item]:
    """What should be there and is not, unless it cannot be: the interface is down, or elsewhere."""
    device = daemon.device
    if device is None:
        return frozenset()
    async with device.changing:
        if daemon.host is None:
            return frozenset()
        try:
            link = await trio.to_thread.run_sync(device.engine.tun.link)
            if not (link.up and (link.here or daemon.place.netns)):
                return daemon.missing
            found = frozenset(await trio.to_thread.run_sync(daemon.host.applied.missing))
            passes = daemon.host.applied.state.docker
            if passes is not None and passes in found:
                # That docker rewrites its chains when it starts is no damage.
                name = daemon.host.applied.state.addressed
                let_pass = partial(host.let_docker_pass, between_ports=passes.between_ports)
                await trio.to_thread.run_sync(let_pass, name, daemon.host.applied.state.interface)
                log.info("docker has rewritten its firewall: %s passes again", name)
            return found - {passes}
        except (TunError, host.HostError) as error:
            log.debug("cannot see what is around the tunnel: %s", error)
            return daemon.missing


def _report(daemon: Daemon, missing: frozenset[host.Item]) -> None:
    if missing == daemon.missing:
        return
    daemon.missing = missing
    names = sorted(map(str, missing))
    details = {"items": names[:MAX_ITEMS], "more_items": max(0, len(names) - MAX_ITEMS)}
    remedy = ""
    if names and not daemon.config.interface.options.repair:
        remedy = f"; to put it back: tunnel reload {daemon.name}"
    log.log(
        logging.WARNING if names else logging.INFO, "%s%s", sentence("missing", details), remedy
    )
    daemon.feed.publish("missing", **details)
