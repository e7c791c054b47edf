"""The typed client of a daemon's control socket. docs/control.md describes what it speaks.

with TunnelClient("wg0") as client:
    print(client.status().listen_port)
    for change in client.diff().changes:
        print(change)

for event in follow("wg0"):
    print(event.type, event.details)
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

from tunnel.control.json_client import (
    Dialogue,
    NotRunningError,
    closed_error,
    connect_error,
    silence_error,
)
from tunnel.control.json_protocol import ControlError
from tunnel.control.messages.changes import Attached, ReloadResult, SaveResult
from tunnel.control.messages.events import TunnelEvent
from tunnel.control.messages.status import TunnelStatus
from tunnel.control.run_folder import has_holder, holder_path, socket_path
from tunnel.linux.processes import peer_pid

RELOAD_TIMEOUT = 120.0
"""Seconds: names may have to be looked up, and hosts be slow."""

PING_TIMEOUT = 3.0
"""Seconds for an answer to `ping`: a daemon works in slices of a millisecond."""

SUCCESSOR_TIME = 30.0
"""Seconds for another daemon to come after one: a holder starts up to five, in 9 seconds."""

SERVICE_TIME = 5.0
"""Seconds for systemd to start another daemon: it does so after half a second."""

_CONNECT_AGAIN = 0.02
"""Seconds between two attempts to connect."""


class Ended(NamedTuple):
    """What went wrong while a tunnel went down, and what else there is to know of it, in words."""

    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class TunnelClient:
    """One connection to the daemon of an interface; use as a context manager. Blocks.

    Every method raises ControlError when the daemon refuses (`code` is one word for the reason),
    and NotRunningError when there is none. `timeout` is in seconds and bounds each request.
    """

    def __init__(self, name: str, *, timeout: float = 10.0) -> None:
        self.name = name
        self._timeout = timeout
        self._dialogue = Dialogue()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            _connect(self._socket, str(socket_path(name)), timeout)
        except OSError as error:
            self._socket.close()
            raise connect_error(name, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._socket.close()

    def call(self, method: str, *, timeout: float | None = None, **params: Any) -> Any:
        """Send one request and return its result, as JSON has it."""
        self._socket.settimeout(timeout or self._timeout)
        try:
            self._socket.sendall(self._dialogue.request(method, params))
            has_line = self._receive_line()
        except TimeoutError:
            raise silence_error(self.name, self.peer_pid()) from None
        except (BrokenPipeError, ConnectionResetError):
            has_line = False
        if not has_line:
            raise closed_error(self.name)
        return self._dialogue.take_result()

    def _receive_line(self) -> bool:
        """Whether another line comes before the end."""
        while not self._dialogue.has_line():
            data = self._socket.recv(65536)
            if not data:
                return False
            self._dialogue.feed(data)
        return True

    def ping(self) -> None:
        """Have an answer at once, before a request that may take its time."""
        try:
            self.call("ping", timeout=PING_TIMEOUT)
        except ControlError as error:
            # The daemon of a version before this method is alive as well.
            if error.code != "unknown_method":
                raise

    def status(self, *, secrets: bool = False, paths: bool = False) -> TunnelStatus:
        """The tunnel now. With `secrets`, all keys too; with `paths`, path MTUs too."""
        return TunnelStatus.from_json(self.call("status", secrets=secrets, paths=paths))

    def diff(self, *, timeout: float = RELOAD_TIMEOUT) -> ReloadResult:
        """What `reload` would do. Changes nothing."""
        self.ping()
        return ReloadResult.from_json(self.call("diff", timeout=timeout))

    def reload(self) -> ReloadResult:
        """Make the tunnel equal to its conf; a refusal has left everything as it was."""
        self.ping()
        return ReloadResult.from_json(self.call("reload", timeout=RELOAD_TIMEOUT))

    def attach(self, kind: str, target: str, docker_host: str = "") -> Attached:
        """Have the interface in a `container`, or where a `pid` or `netns` is."""
        self.ping()
        params = {"kind": kind, "target": target, "docker_host": docker_host}
        return Attached.from_json(self.call("attach", timeout=RELOAD_TIMEOUT, **params))

    def detach(self) -> Attached:
        """Bring the interface back; from what."""
        self.ping()
        return Attached.from_json(self.call("detach", timeout=RELOAD_TIMEOUT))

    def save(self) -> SaveResult:
        """Write the running state into the conf; what had to change in the file."""
        self.ping()
        return SaveResult.from_json(self.call("save", timeout=RELOAD_TIMEOUT))

    def down(self, *, stays_shut: bool = False) -> Ended:
        """Ask the daemon to take everything down, and wait for its end; what is to be known.

        With `stays_shut` all but its kill switch.
        Takes as long as its hooks do.
        """
        self.ping()
        with contextlib.suppress(NotRunningError), TunnelClient(self.name) as watcher:
            is_watching = True
            try:
                watcher.subscribe()
            except ControlError as error:
                if error.code != "busy":
                    raise
                is_watching = False
            try:
                self.call("down", stays_shut=stays_shut)
            except ControlError as error:
                # It may be gone before its answer is out.
                if error.code != "closed":
                    raise
            if not is_watching:
                self._wait_ended()
                return Ended(
                    ("too many streams were open to follow it: see the log for what failed",)
                )
            while events := watcher.read_events():
                for event in events:
                    if event.type == "down":
                        details = event.details
                        return Ended(
                            tuple(details.get("failures", ())), tuple(details.get("notes", ()))
                        )
        return Ended()

    def _wait_ended(self) -> None:
        """Wait until no daemon answers any more."""
        with contextlib.suppress(NotRunningError):
            while True:
                time.sleep(0.1)
                TunnelClient(self.name).close()

    def hand_over(self) -> bool:
        """Have the daemon end and leave everything to another one; whether it does."""
        self.ping()
        try:
            return bool(self.call("hand_over"))
        except ControlError as error:
            # It may be gone before its answer is out.
            if error.code != "closed":
                raise
            return True

    def subscribe(self, *, again: bool = False) -> None:
        """Turn this connection into the stream of events: from now on only `read_events` works.

        With `again`, it begins with the event by which this daemon has begun.
        """
        self.call("events", **({"again": True} if again else {}))

    def subscribe_keys(self) -> None:
        """Turn this connection into the stream of ephemeral keys, for `read_events` as well.

        Each `ephemeral` event has `peer`, `ephemeral_key`, `private_key` and `preshared_key`, the
        last two None if there is none. With them, anyone can read the sessions that come of them.
        """
        self.call("keys")

    def subscribe_carriers(self, filter_text: str) -> None:
        """Turn this connection into the stream of datagrams that carry packets of FILTER.

        Events `carried` have `ranges`: receiver index, first counter, number of datagrams.
        """
        self.call("carriers", filter=filter_text)

    def has_unread(self) -> bool:
        """Whether events came together with the answer to a subscription.

        `select` does not know of them, so look once before the first time.
        """
        return self._dialogue.has_line()

    def read_events(self) -> list[TunnelEvent]:
        """Wait for events of a subscription, and take all that have come; none at its end.

        To wait for something else too, `select` on the client first. Raises ControlError if the
        stream has failed, once the events before that were taken.
        """
        self._socket.settimeout(None)
        with contextlib.suppress(ConnectionResetError):
            self._receive_line()
        return self._dialogue.take_events()

    def events(self) -> Iterator[TunnelEvent]:
        """Events from this call on, until the daemon ends; it returns once they are subscribed."""
        self.subscribe()
        return itertools.chain.from_iterable(iter(self.read_events, []))

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def peer_pid(self) -> int:
        """The daemon's process id."""
        return peer_pid(self._socket)


