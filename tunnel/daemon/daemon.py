"""The service: one tunnel from its conf, its state and what it can be asked to do.

`run.py` brings it up and takes it down. Here is what is done in between: status, reload, save.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator
from enum import Enum, auto
from typing import Any

import trio

from tunnel import host
from tunnel.config import PublicKey, TunnelConfig
from tunnel.config.expiry import without_expired
from tunnel.control.broadcast import Events
from tunnel.control.messages.changes import ReloadResult
from tunnel.control.messages.status import TunnelStatus
from tunnel.control.timeslice import let_go
from tunnel.daemon import hook_effects, redaction, reload, rights, save
from tunnel.daemon.hook_effects import HookEffects
from tunnel.daemon.host_state import HostState, Location, place_in_conf
from tunnel.daemon.keeper import Keeper
from tunnel.daemon.meter import Meter
from tunnel.daemon.reload import Plan
from tunnel.daemon.save import Saved
from tunnel.daemon.sd_notify import Notifier
from tunnel.daemon.succession import LIFE, SESSIONS, TUN, UDP, Life
from tunnel.device.device import Device
from tunnel.device.look_up import resolve_all
from tunnel.device.status import take_status
from tunnel.engine import SessionRecord
from tunnel.errors import DaemonError, TunnelError, with_notes
from tunnel.io.endpoint import Endpoint
from tunnel.linux.rights import Capability

log = logging.getLogger("tunnel")

_Addresses = dict[PublicKey, list[Endpoint]]

MAX_CHANGES = 100
"""Changes of a reload that its event names; the rest is counted."""

LOGGED_CHANGES = 20
"""Changes of a reload that have a line in the log; a long list would keep packets waiting."""


class Stage(Enum):
    """Where a daemon is in its life, which goes one way:

        NEW ──▶ STARTING ──▶ UP ──▶ STOPPING ──▶ DOWN
         │         │         ▲                    ▲
         └─────────┴──▶ ABORTING ─────────────────┘

    It is STARTING until PostUp has run. A failure or `stop` before that makes it ABORTING: then the
    Down hooks do not run, as with wg-quick. But a hook is not interrupted at once: if PostUp runs
    to its end all the same, the tunnel is UP, and goes down in order at once. UP ends in STOPPING,
    whatever the reason.
    """

    NEW = auto()
    STARTING = auto()
    UP = auto()
    STOPPING = auto()
    ABORTING = auto()
    DOWN = auto()


_NEXT = {
    Stage.NEW: {Stage.STARTING, Stage.ABORTING},
    Stage.STARTING: {Stage.UP, Stage.ABORTING},
    Stage.UP: {Stage.STOPPING},
    Stage.STOPPING: {Stage.DOWN},
    Stage.ABORTING: {Stage.UP, Stage.DOWN},
    Stage.DOWN: set[Stage](),
}


class Daemon:
    """One tunnel from its conf.

    `config` is the conf applied last, `stage` where it is in its life, `feed` where events are to
    be had. `device` is there while packets are carried, `host` while the machine is changed for it.
    `stopping` is set once it has been asked to stop; `starting` is the scope of what is cancelled
    if that is before it is up. `failures` are what went wrong on the way down, in words, `notes`
    what else there is to know of it; `hook_stopper` is for the hook that runs, and `missing` is
    what another program has removed. `place` is where the interface is, `attached` says in words to
    what `tunnel attach` has tied it. `is_asked` says that it goes down because somebody wants it,
    `stays_shut` that its kill switch is to be there all the same, as it comes up again at once,
    `hands_over` that all but the daemon is to stay, for another one. `keeper` keeps its descriptors
    then, `record` has its sessions, and `life` is there once it is up. `kept_rights` is what a
    reload can count on, None for all of root's.
    """

    def __init__(
        self,
        config: TunnelConfig,
        *,
        notifier: Notifier | None = None,
        kept_rights: frozenset[Capability] | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self.config = without_expired(config, time.time())
        self.kept_rights = kept_rights
        self.notifier = notifier or Notifier()
        self.feed = Events("event streams")
        self.meter = Meter()
        self.stage = Stage.NEW
        self.device: Device | None = None
        self.host: HostState | None = None
        self.stopping = trio.Event()
        self.failures: list[str] = []
        self.notes: list[str] = []
        self.missing: frozenset[host.Item] = frozenset()
        self.effects = HookEffects(config.interface)
        self.hook_stopper = host.HookStopper()
        self.is_asked = False
        self.stays_shut = False
        self.hands_over = False
        self.keeper = keeper or Keeper()
        self.life: Life | None = None
        self.record: SessionRecord | None = None
        self.attached = ""
        self.starting = trio.CancelScope()
        self._reloading = trio.Lock()
        self.place = place_in_conf(config)
        self._reading = trio.CancelScope()
        self._staying = trio.CancelScope()

    @property
    def name(self) -> str:
        """The interface's name."""
        return self.config.name

    def enter(self, stage: Stage) -> None:
        """Go on to `stage`. Raises RuntimeError if none leads there from the present one."""
        if stage not in _NEXT[self.stage]:
            raise RuntimeError(f"{self.name}: no way from {self.stage.name} to {stage.name}")
        self.stage = stage

    def stop(self) -> None:
        """Ask `run` to take everything down and return, also while it is still setting up."""
        if self.stage is Stage.UP:
            self.enter(Stage.STOPPING)
        elif not self.is_ending():
            self.enter(Stage.ABORTING)
            self.starting.cancel()
        self._reading.cancel()
        self.stopping.set()

    def stop_by_request(self, *, stays_shut: bool = False) -> None:
        """`stop`; a hook that is in the way is ended, after a while, and at once the next time."""
        self.hook_stopper.stop()
        self.stays_shut = stays_shut
        self.is_asked = True
        self.stop()

    def hand_over(self) -> bool:
        """`stop`, and leave everything to a daemon that comes after; False where that cannot be,
        and then nothing has changed.
        """
        if self.stage is not Stage.UP or not self.keeper.is_keeping():
            return False
        self.hands_over = self.is_asked = self.stays_shut = True
        self.keeper.hand_over()
        self.stop()
        return True

    def keep_descriptors(self) -> None:
        """Have kept what a daemon that comes after needs, or nothing if it could not go on."""
        wanted: dict[str, int] = {}
        # What hooks did to the device itself would have to be done again.
        is_plain = not self.attached and self.effects == HookEffects(self.effects.at_up)
        seamless = self.config.interface.options.seamless_restart
        if is_plain and seamless and self.device is not None and self.life is not None:
            engine = self.device.engine
            wanted = {
                TUN: engine.tun.fileno(),
                LIFE: self.life.descriptor,
                **({} if self.record is None else {SESSIONS: self.record.fileno()}),
                **{UDP[family]: fd for family, fd in engine.udp.descriptors().items()},
            }
        self.keeper.keep(wanted)

    def move_to(self, place: Location) -> None:
        """Note that the interface is there; ends what goes on in `staying`."""
        self.place = place
        self._staying.cancel()

    @contextlib.contextmanager
    def staying(self) -> Iterator[None]:
        """For what is cancelled when the interface comes to another place. One at a time."""
        with trio.CancelScope() as self._staying:
            yield

    def is_ending(self) -> bool:
        """Whether it is on its way down, or there."""
        return self.stage in (Stage.STOPPING, Stage.ABORTING, Stage.DOWN)

    def running(self) -> Device:
        """The device. Raises DaemonError while it carries no packets."""
        if self.device is None:
            state = "going down" if self.is_ending() else "still being set up"
            raise DaemonError(f"{self.name} is {state}; try again in a moment")
        return self.device

    def summary(self) -> str:
        """One line for the service manager."""
        engine = self.running().engine
        count = len(engine.interface.peers)
        return f"UDP port {engine.udp.port}, {count} peer{'' if count == 1 else 's'}"

    def publish(self, kind: str, details: dict[str, Any]) -> None:
        """Count an event and pass it on to subscribers."""
        self.meter.handle_event(kind, details)
        self.feed.publish(kind, **details)

    async def status(self, *, secrets: bool = False, paths: bool = False) -> TunnelStatus:
        """What the tunnel looks like now. With `secrets`, private and preshared keys too; with
        `paths`, path MTUs.

        Raises DaemonError while it is being set up or taken down.
        """
        device = self.running()
        found = await take_status(device.engine, self.config, secrets=secrets, paths=paths)
        missing = tuple(sorted(map(str, self.missing)))
        return dataclasses.replace(
            found,
            missing=missing,
            refused=device.refused,
            netns=self.place.netns or "",
            attached=self.attached,
            bridge="" if self.host is None else self.host.applied.state.bridge,
            since=0.0 if self.life is None else self.life.since,
            restarts=0 if self.life is None else self.life.restarts,
            holder=self.keeper.pid,
        )

    async def plan_reload(self, new: TunnelConfig | None = None) -> ReloadResult:
        """What `reload` would do. Raises TunnelError when it would fail."""
        wanted = await self._read(new)
        outcome = (await self._plan(wanted, await self._resolve(wanted, {}))).outcome
        parts = reload.parts(wanted)
        del wanted
        await let_go(parts)
        return outcome

    async def _read(self, new: TunnelConfig | None) -> TunnelConfig:
        self.running()
        wanted = new or await reload.read(self.config.path, self.name)
        wanted = without_expired(wanted, time.time())
        redaction.hide_secrets(wanted)
        return wanted

    async def _resolve(self, wanted: TunnelConfig, known: _Addresses) -> _Addresses:
        """`known` and the addresses of what else is new. Raises ResolveError."""
        missing = await reload.to_resolve(self.running().engine, self.config, wanted, known)
        return known | await resolve_all(missing, tries=reload.TRIES)

    async def _plan(self, wanted: TunnelConfig, addresses: _Addresses) -> Plan:
        if self.host is None:
            raise DaemonError(f"{self.name} is going down")
        engine = self.running().engine
        plan = await reload.plan(
            engine, self.config, wanted, self.host, addresses, self.effects, self.place
        )
        notes = rights.notes_on(wanted, self.kept_rights)
        if not notes:
            return plan
        outcome = dataclasses.replace(plan.outcome, notes=(*plan.outcome.notes, *notes))
        return dataclasses.replace(plan, outcome=outcome)

    async def reload(self, new: TunnelConfig | None = None) -> ReloadResult:
        """Make the running tunnel equal to `new`, by default the conf as it is on disk now.

        Returns what was done. Raises TunnelError, and then everything is as it was.
        """
        async with self._reloading:
            if self.stage is Stage.UP:
                self.notifier.reloading("reloading the conf")
            try:
                outcome = await self._reload(new)
            except TunnelError as error:
                log.error("not reloaded, nothing was changed: %s", error)
                self.feed.publish("reload", error=str(error), changes=[], notes=[])
                raise
            finally:
                if self.stage is Stage.UP:
                    self.notifier.ready(self.summary())
            for line in (*outcome.changes[:LOGGED_CHANGES], *outcome.notes):
                log.info("reload: %s", line)
            log.info("reloaded, %d changes", len(outcome.changes))
            self._publish_reload(outcome)
            return outcome

    def _publish_reload(self, outcome: ReloadResult) -> None:
        changes = [change.to_json() for change in outcome.changes[:MAX_CHANGES]]
        more = len(outcome.changes) - len(changes)
        notes = list(outcome.notes)
        self.feed.publish("reload", error=None, changes=changes, more_changes=more, notes=notes)

    async def _reload(self, new: TunnelConfig | None) -> ReloadResult:
        addresses: _Addresses = {}
        while not self.is_ending():
            # Not under the lock: name servers take their time, and going down, `wg set` and a link
            # that is up again must not wait for them.
            with trio.CancelScope() as self._reading:
                new = await self._read(new)
                addresses = await self._resolve(new, addresses)
            if self.is_ending() or new is None:
                break
            device = self.running()
            async with device.changing:
                if self.is_ending() or self.host is None:
                    raise DaemonError(f"{self.name} is going down")
                if await reload.to_resolve(device.engine, self.config, new, addresses):
                    continue  # `wg` has removed peers meanwhile: they are new again
                plan = await self._plan(new, addresses)
                self.host = await reload.carry_out(plan, device, self.host)
                parts = reload.parts(self.config)
                self.config = plan.config
                await self.keep_hooks()
                self.keep_descriptors()
                await let_go(parts)
                return plan.outcome
        raise DaemonError(f"{self.name} is going down")

    async def save(self) -> Saved:
        """Write what runs now into the conf, comments kept; what that changed in it.

        Raises TunnelError, and then the file is as it was.
        """
        device = self.running()
        async with device.changing:
            return await self.save_locked(device)

    async def save_at_end(self, device: Device) -> None:
        """SaveConfig: `save_locked`, or else a copy. A failure is among `failures`."""
        try:
            self.notes += (await self.save_locked(device)).notes
        except TunnelError as error:
            self.fail(f"SaveConfig: {error}; {await self._keep_copy(device)}")

    async def _keep_copy(self, device: Device) -> str:
        """Keep what cannot be saved; what became of it, in words."""
        try:
            path = await save.keep_copy(
                device,
                self.config,
                self.place,
                auto_mark=self._mark(),
                by_hooks=self.effects.addresses,
            )
        except (OSError, TunnelError) as error:
            return f"what was set while it was up is lost: {error}"
        if path is None:
            return "nothing is lost, as the conf says what was running"
        return f"what was running is in {path} until the machine is restarted"

    def _mark(self) -> int:
        """The mark that was set with the machine; 0 for none."""
        return 0 if self.host is None else self.host.surroundings.mark

    def fail(self, failure: object) -> None:
        """Note what went wrong on the way down, which goes on. The notes of an exception are for
        those that ask, not for the log.
        """
        log.error("%s; going down anyway", failure)
        self.failures.append(with_notes(failure))

    async def save_locked(self, device: Device) -> Saved:
        """`save` for a caller that holds the lock of `device`."""
        saved = await save.save(
            device,
            self.config,
            self.place,
            auto_mark=self._mark(),
            by_hooks=self.effects.addresses,
        )
        self.config = dataclasses.replace(self.config, status=saved.status)
        return saved

    def down_hooks(self) -> host.DownHooks:
        """What is to be run when the tunnel goes down."""
        interface = self.config.interface
        timeout = interface.options.hook_timeout
        return host.DownHooks(interface.pre_down, interface.post_down, timeout)

    async def observe_hooks(self, device: Device) -> None:
        """Take what the hooks have changed by now for a part of the conf."""
        async with device.changing:
            if self.host is None:
                return
            self.effects = await hook_effects.observe(device, self.config, self.host)
            surroundings = self.effects.on_host(self.config, self.host.surroundings)
            applied = dataclasses.replace(self.host.applied, state=surroundings.state)
            self.host = HostState(applied, surroundings)

    async def keep_hooks(self, *, unsure: bool = False) -> None:
        """Record the Down hooks, so that `tunnel down` runs them if we are killed; `unsure` as long
        as not all hooks of `up` have been run.
        """
        hooks = dataclasses.replace(self.down_hooks(), unsure=unsure)
        try:
            await trio.to_thread.run_sync(host.keep_hooks, self.name, hooks)
        except host.HostError as error:
            log.warning("the Down hooks will not be run if this daemon is killed: %s", error)

    async def forget_hooks(self) -> None:
        """The reverse."""
        try:
            await trio.to_thread.run_sync(host.keep_hooks, self.name, host.DownHooks())
        except host.HostError as error:
            self.fail(f"the Down hooks are still on record: {error}")

    async def restore(self) -> None:
        """Put back the routes and addresses that the kernel took when the interface went down."""
        device = self.device
        if device is None:
            return
        async with device.changing:
            if self.host is None or await reload.whereabouts(device.engine, self.name, self.place):
                return
            before, tun = self.host.applied, device.engine.tun

            def put_back() -> host.Applied:
                # The MTU may have been changed by hand, too, and that may be no event yet.
                return before.reconcile(dataclasses.replace(before.state, mtu=tun.link().mtu))

            try:
                applied = await trio.to_thread.run_sync(put_back)
                self.host = dataclasses.replace(self.host, applied=applied)
            except Exception as error:  # whatever it is, packets of other routes flow on
                level = logging.WARNING if isinstance(error, TunnelError) else logging.ERROR
                log.log(
                    level,
                    "routes and addresses could not be restored: %s; fix that, then run "
                    "tunnel reload %s",
                    error,
                    self.name,
                    exc_info=None if isinstance(error, TunnelError) else error,
                )

    async def reload_on_signal(self) -> None:
        """`reload`, unless one waits that will read what this signal is about; failures are in the
        log.
        """
        if self._reloading.statistics().tasks_waiting:
            return
        with contextlib.suppress(TunnelError):
            await self.reload()
