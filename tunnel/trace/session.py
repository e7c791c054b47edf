"""A trace from the table to the journeys: what runs while `tunnel trace` does.

The kernel's events and the daemon's records flow into a `Joiner`; finished journeys are handed
out. Tracing ends when enough were seen, after a time, when the command has ended, when the tunnel
goes down, or at `stop`; the trace table goes with it, and with the process if that is
killed. The command goes on to its own end.
"""

from __future__ import annotations

import contextlib
import functools
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from tunnel.control.async_client import EventStream, open_stream
from tunnel.control.client import TunnelClient
from tunnel.control.json_protocol import ControlError
from tunnel.control.messages.sentences import describe
from tunnel.linux.netns import entering
from tunnel.packet.filter import Filter
from tunnel.trace.correlate import LATE, QUIET, Joiner
from tunnel.trace.journey import Journey
from tunnel.trace.nftrace import TraceSocketLostEventsError
from tunnel.trace.ruleset import Ruleset
from tunnel.trace.stacks import Stacks
from tunnel.trace.trace_table import TraceTable, table_name, trace_table

TICK = 0.05
"""Seconds between two looks at what has come."""

GRACE = 5.0
"""Seconds after which table and records end without us, once the time of a trace is over."""

RECORD_RATE = 1000
"""Records a second asked of the daemon: more would cost more than they are worth."""

OTHERS = 5
"""Handshakes and unread datagrams shown for each packet asked for: anyone can send them."""

_LAST_LOOK = 5.0


@dataclass(frozen=True)
class TraceRequest:
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
    """How it went: packets counted, whether events were lost, the command's exit status.

    `others` are the journeys shown that do not count, `left_out` those beyond the limit. `cut` says
    what ended the trace before its time, if something did.
    """

    packets: int = 0
    holes: bool = False
    status: int | None = None
    others: int = 0
    left_out: int = 0
    cut: str | None = None


