"""Holds the descriptors of a tunnel while its daemon is not there, and starts a daemon again.

A program of its own, run by its path: python -I -S holder.py LISTENER LOG. It imports nothing of
the tunnel's: it should be small, and go on when the package is upgraded under it.

The daemon connects to a unix socket (SOCK_SEQPACKET, descriptor LISTENER). It is the process that
has the lock of the name, NAME.lock beside the socket; any other one is turned away. The holder
sends one message with all descriptors that it holds, by name; then the daemon sends messages in the
form of sd_notify(3):

    UP=x    the command that starts another daemon, its words separated by NUL
    DOWN=x  the command that undoes what was set up
    FDSTORE=1 FDNAME=x      with one descriptor: hold it; one of that name is closed
    FDSTOREREMOVE=1 FDNAME=x    close it
    READY=1                 the tunnel is up: from now on the daemon's end is a death
    RESTARTING=1            the daemon ends, and its successor connects by itself
    STOPPING=1              close everything and end; the daemon waits for the end of the connection

A daemon that ends without STOPPING=1 was killed, or has crashed: UP starts another, later after
each death in a row. After the last of `DELAYS` the tunnel is given up, and DOWN undoes what was set
up. Both append to the file LOG what they print.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import sys
import time

DELAYS = (0.0, 0.5, 1.0, 2.0, 5.0)
"""Seconds from a death to the next start, for deaths in a row."""

CALM = 60.0
"""Seconds that a daemon must be up for its death to be the first in a row again."""

PATIENCE = 10.0
"""Seconds for the successor that was announced to connect."""

SETTLE = 0.01
"""Seconds until the next look at a daemon that has closed its socket and is not gone yet."""

MAX_MESSAGE = 65536
MAX_DESCRIPTORS = 16
IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)


class Holder:
    """One tunnel's descriptors and who has them: see the module."""

    def __init__(self, listener: socket.socket, log: str) -> None:
        self._listener = listener
        self._path = listener.getsockname()
        self._lock = self._path.removesuffix(".holder") + ".lock"
        self._log = log
        self._up: list[str] = []
        self._down: list[str] = []
        self._held: dict[str, int] = {}
        self._daemon: socket.socket | None = None
        self._is_first = True
        self._child: tuple[int, int] | None = None  # its pid and a pidfd
        self._is_up = False
        self._is_announced = False
        self._up_since = 0.0
        self._deaths = 0
        self._died_at = 0.0
        self._start_at: float | None = None

    def run(self) -> None:
        """Hold on until the tunnel is down, or given up."""
        while True:
            waiting = [self._listener.fileno()]
            if self._daemon is not None:
                waiting.append(self._daemon.fileno())
            if self._child is not None:
                waiting.append(self._child[1])
            ready, _, _ = select.select(waiting, [], [], self._time_left())
            # What the old daemon has sent comes before its successor.
            if self._daemon is not None and self._daemon.fileno() in ready:
                self._receive()
            elif self._listener.fileno() in ready:
                self._accept()
            elif self._child is not None and self._child[1] in ready:
                self._reap()
            elif self._start_at is not None and time.monotonic() >= self._start_at:
                self._start()

    def _time_left(self) -> float | None:
        if self._start_at is None:
            return None
        return max(0.0, self._start_at - time.monotonic())

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, _ = struct.unpack("iII", peer)
        # The first one is of whoever has started us, and may be over: its end is ours.
        is_first, self._is_first = self._is_first, False
        if uid != os.geteuid() or not (is_first or self._is_daemon(pid)):
            connection.close()
            return
        if self._daemon is not None:
            # It has the lock of the name: what was connected before is not the daemon any more.
            self._daemon.close()
        self._daemon = connection
        self._is_announced = False
        self._start_at = None
        hello = f"PID={os.getpid()}\nDIED={self._died_at}\nFDNAMES={':'.join(self._held)}"
        with contextlib.suppress(OSError):
            socket.send_fds(connection, [hello.encode()], list(self._held.values()))

    def _is_daemon(self, pid: int) -> bool:
        """Whether the process has the lock of the name; also where that cannot be known: for one
        outside of our PID namespace, whose number is 0, and where there is no /proc.
        """
        try:
            with open("/proc/locks") as file:
                locks = [line.split() for line in file]
        except OSError:
            return True
        try:
            inode = str(os.stat(self._lock).st_ino)
        except OSError:
            return False
        return not pid or any(
            words[1:2] == ["FLOCK"] and words[4] == str(pid) and words[5].split(":")[-1] == inode
            for words in locks
        )

    def _receive(self) -> None:
        assert self._daemon is not None
        try:
            data, descriptors, _, _ = socket.recv_fds(self._daemon, MAX_MESSAGE, 1)
        except OSError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            # Not for the daemon that is started: it gets its own, and closes those.
            os.set_inheritable(descriptor, False)
        if not data:
            self._daemon.close()
            self._daemon = None
            self._handle_end()
            return
        kind, _, words = data.partition(b"=")
        if kind == b"UP":
            self._up = os.fsdecode(words).split("\0")
        elif kind == b"DOWN":
            self._down = os.fsdecode(words).split("\0")
        else:
            self._obey(data.decode(), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _obey(self, message: str, descriptors: list[int]) -> None:
        """Do as a message says; what is taken of `descriptors` is to be held."""
        fields = dict(line.split("=", 1) for line in message.splitlines() if "=" in line)
        name = fields.get("FDNAME", "")
        if "FDSTORE" in fields and descriptors and len(self._held) < MAX_DESCRIPTORS:
            self._close(name)
            self._held[name] = descriptors.pop()
        elif "FDSTOREREMOVE" in fields:
            self._close(name)
        elif "READY" in fields:
            self._is_up = True
            self._up_since = time.monotonic()
        elif "RESTARTING" in fields:
            self._is_announced = True
            self._died_at = time.clock_gettime(time.CLOCK_BOOTTIME)
        elif "STOPPING" in fields:
            self._end()

    def _close(self, name: str) -> None:
        descriptor = self._held.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def _handle_end(self) -> None:
        """The daemon is gone."""
        if self._is_announced:
            self._start_at = time.monotonic() + PATIENCE
            return
        self._died_at = time.clock_gettime(time.CLOCK_BOOTTIME)
        if self._is_up:
            self._plan_start()
        elif self._child is None:
            # The first one has not come up: whoever called it has its reason.
            self._end()

    def _plan_start(self) -> None:
        """After a death: start another daemon in a while, or give up."""
        if self._is_up and time.monotonic() - self._up_since >= CALM:
            self._deaths = 0
        self._is_up = False
        self._deaths += 1
        if self._deaths > len(DELAYS):
            self._give_up()
        self._start_at = time.monotonic() + DELAYS[self._deaths - 1]

    def _start(self) -> None:
        if self._child is not None:
            self._start_at = time.monotonic() + SETTLE  # its end is close
            return
        self._start_at = None
        self._is_announced = False
        try:
            pid = self._spawn(self._up)
        except OSError as error:
            # An upgrade replaces the program just then, perhaps.
            _note(f"cannot run {self._up[0]}: {error.strerror}")
            self._plan_start()
            return
        self._child = (pid, os.pidfd_open(pid))

    def _spawn(self, command: list[str], **variables: str) -> int:
        try:
            log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError:
            log = os.open(os.devnull, os.O_WRONLY)  # the tunnel is worth more than its log
        try:
            return os.posix_spawn(
                command[0],
                command,
                os.environ | variables,
                file_actions=[(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)],
                setsid=True,
                setsigdef=IGNORED,
            )
        finally:
            os.close(log)

    def _reap(self) -> None:
        """A daemon that was started here has ended."""
        assert self._child is not None
        pid, descriptor = self._child
        os.close(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code < 0:
            _note(f"the daemon, process {pid}, was ended by signal {-code}")
        self._child = None
        if self._daemon is None and self._start_at is None:
            # It has never connected: its conf has a mistake, perhaps.
            self._plan_start()

    def _give_up(self) -> None:
        _note(
            f"the daemon has ended {self._deaths} times in a row: no other one is started, and the "
            "tunnel is taken down; tunnel up starts it again"
        )
        self._release()
        # As systemd says of a service that has failed: a kill switch stays.
        try:
            os.waitpid(self._spawn(self._down, SERVICE_RESULT="exit-code"), 0)
        except OSError as error:
            _note(f"cannot run {self._down[0]}: {error.strerror}")
        sys.exit(1)

    def _end(self) -> None:
        self._release()
        sys.exit(0)

    def _release(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        self._listener.close()
        for name in list(self._held):
            self._close(name)
        # Last: that is what the other end waits for.
        if self._daemon is not None:
            self._daemon.close()


def _note(text: str) -> None:
    """Write a line into the log, which is our standard error, in the form of the daemon's."""
    line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} error: {text}\n"
    with contextlib.suppress(OSError):  # the tunnel is worth more than its log
        os.write(2, line.encode(errors="surrogateescape"))


def main() -> None:
    """Run by the daemon that starts first."""
    _, number, log = sys.argv
    os.chdir("/")
    os.set_inheritable(int(number), False)
    for ignored in IGNORED:
        signal.signal(ignored, signal.SIG_IGN)
    Holder(socket.socket(fileno=int(number)), log).run()


if __name__ == "__main__":
    main()
