"""A trace from the table to the journeys: what runs while `tunnel trace` does.

The kernel's events and the daemon's records flow into a `Joiner`; finished journeys are handed
out. It ends when enough were seen, after a time, when the command has ended, or when it is told
to; the trace table goes with it, and with the process if that is killed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from tunnel.control.client import TunnelClient
from tunnel.control.json_socket import ControlError
from tunnel.control.streams import EventStream, open_stream
from tunnel.observe.filter import Filter
from tunnel.observe.joining import QUIET, Joiner
from tunnel.observe.nftrace import TraceSocket, TraceSocketLostEventsError
from tunnel.observe.path import Journey
from tunnel.observe.ruleset import Ruleset
from tunnel.observe.tracetable import trace_table

TICK = 0.05
"""Seconds between two looks for finished journeys."""

LINGER = 2 * QUIET
"""Seconds that go on after the command has ended or ^C, for what is still under way."""


@dataclass(frozen=True)
class Wanted:
    """What to trace, and for how long at most.

    Packets that count are those of the filter, not handshakes. `command`, if there is one, runs
    meanwhile, with its output to `output` (a descriptor; None leaves it where ours goes).
    """

    interface: str
    filter: Filter
    count: int
    seconds: float
    command: Sequence[str] = ()
    output: int | None = None


@dataclass
class Result:
    """How it went: packets counted, whether events were lost, the command's exit status."""

    packets: int = 0
    holes: bool = False
    status: int | None = None


class TraceSession:
    """One trace. `run` may be called once; `stop` ends it early, with what is known by then."""

    def __init__(
        self, wanted: Wanted, tell: Callable[[Journey], None], ready: Callable[[], None]
    ) -> None:
        self._wanted = wanted
        self._tell = tell
        self._ready = ready
        self._scope = trio.CancelScope()
        self._stop = trio.Event()
        self.result = Result()

    def stop(self) -> None:
        """End it, once what is under way has been heard of; a second time: now."""
        if self._stop.is_set():
            self._scope.cancel()
        self._stop.set()

    async def run(self) -> Result:
        """Trace to the end. Raises ControlError, TraceTableError, and OSError for the command."""
        wanted, name = self._wanted, self._wanted.interface
        with TunnelClient(name) as client:
            port = client.status().listen_port
        try:
            interfaces = dict(socket.if_nameindex())
            tun = socket.if_nametoindex(name)
            events = TraceSocket()
        except OSError as error:
            problem = f"{name} cannot be traced from here: {error.strerror or error}"
            raise ControlError("trace", problem) from None
        _hurry()
        with events:
            async with (
                open_stream(name, "trace", filter=wanted.filter.text) as records,
                trace_table(name, port, wanted.filter) as table,
            ):
                ruleset = await trio.to_thread.run_sync(Ruleset.read)
                joiner = Joiner(
                    table=table, ruleset=ruleset, interfaces=interfaces, tun=tun, port=port
                )
                with self._scope:
                    await self._follow(joiner, events, records, ruleset)
                with trio.CancelScope(shield=True):
                    await self._name_strangers(joiner, ruleset)
        self._hand_out(joiner, final=True)
        return self.result

    async def _follow(
        self, joiner: Joiner, events: TraceSocket, records: EventStream, ruleset: Ruleset
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_events, joiner, events)
            nursery.start_soon(self._read_records, joiner, records)
            self._ready()
            if self._wanted.command:
                nursery.start_soon(self._run_command)
            with trio.move_on_after(self._wanted.seconds):
                while self.result.packets < self._wanted.count:
                    ended = self._stop.is_set() or self.result.status is not None
                    await trio.sleep(LINGER if ended else TICK)
                    await self._name_strangers(joiner, ruleset)
                    self._hand_out(joiner)
                    if ended:
                        break
            nursery.cancel_scope.cancel()

    async def _read_events(self, joiner: Joiner, events: TraceSocket) -> None:
        while True:
            try:
                joiner.add_events(await events.receive())
            except TraceSocketLostEventsError:
                self._note_hole(joiner)

    async def _read_records(self, joiner: Joiner, records: EventStream) -> None:
        async for record in records:
            if record.type == "lost":
                self._note_hole(joiner)
            else:
                joiner.add_record(record.type, record.details, time.monotonic())
        self.stop()  # the tunnel has gone down

    def _note_hole(self, joiner: Joiner) -> None:
        self.result.holes = True
        joiner.note_hole(time.monotonic())

    async def _run_command(self) -> None:
        output = self._wanted.output
        done = await trio.run_process(
            list(self._wanted.command), check=False, stdin=subprocess.DEVNULL, stdout=output
        )
        self.result.status = done.returncode

    async def _name_strangers(self, joiner: Joiner, ruleset: Ruleset) -> None:
        """Read the rules again if there was one that is new."""
        if joiner.gatherer.has_strangers:
            joiner.gatherer.has_strangers = False
            ruleset.update(await trio.to_thread.run_sync(Ruleset.read))

    def _hand_out(self, joiner: Joiner, *, final: bool = False) -> None:
        for journey in joiner.take(time.monotonic(), final=final):
            if journey.counts:
                if self.result.packets >= self._wanted.count:
                    return
                self.result.packets += 1
            self._tell(journey)


def _hurry() -> None:
    """Be woken for every event at once: the kernel does not stamp them, our reading does."""
    with contextlib.suppress(OSError):
        # Not for the command, nor for nft.
        policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
