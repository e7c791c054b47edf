"""Report the daemon's state to systemd: sd_notify(3), without libsystemd.

The service manager names a datagram socket in $NOTIFY_SOCKET: a path, or an abstract name that
begins with `@`. A message is lines of KEY=VALUE in one datagram. Without that variable nothing is
sent, so that a daemon need not know what started it.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, MutableMapping, Sequence

import trio

from tunnel.log.redact import printable, redact

log = logging.getLogger("tunnel")

MAX_STATUS = 1024
"""Characters of a status text; it is one line of `systemctl status`."""

PATIENCE = 0.5
"""Seconds to wait for a service manager whose queue is full; packets wait as long."""

STUCK_AFTER = 20.0
"""Seconds by which the engine may be late with what is due; it wakes up every 10 s at least."""


class Notifier:
    """Messages to the service manager. `socket_name` as in $NOTIFY_SOCKET, "" if there is none.

    `watchdog_seconds` is the time after which the service manager ends a silent daemon, 0.0 if it
    has no watchdog. A message that cannot be delivered is logged, once, and never stops a tunnel.
    """

    def __init__(self, socket_name: str = "", watchdog_seconds: float = 0.0) -> None:
        self.socket_name = socket_name
        self.watchdog_seconds = watchdog_seconds
        self._complained = False

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Notifier:
        """The one that $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID describe.

        The variables are removed: a hook's program must not send messages in the daemon's name.
        """
        name = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", "")
        if name and name[0] not in "/@":
            log.warning("NOTIFY_SOCKET is %r, expected a path or @name: ignored", name)
            name = ""
        meant = not pid or pid == str(os.getpid())
        watched = meant and microseconds.isascii() and microseconds.isdecimal()
        return cls(name, int(microseconds) / 1e6 if name and watched else 0.0)

    def ready(self, status: str = "") -> None:
        """The tunnel is up, or a reload has ended, well or not."""
        self.send("READY=1", f"MAINPID={os.getpid()}", *_status(status))

    def reloading(self, status: str = "") -> None:
        """A reload begins; `ready` is to follow."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.send("RELOADING=1", f"MONOTONIC_USEC={now}", *_status(status))

    def stopping(self, status: str = "") -> None:
        """The tunnel is going down."""
        self.send("STOPPING=1", *_status(status))

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self.send(*_status(text))

    async def watchdog(self, is_alive: Callable[[], bool]) -> None:
        """Feed the watchdog twice in its time, as long as `is_alive` is true.

        Runs until cancelled; returns at once without a watchdog. It is a task of the event loop,
        and so is silent too when that hangs.
        """
        if not self.watchdog_seconds:
            return
        well = True
        while True:
            if is_alive():
                self.send("WATCHDOG=1")
                well = True
            elif well:
                log.error("packets have stopped flowing: the watchdog is no longer notified")
                well = False
            await trio.sleep(self.watchdog_seconds / 2)

    def send(self, *lines: str, descriptors: Sequence[int] = ()) -> None:
        """Send a message of these lines, and with it copies of the descriptors."""
        if not self.socket_name or not lines:
            return
        name = self.socket_name
        address = "\0" + name[1:] if name[0] == "@" else name
        try:
            # A new socket each time: the manager may be restarted, and this is never on a hot path.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(PATIENCE)
                sender.connect(address)
                message = "\n".join(lines).encode(errors="replace")
                if descriptors:
                    socket.send_fds(sender, [message], descriptors)
                else:
                    sender.send(message)
        except OSError as error:
            if not self._complained:
                log.warning("the service manager cannot be notified: %s", error.strerror or error)
                self._complained = True


class Pulse:
    """Whether an engine still does what is due, checked now and then from outside."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pending: float | None = None
        self._since = 0.0

    def beats(self, deadline: float | None, now: float) -> bool:
        """False once the same `deadline` has been in the past for STUCK_AFTER.

        `deadline` is the engine's next one and `now` its clock's time. How far in the past it is
        does not matter: after a suspended night all deadlines are, by hours, for a few seconds.
        """
        if deadline is None or deadline > now:
            self._pending = None
            return True
        if deadline != self._pending:
            self._pending, self._since = deadline, self._clock()
        return self._clock() - self._since < STUCK_AFTER


def _status(text: str) -> tuple[str, ...]:
    # Every user of the machine may read it.
    return (f"STATUS={printable(redact(text))[:MAX_STATUS]}",) if text else ()