class TraceSession:
    """One trace. `run` may be called once; `stop` ends it early, with what is known by then.

    `note` gets changes on the way, in words.
    """

    def __init__(
        self,
        wanted: TraceRequest,
        report: Callable[[Journey], None],
        ready: Callable[[], None],
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._wanted = wanted
        self._report = report
        self._ready = ready
        self._note = note
        self._scope = trio.CancelScope()
        self._stop = trio.Event()
        self._down = trio.Event()
        self._names: dict[str, str] = {}
        self._process: trio.Process | None = None
        self._command_ends = False
        self._strangers_from = 0.0
        self._stacks = Stacks("")
        self.result = Result()

    def stop(self, *, command: bool = False) -> None:
        """End tracing once what is under way has arrived; with `command`, that as well.

        A second time: now, and the command too.
        """
        if self._stop.is_set():
            self._scope.cancel()
            command = True
        self._stop.set()
        self._command_ends = self._command_ends or command
        self._end_command()

    def _end_command(self) -> None:
        if self._command_ends and self._process is not None and self._process.returncode is None:
            self._process.terminate()

    async def run(self) -> Result:
        """Trace to the end. Raises ControlError, TraceTableError, and OSError for the command."""
        async with trio.open_nursery() as commands:
            await self._trace(commands)
            if self._process is not None and self.result.status is None:
                seen = self.result.packets
                packets = "1 packet" if seen == 1 else f"{seen} packets"
                program = self._wanted.command[0]
                self._note(f"{packets} traced, {program} goes on; ^C ends it")
        return self.result

    async def _trace(self, commands: trio.Nursery) -> None:
        wanted, name = self._wanted, self._wanted.interface
        lease = wanted.seconds + GRACE
        # Before the port is asked for: a change after that comes as an event.
        async with open_stream(name, "events") as news:
            with TunnelClient(name) as client:
                status = client.status()
                port = status.listen_port
                self._names = {peer.public_key: peer.name for peer in status.peers}
            with contextlib.ExitStack() as stack:
                try:
                    self._stacks = stacks = Stacks.of(status, table_name(name))
                    interfaces, tun = stacks.interfaces(name)
                    stack.enter_context(stacks.listening())
                except OSError as error:
                    problem = f"{name} cannot be traced from here: {error.strerror or error}"
                    raise ControlError("trace", problem) from None
                ruleset = await trio.to_thread.run_sync(stacks.ruleset, abandon_on_cancel=True)
                async with (
                    open_stream(
                        name, "trace", filter=wanted.filter.text, seconds=lease, rate=RECORD_RATE
                    ) as records,
                    contextlib.AsyncExitStack() as made,
                ):
                    tables = [
                        await made.enter_async_context(
                            trace_table(name, port, wanted.filter, lease, place)
                        )
                        for place in stacks.places
                    ]
                    joiner = Joiner(
                        table=tables[0].name,
                        ruleset=ruleset,
                        interfaces=interfaces,
                        tun=tun,
                        port=port,
                    )
                    with self._scope:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(self._read_records, joiner, records)
                            nursery.start_soon(self._read_news, joiner, news, tables[0])
                            self._ready()
                            if wanted.command:
                                commands.start_soon(self._run_command)
                            with trio.move_on_after(wanted.seconds):
                                await self._follow(joiner, ruleset)
                            nursery.cancel_scope.cancel()
                    self._take_events(joiner)
                    with trio.move_on_after(_LAST_LOOK, shield=True):
                        await self._name_strangers(joiner, ruleset, at_once=True)
        self._hand_out(joiner, final=True)

    async def _follow(self, joiner: Joiner, ruleset: Ruleset) -> None:
        """Until enough was seen; after an end, until no packet is in flight."""
        ended = float("inf")
        while self.result.packets < self._wanted.count:
            await trio.sleep(TICK)
            self._take_events(joiner)
            await self._name_strangers(joiner, ruleset)
            self._hand_out(joiner)
            if self._stop.is_set() or self.result.status is not None:
                ended = min(ended, trio.current_time())
            since = trio.current_time() - ended
            if since > LATE + QUIET or (since > QUIET and not joiner.is_pending):
                break

    def _take_events(self, joiner: Joiner) -> None:
        try:
            joiner.add_events(self._stacks.take())
        except TraceSocketLostEventsError:
            self._note_hole(joiner)

    async def _read_records(self, joiner: Joiner, records: EventStream) -> None:
        async for record in records:
            if record.type == "lost":
                self._note_hole(joiner)
            else:
                record.details["name"] = self._names.get(record.details.get("peer") or "", "")
                joiner.add_record(record.type, record.details, time.monotonic())
        with trio.move_on_after(LATE):
            await self._down.wait()
        if self.result.cut is None:
            self.result.cut = "the daemon ended the trace: its time was over, or it was not read"
        self.stop()

    async def _read_news(self, joiner: Joiner, news: EventStream, table: TraceTable) -> None:
        port: int | None = None
        async for event in news:
            if event.type == "port" and event.details["new"] != port:
                port = event.details["new"]
                self._note(f"the UDP port is {port} now, was {event.details['old']}")
                joiner.add_port(event.details["new"])
                await table.follow(event.details["new"])
            elif event.type in ("attached", "detached", "waiting"):
                self.result.cut = f"{self._wanted.interface} was moved: {describe(event)}"
                self.stop()
                return
        self.result.cut = f"{self._wanted.interface} went down"
        self._down.set()
        if not self._stop.is_set():
            self.stop()

    def _note_hole(self, joiner: Joiner) -> None:
        self.result.holes = True
        joiner.note_hole(time.monotonic())

    async def _run_command(self) -> None:
        wanted = self._wanted
        run = functools.partial(
            trio.run_process,
            list(wanted.command),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=wanted.output,
            preexec_fn=entering(self._stacks.inner),
        )
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(run)
            self._process = process
            # `stop` may have come between its start and here.
            self._end_command()
            self.result.status = await process.wait()

    async def _name_strangers(
        self, joiner: Joiner, ruleset: Ruleset, *, at_once: bool = False
    ) -> None:
        """Read the rules again if there was one that is new; not all the time if that is long."""
        began = time.monotonic()
        if joiner.builder.has_strangers and (at_once or began >= self._strangers_from):
            joiner.builder.has_strangers = False
            ruleset.update(
                await trio.to_thread.run_sync(self._stacks.ruleset, abandon_on_cancel=True)
            )
            now = time.monotonic()
            self._strangers_from = now + 10 * (now - began)

    def _hand_out(self, joiner: Joiner, *, final: bool = False) -> None:
        result, count = self.result, self._wanted.count
        for journey in joiner.take(time.monotonic(), final=final):
            if journey.counts:
                if result.packets >= count:
                    return
                result.packets += 1
            elif result.others >= OTHERS * count:
                result.left_out += 1
                continue
            else:
                result.others += 1
            self._report(journey)
