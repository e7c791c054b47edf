"""The service: conf in, host state applied, engine running, control socket served, all undone.

`Daemon.run` is the whole life of one tunnel, in wg-quick's order:

    interface, PreUp, keys and peers, addresses, MTU, DNS, firewall, routes, rules, PostUp
    … packets …
    PreDown, SaveConfig, rules, routes, firewall, DNS, addresses, interface, PostDown

What it sets up it takes down in the reverse order, whatever ends it: a signal, `tunnel down`, a
failure half-way, cancellation, the deletion of the interface. As in wg-quick, the Down hooks run
only for a tunnel that had come up; unlike there, one that fails stops nothing. What a killed daemon
left behind, teardown.py finds and removes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import Any

import trio

from tunnel import host
from tunnel.config import PublicKey, TunnelConfig
from tunnel.control.broadcast import Events
from tunnel.control.messages.status import TunnelStatus
from tunnel.control.timeslice import let_go
from tunnel.daemon import host_state, redaction, reload, save
from tunnel.daemon.control import control_socket
from tunnel.daemon.lock import hold
from tunnel.daemon.meter import Meter
from tunnel.daemon.metrics import serve_metrics
from tunnel.daemon.reload import Outcome, Plan
from tunnel.daemon.save import Saved
from tunnel.daemon.sd_notify import Notifier, Pulse
from tunnel.daemon.watchers import watch_drops, watch_port
from tunnel.device import features, signals, sync
from tunnel.device.endpoints import Names
from tunnel.device.event_log import EventLog
from tunnel.device.link_monitor import follow_link
from tunnel.device.status import take_status
from tunnel.device.uapi import wireguard_socket
from tunnel.engine import Engine, boot_time
from tunnel.errors import DaemonError, TunnelError, unwrapped
from tunnel.io.endpoint import Endpoint
from tunnel.io.errors import TunDeleted
from tunnel.io.tun import Tun
from tunnel.io.udp import Udp
from tunnel.protocol import Event

__all__ = ["Daemon"]

log = logging.getLogger("tunnel")

_Addresses = dict[PublicKey, list[Endpoint]]

LOGGED_CHANGES = 20
"""Changes of a reload that have a line in the log; a long list would keep packets waiting."""


class Daemon:
    """One tunnel from its conf. `run` may be called once.

    `config` is the conf applied last, `engine` None before it is set up and after, `feed` where
    events are to be had.
    """

    def __init__(self, config: TunnelConfig, *, notifier: Notifier | None = None) -> None:
        self.config = config
        self.notifier = notifier or Notifier()
        self.engine: Engine | None = None
        self.feed = Events("event streams")
        self._event_log = EventLog(self._publish)
        self.names = Names()
        self.meter = Meter()
        self._new_engine: Engine | None = None
        self._applied: host.Applied | None = None
        self._around: host_state.Surroundings | None = None
        self._pulse = Pulse()
        self._stop = trio.Event()
        self._life = trio.CancelScope()
        self._is_up = False
        self._deleted = False
        self._changing = trio.Lock()
        self._reloading = trio.Lock()
        self._reading = trio.CancelScope()

    @property
    def name(self) -> str:
        """The interface's name."""
        return self.config.name

    def stop(self) -> None:
        """Ask `run` to take everything down and return, also while it is still setting up."""
        self._stop.set()
        self._reading.cancel()
        if not self._is_up:
            self._life.cancel()

    async def run(
        self, *, ready: Callable[[], None] = lambda: None, handle_signals: bool = False
    ) -> None:
        """Set up, call `ready`, carry packets until `stop`, undo everything.

        With `handle_signals`, SIGTERM and SIGINT stop it and SIGHUP reloads the conf. Raises
        TunnelError when it cannot be set up, or is stopped before it is; then nothing is left
        of it. Returns when the interface or the socket for `wg` is deleted from outside.
        """
        with unwrapped(), hold(self.name):
            async with (
                control_socket(self),
                wireguard_socket(self.name, self._settable, self._changing, self.stop, self.names),
                trio.open_nursery() as nursery,
            ):
                if handle_signals:
                    await nursery.start(signals.follow, self.stop, self._reload_on_signal)
                nursery.start_soon(self.notifier.watchdog, self._is_alive)
                try:
                    with self._life:
                        await self._live(ready)
                finally:
                    self.feed.publish("down")
                    self.feed.end()
                nursery.cancel_scope.cancel()
            if not self._is_up:
                raise DaemonError(
                    f"{self.name} was told to go down while it came up; nothing is left of it"
                )

    # --- Up --------------------------------------------------------------------------------------

    async def _live(self, ready: Callable[[], None]) -> None:
        interface = self.config.interface
        redaction.hide_secrets(self.config)
        reload.check_hooks(self.config)
        await self._refuse_existing()
        found = await self.names.resolve(self.config.peers)
        endpoints = {key: addresses[0] for key, addresses in found.items()}
        around = await host_state.compute(self.config, endpoints.values())
        wanted = features.choose(interface.options)
        try:
            with (
                Udp.open(interface.listen_port, around.mark, gso=wanted.gso, gro=wanted.gro) as udp,
                Tun.open(self.name, offloads=wanted.tun) as tun,
            ):
                engine = Engine(
                    tun=tun,
                    udp=udp,
                    mtu=around.state.mtu,
                    path=features.load_datapath(interface.options.datapath),
                    on_event=self._handle_event,
                    retry_endpoint=self.names.retry,
                )
                self._new_engine = engine
                await self._run_hooks("PreUp", interface.pre_up)
                # As with wg-quick, `wg` may be used by PreUp, and the conf has the last word.
                udp.set_port(interface.listen_port or udp.port)
                udp.set_fwmark(around.mark)
                await self.names.update(self.config.peers, found)
                await sync.apply(engine, self.config, endpoints)
                machine = self._host_state(engine, around, endpoints.values())
                async with machine, trio.open_nursery() as nursery:
                    # Before the first handshake: it must not be over before anyone can subscribe.
                    await nursery.start(serve_metrics, self)
                    await nursery.start(self._carry, engine)
                    self.engine = engine
                    engine.settle()
                    nursery.start_soon(self.names.run, engine)
                    nursery.start_soon(self._event_log.run)
                    nursery.start_soon(watch_drops, self.feed, engine.drops)
                    nursery.start_soon(watch_port, self.feed, udp)
                    await self._run_hooks("PostUp", interface.post_up)
                    self._is_up = True
                    log.info("%s is up, UDP port %d", self.name, udp.port)
                    self.feed.publish("up")
                    try:
                        ready()
                        self.notifier.ready(self._summary(engine))
                        await self._stop.wait()
                    finally:
                        await self._prepare_down(engine)
                    nursery.cancel_scope.cancel()
        finally:
            self.engine = self._new_engine = None
            if self._is_up:
                await self._run_down_hooks("PostDown", self.config.interface.post_down)

    async def _refuse_existing(self) -> None:
        if await trio.to_thread.run_sync(host.link_exists, self.name):
            raise DaemonError(
                f"an interface named {self.name} exists already; "
                f"take it down first (tunnel down {self.name}, or ip link delete {self.name})"
            )

    async def _run_hooks(self, kind: str, commands: tuple[str, ...], first: int = 1) -> None:
        if commands:
            run = partial(host.run_hooks, hide=redaction.hook_hider(self.config), first=first)
            await trio.to_thread.run_sync(run, kind, commands, self.name, partial(log.info, "%s"))

    @contextlib.asynccontextmanager
    async def _host_state(
        self, engine: Engine, around: host_state.Surroundings, endpoints: Iterable[Endpoint]
    ) -> AsyncIterator[None]:
        # Not abandoned on cancellation: half a state must not be left behind.
        with trio.CancelScope(shield=True):
            while self._applied is None:
                try:
                    self._applied = await trio.to_thread.run_sync(host.apply, around.state)
                except host.SlotTakenError:
                    # Another full tunnel has come up meanwhile; whoever loses finds another place.
                    around = await host_state.compute(self.config, endpoints)
                    engine.udp.set_fwmark(around.mark)
                    engine.mtu = around.state.mtu
        self._around = around
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                # A reload under way ends first; one that still waits finds nothing to change.
                async with self._changing:
                    self._applied = None
                try:
                    await trio.to_thread.run_sync(host.remove, self.name)
                except host.HostError as error:
                    # The record stays, so that `tunnel down` can be tried again.
                    log.error("not everything could be undone: %s", error)

    async def _carry(
        self, engine: Engine, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(engine.run)
                nursery.start_soon(follow_link, engine, engine.tun, self._restore)
                task_status.started()
        except* TunDeleted:
            log.warning("%s was deleted from outside: leaving", self.name)
            self._deleted = True
            self.stop()

    async def _restore(self) -> None:
        """Put back the routes and addresses that the kernel took when the interface went down."""
        async with self._changing:
            if self._applied is None or self.engine is None:
                return
            # The MTU may have been changed by hand, too.
            state = dataclasses.replace(self._applied.state, mtu=self.engine.mtu)
            try:
                self._applied = await trio.to_thread.run_sync(self._applied.reconcile, state)
            except host.HostError as error:
                log.warning(
                    "routes and addresses are not back as they were: %s; mend that, then "
                    "tunnel reload %s",
                    error,
                    self.name,
                )

    # --- Down ------------------------------------------------------------------------------------

    async def _prepare_down(self, engine: Engine) -> None:
        """What comes before the undoing, whatever the reason: nothing here may stop it."""
        log.info("%s is going down", self.name)
        self.notifier.stopping("going down")
        with trio.CancelScope(shield=True):
            # Not under the lock: a hook may ask us to save or to reload.
            await self._run_down_hooks("PreDown", self.config.interface.pre_down)
            async with self._changing:
                interface = self.config.interface
                if interface.save_config and not self._deleted:
                    try:
                        await self._save(engine)
                    except TunnelError as error:
                        log.error("SaveConfig: %s", error)

    async def _run_down_hooks(self, kind: str, commands: tuple[str, ...]) -> None:
        with trio.CancelScope(shield=True):
            for number, command in enumerate(commands, 1):
                try:
                    await self._run_hooks(kind, (command,), number)
                except host.HostError as error:
                    log.error("%s; going down all the same", error)

    # --- While it runs ---------------------------------------------------------------------------

    async def status(
        self, *, secrets: bool = False, paths: bool = False, max_networks: int | None = None
    ) -> TunnelStatus:
        """What the tunnel looks like now. With `secrets`, private and preshared keys too; with
        `paths`, path MTUs; of more than `max_networks` allowed IPs of a peer, their number.

        Raises DaemonError while it is being set up or taken down.
        """
        return await take_status(
            self.running(),
            self.config,
            name=self.name,
            secrets=secrets,
            paths=paths,
            max_networks=max_networks,
        )

    async def plan_reload(self, new: TunnelConfig | None = None) -> Outcome:
        """What `reload` would do. Raises one of TunnelError when it would fail."""
        wanted = await self._read(new)
        outcome = (await self._plan(wanted, await self._resolve(wanted, {}))).outcome
        parts = reload.parts(wanted)
        del wanted
        await let_go(parts)
        return outcome

    async def _read(self, new: TunnelConfig | None) -> TunnelConfig:
        self.running()
        wanted = new or await reload.read(self.config.path, self.name)
        redaction.hide_secrets(wanted)
        return wanted

    async def _resolve(self, wanted: TunnelConfig, known: _Addresses) -> _Addresses:
        """`known` and the addresses of what else is new. Raises ResolveError."""
        missing = await reload.to_resolve(self.running(), self.config, wanted, known)
        return known | await self.names.resolve(missing, tries=reload.TRIES)

    async def _plan(self, wanted: TunnelConfig, addresses: _Addresses) -> Plan:
        if self._applied is None or self._around is None:
            raise DaemonError(f"{self.name} is going down")
        return await reload.plan(
            self.running(), self.config, wanted, self._applied, self._around.slot, addresses
        )

    async def reload(self, new: TunnelConfig | None = None) -> Outcome:
        """Make the running tunnel equal to `new`, by default the conf as it is on disk now.

        Returns what was done. Raises TunnelError, and then everything is as it was.
        """
        async with self._reloading:
            if self._is_up and not self._stop.is_set():
                self.notifier.reloading("reloading the conf")
            try:
                outcome = await self._reload(new)
            except TunnelError as error:
                log.error("not reloaded, everything stays as it was: %s", error)
                self.feed.publish("reload", error=str(error), changes=[], notes=[])
                raise
            finally:
                if self.engine is not None and self._is_up and not self._stop.is_set():
                    self.notifier.ready(self._summary(self.engine))
            for line in (*outcome.changes[:LOGGED_CHANGES], *outcome.notes):
                log.info("reload: %s", line)
            log.info("reloaded, %d changes", len(outcome.changes))
            self.feed.publish("reload", error=None, **outcome.to_event())
            return outcome

    async def _reload(self, new: TunnelConfig | None) -> Outcome:
        addresses: _Addresses = {}
        while not self._stop.is_set():
            # Not under the lock: name servers take their time, and going down, `wg set` and a link
            # that is up again must not wait for them.
            with trio.CancelScope() as self._reading:
                new = await self._read(new)
                addresses = await self._resolve(new, addresses)
            async with self._changing:
                if new is None or self._stop.is_set() or self._applied is None:
                    raise DaemonError(f"{self.name} is going down")
                engine = self.running()
                if await reload.to_resolve(engine, self.config, new, addresses):
                    continue  # `wg` has removed peers meanwhile: they are new again
                plan = await self._plan(new, addresses)
                self._applied = await reload.carry_out(plan, engine, self._applied, self.names)
                parts = reload.parts(self.config)
                self.config, self._around = plan.config, plan.surroundings
                await let_go(parts)
                return plan.outcome
        raise DaemonError(f"{self.name} is going down")

    async def save(self) -> Saved:
        """Write what runs now into the conf, comments kept; what that changed in it.

        Raises TunnelError, and then the file is as it was.
        """
        async with self._changing:
            return await self._save(self.running())

    async def _save(self, engine: Engine) -> Saved:
        mark = 0 if self._around is None else self._around.mark
        return await save.save(engine, self.config, auto_mark=mark, names=self.names)

    def running(self) -> Engine:
        """The engine. Raises DaemonError while there is none."""
        if self.engine is None:
            state = "going down" if self._stop.is_set() else "still being set up"
            raise DaemonError(f"{self.name} is {state}; try again in a moment")
        return self.engine

    def _settable(self) -> Engine:
        """What `wg` may look at and change: from PreUp on, as it could with wg-quick."""
        return self._new_engine or self.running()

    def _summary(self, engine: Engine) -> str:
        count = len(engine.interface.peers)
        return f"UDP port {engine.udp.port}, {count} peer{'' if count == 1 else 's'}"

    def _is_alive(self) -> bool:
        # While it is set up or taken down, the service manager's time limits watch over it.
        engine = self.engine
        return engine is None or self._pulse.beats(engine.interface.next_deadline(), boot_time())

    def _handle_event(self, event: Event) -> None:
        self._event_log.log(event)
        self.names.handle_event(event)

    def _publish(self, kind: str, details: dict[str, Any]) -> None:
        self.meter.handle_event(kind, details)
        self.feed.publish(kind, **details)

    async def _reload_on_signal(self) -> None:
        if self._reloading.statistics().tasks_waiting:
            return  # the reload that waits will read what this signal is about
        with contextlib.suppress(TunnelError):  # logged by then
            await self.reload()