def follow(
    name: str, waiting: Callable[[bool], None] = lambda announced: None
) -> Iterator[TunnelEvent]:
    """The events of a tunnel from this call on, whichever daemon it has: until it goes down.

    After a restart, or a kill that another daemon follows, they go on with that one's `restarted`;
    `waiting` is called first, with whether the end of the daemon was announced by `down`. It is
    subscribed on return. Raises ControlError, later too: NotRunningError where no other one comes.
    """
    client = TunnelClient(name)
    try:
        is_kept = _is_kept(client)
        client.subscribe()
    except BaseException:
        client.close()
        raise
    return _followed(client, is_kept, waiting)


def _followed(
    client: TunnelClient, is_kept: bool, waiting: Callable[[bool], None]
) -> Iterator[TunnelEvent]:
    while True:
        last = None
        with client:
            pid = client.peer_pid()
            for last in itertools.chain.from_iterable(iter(client.read_events, [])):
                yield last
        announced = last is not None and last.type == "down"
        if last is not None and announced and not last.details.get("restarting"):
            return
        if not announced and not is_kept and not has_holder(client.name):
            raise NotRunningError(client.name)
        waiting(announced)
        client, is_kept = _next_daemon(client.name, pid, announced=announced), True


def _next_daemon(name: str, before: int, *, announced: bool) -> TunnelClient:
    """The events of the daemon that comes after the process `before`. Raises NotRunningError.

    If its end was not announced, a holder starts the next one, as long as that is there, or systemd
    does, soon.
    """
    had_holder = has_holder(name)
    ends = time.monotonic() + (SUCCESSOR_TIME if announced or had_holder else SERVICE_TIME)
    while True:
        with contextlib.suppress(ControlError), contextlib.ExitStack() as stack:
            client = stack.enter_context(TunnelClient(name))
            if client.peer_pid() != before:
                client.subscribe(again=True)
                stack.pop_all()
                return client
        # It takes its socket away; to ask it each time would only hold it up.
        is_given_up = not announced and had_holder and not holder_path(name).is_socket()
        if is_given_up or time.monotonic() >= ends:
            raise NotRunningError(name)
        time.sleep(_CONNECT_AGAIN)


def _is_kept(client: TunnelClient) -> bool:
    """Whether another daemon follows this one when it is killed; False if it is not up yet."""
    try:
        return client.status().is_kept
    except ControlError as error:
        if error.code != "state":
            raise
        return False


def _connect(sock: socket.socket, path: str, timeout: float) -> None:
    """Connect within `timeout` seconds. Raises OSError; BlockingIOError when they are over.

    While the kernel holds as many connections as it may, it refuses further ones at once.
    """
    ends = time.monotonic() + timeout
    while True:
        try:
            return sock.connect(path)
        except BlockingIOError:
            if time.monotonic() >= ends:
                raise
        time.sleep(_CONNECT_AGAIN)
