"""The typed client of a daemon's control socket. docs/control.md describes what it speaks.

with TunnelClient("wg0") as client:
    print(client.status().listen_port)
    for change in client.diff().changes:
        print(change)

with TunnelClient("wg0") as client:
    for event in client.events():
        print(event.type, event.details)
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from tunnel.control.json_client import Client, event_of
from tunnel.control.json_socket import ControlError
from tunnel.control.messages.changes import Change
from tunnel.control.messages.events import TunnelEvent
from tunnel.control.messages.status import TunnelStatus

RELOAD_TIMEOUT = 120.0
"""Seconds: names may have to be looked up, and hosts be slow."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did, or with `diff` would do. `notes` are what it leaves to a new `up`."""

    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """From the daemon's answer."""
        changes = tuple(Change.from_json(change) for change in data["changes"])
        return cls(changes, tuple(map(str, data["notes"])))


@dataclass(frozen=True, slots=True)
class SavedLine:
    """A line of the conf: `sign` is - for one that is gone, by its old number, + for a new one.

    Keys are hidden in `text`.
    """

    sign: str
    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Saved:
    """What `save` did to the file `path`; `more_lines` have changed beyond those in `lines`.

    `notes` tell of running values that no conf may have, and that were not saved.
    """

    changed: bool
    path: str
    lines: tuple[SavedLine, ...]
    more_lines: int
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """From the daemon's answer."""
        lines = tuple(
            SavedLine(str(line["sign"]), int(line["number"]), str(line["text"]))
            for line in data.get("lines", ())
        )
        notes = tuple(map(str, data.get("notes", ())))
        more = int(data.get("more_lines", 0))
        return cls(bool(data["changed"]), str(data["path"]), lines, more, notes)


class TunnelClient(Client):
    """One connection to the daemon of an interface; use as a context manager.

    Every method raises ControlError when the daemon refuses (`code` says in a word why), and
    NotRunningError when there is none.
    """

    def __init__(self, name: str, *, timeout: float = 10.0) -> None:
        super().__init__(name, timeout=timeout)
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def status(self, *, secrets: bool = False, paths: bool = False) -> TunnelStatus:
        """The tunnel now. With `secrets`, all keys too; with `paths`, path MTUs too."""
        return TunnelStatus.from_json(self.call("status", secrets=secrets, paths=paths))

    def diff(self) -> Reloaded:
        """What `reload` would do. Changes nothing."""
        with self._patient():
            return Reloaded.from_json(self.call("diff"))

    def reload(self) -> Reloaded:
        """Make the tunnel equal to its conf; a refusal has left everything as it was."""
        with self._patient():
            return Reloaded.from_json(self.call("reload"))

    def save(self) -> Saved:
        """Write the running state into the conf; what had to change in the file."""
        with self._patient():
            return Saved.from_json(self.call("save"))

    def down(self) -> None:
        """Ask the daemon to take everything down. It has just begun when this returns."""
        try:
            self.call("down")
        except ControlError as error:
            # It may be gone before its answer is out.
            if error.code != "closed":
                raise

    def subscribe(self) -> None:
        """Turn this connection into the stream of events: from now on only `read_events` works."""
        self.call("events")

    def subscribe_keys(self) -> None:
        """Turn this connection into the stream of ephemeral keys, for `read_events` as well.

        Each `ephemeral` event has `peer`, `ephemeral_key`, `private_key` and `preshared_key`, the
        last two None if there is none. Whoever has them can read the sessions that come of them.
        """
        self.call("keys")

    def subscribe_carriers(self, filter_text: str) -> None:
        """Turn this connection into the stream of datagrams that carry packets of FILTER.

        Events `carried` have `ranges`: receiver index, first counter, number of datagrams.
        """
        self.call("carriers", filter=filter_text)

    def has_unread(self) -> bool:
        """Whether events came together with the answer to a subscription.

        `select` does not know of them. To be asked once, before the first time.
        """
        before = self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            return bool(self._file.peek())
        finally:
            self._socket.settimeout(before)

    def read_events(self) -> list[TunnelEvent]:
        """Wait for events of a subscription, and take all that have come; none at its end.

        To wait for something else too, `select` on the client first.
        """
        self._socket.settimeout(None)
        while b"\n" not in self._unread:
            data = self._file.read1(65536)
            if not data:
                return []
            self._unread += data
        *lines, rest = self._unread.split(b"\n")
        self._unread = rest
        return [event_of(json.loads(line)) for line in lines]

    def events(self) -> Iterator[TunnelEvent]:
        """Events from now on, until the daemon ends."""
        self.subscribe()
        while batch := self.read_events():
            yield from batch

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    @contextlib.contextmanager
    def _patient(self) -> Iterator[None]:
        before = self._socket.gettimeout()
        self._socket.settimeout(RELOAD_TIMEOUT)
        try:
            yield
        finally:
            self._socket.settimeout(before)
