"""The life of a daemon: everything set up, packets carried, everything undone.

In wg-quick's order:

    interface, PreUp, keys and peers, addresses, MTU, DNS, firewall, routes, rules, PostUp
    … packets …
    PreDown, SaveConfig, rules, routes, firewall, DNS, addresses, interface, PostDown

What is set up is taken down in the reverse order, whatever ends it: a signal, `tunnel down`, a
failure half-way, cancellation, the deletion of the interface. As in wg-quick, the Down hooks run
only for a tunnel that had come up; unlike there, one that fails stops nothing. What a killed daemon
left behind, teardown.py finds and removes.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import replace
from functools import partial
from typing import Literal

import trio

from tunnel import host
from tunnel.config import InterfaceConfig, PublicKey
from tunnel.control.broadcast import Events
from tunnel.control.messages.sentences import sentence
from tunnel.control.messages.status import telling
from tunnel.daemon import guard, host_state, redaction, reload
from tunnel.daemon.attach import Attachment
from tunnel.daemon.control import control_socket
from tunnel.daemon.daemon import Daemon, Stage
from tunnel.daemon.descriptors import check_descriptors
from tunnel.daemon.expiry import watch_expiry
from tunnel.daemon.host_state import Surroundings, line_of_port
from tunnel.daemon.keeper import dismiss
from tunnel.daemon.lock import hold
from tunnel.daemon.metrics import serve_metrics
from tunnel.daemon.sd_notify import Pulse
from tunnel.daemon.succession import Inherited, Life, inherit
from tunnel.daemon.teardown import refuse_taken, undo_leftovers
from tunnel.device import features, signals, sync
from tunnel.device.device import Device
from tunnel.device.look_up import addresses_only, resolve_some
from tunnel.device.uapi import AwaitedDevice, uapi_served
from tunnel.engine import QuotaFile, SessionRecord, boot_time
from tunnel.errors import DaemonError, TunnelError, unwrapped
from tunnel.io.endpoint import Endpoint
from tunnel.io.udp import Udp
from tunnel.linux.files import state_folder
from tunnel.packet import ethernet

log = logging.getLogger("tunnel")

STAYS_SHUT = "the kill switch of {0} stays; to open it: tunnel down {0}"

DROPS_PERIOD = 1.0
"""Seconds between two `drops` events."""


async def run(
    daemon: Daemon,
    *,
    ready: Callable[[], None] = lambda: None,
    handle_signals: bool = False,
    is_held: bool = False,
) -> None:
    """Set up, call `ready`, carry packets until `daemon.stop`, undo everything. May be called once.

    With `handle_signals`, SIGTERM and SIGINT stop it and SIGHUP reloads the conf. `is_held` says
    that the caller holds the lock of the name. Raises TunnelError when it cannot be set up, or is
    stopped before it is; then all changes are undone. Returns when the interface or the
    socket for `wg` is deleted from outside.
    """
    check_descriptors()
    lock = contextlib.nullcontext() if is_held else hold(daemon.name)
    with unwrapped(), lock, Attachment(daemon) as attachment:
        if not is_held:
            await trio.to_thread.run_sync(dismiss, daemon.name)
        # Of a daemon that has left something to this one, the log has said how it ended.
        is_known = bool(daemon.keeper.found)
        take = partial(inherit, daemon.keeper, daemon.config, daemon.place)
        before = await trio.to_thread.run_sync(take)
        if before is None:
            await _clean_up_before(daemon, was_killed=not is_known)
            # Before there is a socket for `wg` by that name: another's says whose the interface is.
            await trio.to_thread.run_sync(refuse_taken, daemon.name)
        async with (
            _undone(daemon, before),
            control_socket(daemon, attachment),
            uapi_served(daemon.name, daemon.stop) as wg,
            trio.open_nursery() as nursery,
        ):
            if handle_signals:
                stop = partial(nursery.start_soon, _stop_on_signal, daemon)
                await nursery.start(signals.follow, stop, daemon.reload_on_signal)
            nursery.start_soon(daemon.notifier.watchdog, partial(_is_alive, daemon, Pulse()))
            if daemon.stage is Stage.NEW:
                daemon.enter(Stage.STARTING)
            try:
                with daemon.starting:
                    await _live(daemon, wg, ready, attachment, before)
            finally:
                daemon.stop()
                daemon.feed.publish(
                    "down",
                    failures=daemon.failures,
                    notes=daemon.notes,
                    restarting=daemon.hands_over,
                )
                daemon.feed.end()
            nursery.cancel_scope.cancel()
        was_up = daemon.stage is Stage.STOPPING
        daemon.enter(Stage.DOWN)
        if not was_up:
            # Also of one that was to take the place of another: then the tunnel was up before.
            end = "the tunnel is down, and all changes were undone"
            raise DaemonError(f"{daemon.name} was stopped while starting; {end}")


async def _stop_on_signal(daemon: Daemon) -> None:
    if await trio.to_thread.run_sync(daemon.keeper.is_restarting) and daemon.hand_over():
        return
    daemon.stop_by_request()


async def _live(
    daemon: Daemon,
    wg: AwaitedDevice,
    ready: Callable[[], None],
    attachment: Attachment,
    before: Inherited | None,
) -> None:
    config = daemon.config
    redaction.hide_secrets(config)
    reload.check_hooks(config)
    if before is None:
        found = await resolve_some(config.peers)
    else:
        # Packets wait, and name servers may be in the tunnel: names are looked up meanwhile.
        found = await addresses_only(config.peers)
    endpoints = {key: addresses[0] for key, addresses in found.items() if addresses}
    await attachment.load()
    slot = None
    if before is not None:
        slot = before.slot
        if config.interface.mtu is None:
            config = replace(config, interface=replace(config.interface, mtu=before.mtu))
    around = await host_state.compute(config, endpoints.values(), slot=slot, place=daemon.place)
    async with _shut(daemon, around.state, stands=before is not None):
        await _set_up(daemon, wg, ready, around, found, endpoints, attachment, before)


async def _set_up(
    daemon: Daemon,
    wg: AwaitedDevice,
    ready: Callable[[], None],
    around: Surroundings,
    found: Mapping[PublicKey, Sequence[Endpoint]],
    endpoints: Mapping[PublicKey, Endpoint],
    attachment: Attachment,
    before: Inherited | None,
) -> None:
    interface = daemon.config.interface
    try:
        with (
            line_of_port(daemon.config),
            _sessions(daemon, before) as record,
            Device.open(
                daemon.name,
                mtu=around.state.mtu,
                path=features.load_datapath(interface.options.datapath),
                offloads=features.choose(interface.options),
                listen_port=interface.listen_port,
                fwmark=around.mark,
                publish=daemon.publish,
                mac=_mac(interface) if interface.options.is_tap else None,
                tun_fd=None if before is None else before.tun,
                udp_fds=() if before is None else before.udp,
                record=record,
                name_of=daemon.name_of,
            ) as device,
            _quota_file(daemon, device),
        ):
            # As with wg-quick, `wg` may be used by PreUp, and the conf has the last word.
            wg.device = device
            if before is None:
                if daemon.place.netns:
                    await trio.to_thread.run_sync(host.move_link, daemon.name, daemon.place.netns)
                # From here on a hook may have done what only the Down hooks undo.
                await daemon.keep_hooks(unsure=True)
                await _run_hooks(daemon, "PreUp", interface.pre_up)
            udp = device.engine.udp
            udp.set_port(interface.listen_port or udp.port)
            udp.set_fwmark(around.mark)
            await device.endpoints.update(daemon.config.peers, found)
            await sync.apply(device.engine, daemon.config, endpoints)
            revived = device.engine.revive()
            for reason, count in revived.left_out.items():
                log.info("%d kept sessions end: %s", count, reason)
            async with _host_state(
                daemon, device, around, endpoints.values(), stands=before is not None
            ) as settle:
                await _carry_packets(daemon, device, ready, attachment, before, settle)
    finally:
        wg.device = None
        if not daemon.hands_over:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(daemon.keeper.release)
        if daemon.stage is Stage.STOPPING and not daemon.hands_over:
            await _run_down_hooks(daemon, "PostDown")
        elif before is None and not daemon.hands_over:
            # As with wg-quick, a tunnel that did not come up has no Down hooks to run.
            with trio.CancelScope(shield=True):
                await daemon.forget_hooks()


async def _end_records(daemon: Daemon, device: Device) -> None:
    reason = "the daemon is restarted" if daemon.hands_over else "the tunnel goes down"
    daemon.records.end(device.engine, reason)
    with trio.CancelScope(shield=True):
        await daemon.records.write()


@contextlib.contextmanager
def _quota_file(daemon: Daemon, device: Device) -> Iterator[None]:
    """What peers use of their quotas is kept in a file, for the time that packets are carried."""
    path = state_folder() / f"{daemon.name}.quota" if os.geteuid() == 0 else None
    file = device.engine.metering.quota_file = QuotaFile(path)
    try:
        yield
    finally:
        file.close()


@contextlib.asynccontextmanager
async def _undone(daemon: Daemon, before: Inherited | None) -> AsyncIterator[None]:
    """Whatever ends the tunnel: no one keeps descriptors of it, unless another daemon comes; and
    what the one `before` has set up is undone if this one could not go on with it.
    """
    try:
        yield
    finally:
        if not daemon.hands_over:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(daemon.keeper.release)
            if before is not None and daemon.stage is not Stage.STOPPING:
                await _clean_up_before(daemon, was_killed=False)


@contextlib.contextmanager
def _sessions(daemon: Daemon, before: Inherited | None) -> Iterator[SessionRecord | None]:
    """The record of the sessions, for the time that they are used; None if no one would keep it."""
    record = None if before is None else before.record
    is_wanted = daemon.keeper.keeps and daemon.config.interface.options.seamless_restart
    try:
        if record is None and is_wanted:
            record = SessionRecord.create()
    except OSError as error:
        log.warning("sessions will not survive a restart: %s", error.strerror)
    daemon.record = record
    try:
        yield record
    finally:
        daemon.record = None
        if record is not None:
            if not daemon.hands_over:
                record.wipe()
            record.close()


@contextlib.asynccontextmanager
async def _shut(
    daemon: Daemon, state: host.DesiredState, *, stands: bool = False
) -> AsyncIterator[None]:
    """The kill switch is there before the interface, and stays unless the tunnel is taken down.

    With `stands` it is there.
    """
    if not stands:
        await trio.to_thread.run_sync(host.shut, state)
    try:
        yield
    except TunnelError as error:
        if daemon.config.interface.options.kill_switch and not daemon.is_asked:
            error.add_note(STAYS_SHUT.format(daemon.name))
        raise
    else:
        if daemon.config.interface.options.kill_switch and not daemon.is_asked:
            # Exit status 0 would have the service manager open it, and not start the tunnel again.
            raise DaemonError(f"{daemon.name} is down, and nobody asked for it")
    finally:
        if daemon.config.interface.options.kill_switch:
            if daemon.is_asked and not daemon.stays_shut:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(host.remove, daemon.name)
            elif not daemon.stays_shut:
                log.warning("%s", STAYS_SHUT.format(daemon.name))


async def _carry_packets(
    daemon: Daemon,
    device: Device,
    ready: Callable[[], None],
    attachment: Attachment,
    before: Inherited | None,
    settle: Callable[[], Awaitable[None]],
) -> None:
    """From the first packet to the last. After a daemon `before`, `settle` is called once packets
    flow.
    """
    async with trio.open_nursery() as nursery:
        # Before the first handshake: it must not be over before anyone can subscribe.
        await nursery.start(serve_metrics, daemon)
        daemon.records.follow(device.engine, daemon.config.interface.options.records)
        await nursery.start(_run_device, daemon, device, attachment)
        if before is not None:
            await settle()
        nursery.start_soon(watch_drops, daemon.feed, device.engine.drops)
        nursery.start_soon(watch_port, daemon.feed, device.engine.udp, daemon.keep_descriptors)
        daemon.device = device
        try:
            await attachment.begin()
            nursery.start_soon(attachment.keep)
            if before is None:
                await _run_hooks(daemon, "PostUp", daemon.config.interface.post_up)
            if device.engine.interface.private_key is None:
                log.warning(
                    "%s has no private key, so no peer can be reached: the conf has none, and no "
                    "hook has set one (wg set %s private-key FILE)",
                    daemon.name,
                    daemon.name,
                )
            if before is None:
                with trio.CancelScope(shield=True):
                    await daemon.observe_hooks(device)
            daemon.enter(Stage.UP)
            with trio.CancelScope(shield=True):
                await daemon.keep_hooks()
            log.info("%s is up, UDP port %d", daemon.name, device.engine.udp.port)
            _begin_life(daemon, device, before)
            nursery.start_soon(daemon.keeper.watch, daemon.keep_descriptors)
            nursery.start_soon(guard.watch, daemon)
            nursery.start_soon(daemon.records.run)
            nursery.start_soon(daemon.peer_hooks.run)
            nursery.start_soon(watch_expiry, daemon)
            try:
                ready()
                daemon.notifier.ready(daemon.summary())
                await daemon.stopping.wait()
            finally:
                daemon.stop()
                await _prepare_down(daemon, device)
        finally:
            daemon.device = None
        nursery.cancel_scope.cancel()
    await _end_records(daemon, device)
    if daemon.hands_over and daemon.life is not None:
        # No packet is carried any more.
        device.engine.hand_over()
        daemon.life.write(ended=boot_time())


def _begin_life(daemon: Daemon, device: Device, before: Inherited | None) -> None:
    """Note and report that the tunnel is up, or goes on after a daemon `before`."""
    if before is None:
        try:
            daemon.life = Life.begin(daemon.config)
        except OSError as error:
            log.warning("a restart will interrupt %s: %s", daemon.name, error.strerror)
        daemon.feed.begin("up")
    else:
        daemon.life = before.life
        daemon.meter.restarts = before.life.restarts
        pause = max(0.0, boot_time() - before.ended)
        peers = device.engine.interface.peers.values()
        sessions = sum(peer.keypairs.current is not None for peer in peers)
        details = {"restarts": before.life.restarts, "pause": pause, "sessions": sessions}
        log.info("%s", sentence("restarted", details))
        daemon.feed.begin("restarted", **details)
    daemon.keep_descriptors()
    daemon.keeper.ready()


async def _clean_up_before(daemon: Daemon, *, was_killed: bool) -> None:
    """Undo what a daemon of this name left behind, its Down hooks included."""
    name = daemon.name
    undo = partial(
        undo_leftovers,
        name,
        partial(log.info, "%s"),
        fail_closed=daemon.config.interface.options.kill_switch,
    )
    with trio.CancelScope(shield=True):
        left = await trio.to_thread.run_sync(undo)
    if left.found and was_killed:
        log.warning("the previous daemon of %s was killed; removing what it left behind", name)
    for problem in (*left.failures, *left.notes):
        log.warning("while removing what it left: %s", problem)


def _mac(interface: InterfaceConfig) -> bytes:
    """The MAC address of a TAP: the same at each start, so that no neighbour has an old one."""
    key = interface.private_key
    return ethernet.station_address(os.urandom(32) if key is None else bytes(key.public_key()))


async def _run_device(
    daemon: Daemon,
    device: Device,
    attachment: Attachment,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    await device.run(daemon.restore, renew=attachment.renew, task_status=task_status)
    log.warning("%s was deleted by another program: stopping", daemon.name)
    daemon.stop()


@contextlib.asynccontextmanager
async def _host_state(
    daemon: Daemon,
    device: Device,
    around: Surroundings,
    endpoints: Iterable[Endpoint],
    *,
    stands: bool,
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """The machine as the conf wants it, for the time of the `async with`.

    With `stands` it is so already; what is yielded is to be called, and applies what has changed
    since.
    """

    async def move(now: Surroundings) -> None:
        device.engine.udp.set_fwmark(now.mark)
        device.engine.mtu = now.state.mtu

    async def settle() -> None:
        daemon.host = await host_state.settle(
            daemon.config,
            around,
            endpoints,
            moved=move,
            place=daemon.place,
            apply=host.reconcile if stands else host.apply,
        )

    if not stands:
        await settle()
    try:
        yield settle
    finally:
        with trio.CancelScope(shield=True):
            # A reload under way ends first; one that still waits finds nothing to change.
            async with device.changing:
                daemon.host = None
            try:
                if not daemon.hands_over:
                    undo = partial(host.remove, daemon.name, fail_closed=True)
                    await trio.to_thread.run_sync(undo)
            except host.HostError as error:
                # The record stays, so that `tunnel down` can be tried again.
                daemon.fail(f"not everything could be undone: {error}")


async def _prepare_down(daemon: Daemon, device: Device) -> None:
    """What comes before the undoing, whatever the reason: nothing here may stop it."""
    if daemon.hands_over:
        log.info("%s: this daemon ends, and another one takes over", daemon.name)
    else:
        log.info("%s is going down", daemon.name)
    daemon.notifier.stopping("restarting" if daemon.hands_over else "going down")
    with trio.CancelScope(shield=True):
        if not daemon.hands_over:
            # First: if we are killed from here on, no other daemon should follow.
            await trio.to_thread.run_sync(daemon.keeper.release)
            # Not under the lock: a hook may ask us to save.
            await _end_sessions(daemon, device)
            await _run_down_hooks(daemon, "PreDown")
        async with device.changing:
            if daemon.config.interface.save_config and not device.is_deleted:
                await daemon.save_at_end(device)


async def _end_sessions(daemon: Daemon, device: Device) -> None:
    """The hooks of peers that are connected, for as long as a single one may take."""
    seconds = daemon.config.interface.options.hook_timeout
    with trio.move_on_after(seconds or float("inf")):
        for key, peer in list(device.engine.interface.peers.items()):
            if peer.is_connected:
                details = {
                    "peer": key.to_base64(),
                    "name": daemon.name_of(key.to_base64()),
                    "endpoint": None if peer.endpoint is None else str(peer.endpoint),
                    "reason": "the tunnel goes down",
                }
                daemon.peer_hooks.handle_event("disconnected", details)
                await daemon.peer_hooks.run_waiting()
    daemon.peer_hooks.is_over = True


async def _run_hooks(daemon: Daemon, kind: str, commands: tuple[str, ...]) -> None:
    if commands:
        seconds = daemon.config.interface.options.hook_timeout
        call = partial(
            host.run_hooks,
            hide=redaction.hook_hider(daemon.config),
            limits=host.HookLimits(seconds, daemon.hook_stopper),
        )
        await trio.to_thread.run_sync(call, kind, commands, daemon.name, partial(log.info, "%s"))


async def _run_down_hooks(daemon: Daemon, kind: Literal["PreDown", "PostDown"]) -> None:
    call = partial(
        host.run_down_hooks,
        hide=redaction.hook_hider(daemon.config),
        stopper=daemon.hook_stopper,
    )
    with trio.CancelScope(shield=True):
        failures = await trio.to_thread.run_sync(
            call, kind, daemon.down_hooks(), daemon.name, partial(log.info, "%s")
        )
    for failure in failures:
        daemon.fail(failure)


async def watch_drops(feed: Events, count: Callable[[], dict[str, int]]) -> None:
    """Report to subscribers which packets were dropped. `count()` gives them by reason so far.

    Costs nothing while there are no subscribers.
    """
    while True:
        await feed.wait_wanted()
        before = count()
        await trio.sleep(DROPS_PERIOD)
        now = telling(count())
        new = {reason: packets - before.get(reason, 0) for reason, packets in now.items()}
        new = {reason: packets for reason, packets in new.items() if packets > 0}
        if new:
            feed.publish("drops", new=new, total=now)


async def watch_port(feed: Events, udp: Udp, moved: Callable[[], None] = lambda: None) -> None:
    """Report every change of the UDP port to subscribers, and call `moved`."""
    new = udp.port
    while True:
        old, new = new, await udp.wait_moved(new)
        moved()
        feed.publish("port", old=old, new=new)


def _is_alive(daemon: Daemon, pulse: Pulse) -> bool:
    # While it is set up or taken down, the service manager's time limits watch over it.
    device = daemon.device
    if device is None:
        return True
    engine = device.engine
    return pulse.beats(engine.interface.next_deadline(), engine.clock())
