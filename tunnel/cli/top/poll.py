"""The looks of `tunnel top` at its tunnels, each at its own pace: one that hangs holds up none."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable

import trio

from tunnel.cli.top.view import History
from tunnel.control.async_client import Connection, open_connection
from tunnel.control.json_client import NotRunningError
from tunnel.control.json_protocol import ControlError
from tunnel.control.messages.status import TunnelStatus

PATIENCE = 2.0
"""Seconds after which a daemon that was asked is said not to answer. It may still do so."""

ANSWER_TIME = 10.0
"""Seconds that `look_at_all` waits for the slowest."""


@contextlib.asynccontextmanager
async def open_looker(names: Iterable[str], *, patient: bool) -> AsyncIterator[Looker]:
    """Connections to the daemons of `names`; if `patient`, without those that do not run.

    Raises NotRunningError and ControlError.
    """
    async with contextlib.AsyncExitStack() as stack:
        connections = {}
        for name in names:
            try:
                connections[name] = await stack.enter_async_context(open_connection(name))
            except NotRunningError:
                if not patient:
                    raise
        yield Looker(connections)


class Looker:
    """What was seen of some tunnels. `changed` is called after each look."""

    def __init__(self, connections: dict[str, Connection]) -> None:
        self.history = History()
        self.changed: Callable[[], None] = lambda: None
        self._connections = connections
        self._statuses: dict[str, TunnelStatus] = {}
        self._problems: dict[str, str] = {}
        self._asked: dict[str, float] = {}

    @property
    def names(self) -> list[str]:
        """The tunnels that have not ended."""
        return list(self._connections)

    @property
    def statuses(self) -> list[TunnelStatus]:
        """The tunnels as they were seen last; those whose daemons do not answer are left out."""
        silent = self._silent()
        return [self._statuses[name] for name in sorted(self._statuses) if name not in silent]

    @property
    def problems(self) -> list[str]:
        """A sentence for each tunnel that is left out of `statuses`."""
        silent = {name: f"the daemon of {name} does not answer" for name in self._silent()}
        known = self._problems | silent
        return [known[name] for name in sorted(known)]

    async def follow(self, name: str, interval: float) -> None:
        """Look at one tunnel every `interval` seconds until it ends."""
        while name in self._connections:
            await self._look(name)
            await trio.sleep(interval)

    async def look_at_all(self) -> None:
        """Look once at each; takes no longer than `ANSWER_TIME`."""
        with trio.move_on_after(ANSWER_TIME):
            async with trio.open_nursery() as nursery:
                for name in self._connections:
                    # One that still owes an answer is not asked again.
                    if name not in self._asked:
                        nursery.start_soon(self._look, name)

    async def _look(self, name: str) -> None:
        self._asked[name] = time.monotonic()
        try:
            status = await self._connections[name].status(paths=True)
        except ControlError as error:
            self._statuses.pop(name, None)
            self._problems[name] = str(error)
            if error.code == "closed":
                self._problems[name] = f"{name} has gone down"
            if error.code != "state":  # it is coming up, or going down
                del self._connections[name]
        else:
            self._problems.pop(name, None)
            self._statuses[name] = status
            self.history.add([status], time.monotonic())
        del self._asked[name]
        self.changed()

    def _silent(self) -> set[str]:
        now = time.monotonic()
        return {name for name, asked in self._asked.items() if now - asked > PATIENCE}
