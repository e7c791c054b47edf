"""Who keeps the descriptors of a tunnel when its daemon ends, seen from the daemon.

The TUN device lives as long as one descriptor of it is open, with its addresses and routes; the UDP
sockets have the port and what arrives meanwhile. systemd keeps descriptors in its file descriptor
store (FileDescriptorStoreMax=), for a daemon of `tunnel up` a small process does, holder.py. Both
take the same messages, those of sd_notify(3).
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path

import trio

from tunnel.control.run_folder import holder_path
from tunnel.daemon import sd_job
from tunnel.daemon.sd_notify import Notifier
from tunnel.errors import DaemonError
from tunnel.linux.files import open_plain

log = logging.getLogger("tunnel")

FIRST_DESCRIPTOR = 3
"""SD_LISTEN_FDS_START: the number of the first that systemd passes on."""

HELLO_TIME = 5.0
"""Seconds for a holder to say what it has, and to end when it should."""

BARRIER_TIME = 2.0
"""Seconds for a keeper to close what it was sent."""

CALM = 60.0
"""Seconds that a holder must live for the next one to be started at once, and the longest pause."""

BACKLOG = 8

_PROGRAM = Path(__file__).with_name("holder.py")


class Keeper:
    """Keeps nothing: for daemons that are not to outlive themselves.

    `found` are the descriptors that were kept for this daemon, by name, until it takes them.
    `died_at` is when the daemon before ended, in seconds of CLOCK_BOOTTIME, 0.0 if that is not
    known. `pid` is the holder's process, 0 if there is none, and `lost` how many holders have ended
    while the daemon went on.
    """

    keeps = False

    def __init__(self) -> None:
        self.found: dict[str, int] = {}
        self.died_at = 0.0
        self.pid = 0
        self.lost = 0
        self._kept: dict[str, tuple[int, int]] = {}

    def keep(self, wanted: Mapping[str, int]) -> None:
        """Have these descriptors kept, by name, and no others."""
        files = {name: _file(descriptor) for name, descriptor in wanted.items()}
        for name in [name for name, file in self._kept.items() if files.get(name) != file]:
            self._send("FDSTOREREMOVE=1", f"FDNAME={name}")
            del self._kept[name]
        for name, file in files.items() if self.keeps else ():
            if name not in self._kept:
                # A device that is down for a moment is no reason to drop it: FDPOLL.
                self._send("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", descriptors=(wanted[name],))
                self._kept[name] = file

    def take(self) -> dict[str, int]:
        """What was kept, the caller's to close from now on; it stays kept, too."""
        found, self.found = self.found, {}
        self._kept |= {name: _file(descriptor) for name, descriptor in found.items()}
        return found

    def ready(self) -> None:
        """The tunnel is up: if this daemon dies now, another one should follow."""

    def hand_over(self) -> None:
        """This daemon ends, and its successor comes."""

    def is_restarting(self) -> bool:
        """Whether the signal to end means that a successor comes. Blocks."""
        return False

    def is_keeping(self) -> bool:
        """Whether anything is kept now."""
        return self.keeps and bool(self._kept)

    def drop(self) -> None:
        """Keep nothing of what was kept so far, which is closed on return. Blocks."""
        if not self._kept:
            return
        self.keep({})
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            # Whoever keeps our descriptors closes this one when it comes to the message.
            self._send("BARRIER=1", descriptors=(writing,))
            os.close(writing)
            poll = select.poll()
            poll.register(reading, 0)
            poll.poll(BARRIER_TIME * 1000)
        finally:
            os.close(reading)

    def release(self) -> None:
        """Give everything up, as the tunnel goes down: all of it is closed on return. Blocks."""
        for descriptor in self.take().values():
            os.close(descriptor)
        self.drop()

    def close(self) -> None:
        """This daemon ends; idempotent."""

    async def watch(self, keep_again: Callable[[], None]) -> None:
        """Until cancelled: where nothing is kept any more, find another keeper, and call
        `keep_again`, which is to keep everything.
        """

    def _send(self, *lines: str, descriptors: Sequence[int] = ()) -> None:
        raise NotImplementedError


class SystemdStore(Keeper):
    """The file descriptor store of the service that this process is. `found` as systemd passed them
    on, by the variables LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES of `environment`, which are
    removed.
    """

    keeps = True

    def __init__(
        self, notifier: Notifier, environment: MutableMapping[str, str] = os.environ
    ) -> None:
        super().__init__()
        self._notifier = notifier
        pid = environment.pop("LISTEN_PID", "")
        count = environment.pop("LISTEN_FDS", "")
        names = environment.pop("LISTEN_FDNAMES", "").split(":")
        if pid != str(os.getpid()) or not count.isdecimal():
            return
        for number, name in zip(range(int(count)), names, strict=False):
            descriptor = FIRST_DESCRIPTOR + number
            os.set_inheritable(descriptor, False)
            if name in self.found:
                os.close(self.found[name])
            self.found[name] = descriptor

    def is_restarting(self) -> bool:
        """See Keeper."""
        return sd_job.is_restarting()

    def _send(self, *lines: str, descriptors: Sequence[int] = ()) -> None:
        self._notifier.send(*lines, descriptors=descriptors)


class HolderProcess(Keeper):
    """The connection to the holder of the tunnel `name`; see holder.py. `log_file` is what another
    holder would log to.
    """

    def __init__(self, name: str, connection: socket.socket, log_file: Path) -> None:
        super().__init__()
        self._name = name
        self._connection = connection
        self._log_file = log_file
        self._commands: tuple[Sequence[str], Sequence[str]] = (), ()
        self.keeps = True
        # `release` runs in another thread than `watch`, which must not take its end for another.
        self._changing = threading.Lock()
        self._released = threading.Event()

    @classmethod
    def of(cls, name: str, log_file: Path = Path(os.devnull)) -> HolderProcess | None:
        """The one that holds the descriptors of the tunnel `name`; None if there is none. Blocks.

        For a caller that has the lock of the name. Raises DaemonError if it is there and does not
        answer: then it still holds the interface.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        connection.settimeout(HELLO_TIME)
        try:
            connection.connect(str(holder_path(name)))
            keeper = cls(name, connection, log_file)
            keeper._hear()
        except TimeoutError:
            connection.close()
            raise DaemonError(
                f"the holder of {name} does not answer, and it has the interface: let it go on by "
                f"kill -CONT PID, or end it by kill -9 PID, then try again; "
                f"ss -xlp src {holder_path(name)} shows its PID"
            ) from None
        except OSError:
            connection.close()
            return None
        return keeper

    @classmethod
    def start(cls, name: str, log_file: Path) -> HolderProcess:
        """A new one. Does not wait for it.

        Raises OSError, also if `log_file` is no plain file.
        """
        connection, pid = _start(name, log_file)
        keeper = cls(name, connection, log_file)
        keeper.pid = pid
        return keeper

    def replaced(self) -> HolderProcess:
        """A new one that holds the same, in the place of this one, which ends. Blocks.

        Raises OSError; then no one holds anything.
        """
        found, self.found = self.found, {}
        self.release()
        try:
            keeper = self.start(self._name, self._log_file)
        except OSError:
            for descriptor in found.values():
                os.close(descriptor)
            raise
        keeper.keep(found)
        keeper.found, keeper.died_at = found, self.died_at
        return keeper

    def _hear(self) -> None:
        """Take the holder's first message. Raises OSError."""
        data, descriptors, _, _ = socket.recv_fds(self._connection, 4096, 16)
        if not data:
            raise ConnectionResetError  # it ends
        fields = dict(line.split("=", 1) for line in data.decode().splitlines())
        names = [name for name in fields["FDNAMES"].split(":") if name]
        self.found = dict(zip(names, descriptors, strict=True))
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self.pid, self.died_at = int(fields["PID"]), float(fields["DIED"])

    def set_commands(self, up: Sequence[str], down: Sequence[str]) -> None:
        """What starts the daemon after this one, and what undoes everything."""
        self._commands = up, down
        self._send("UP=" + "\0".join(up))
        self._send("DOWN=" + "\0".join(down))

    def ready(self) -> None:
        """See Keeper."""
        self._send("READY=1")

    def hand_over(self) -> None:
        """See Keeper."""
        self._send("RESTARTING=1")

    def release(self) -> None:
        """Have the holder close everything and end. One that does not is ended. Blocks."""
        for descriptor in self.found.values():
            os.close(descriptor)
        self.found, self._kept = {}, {}
        with self._changing:
            self._released.set()
        if not self.keeps:
            return
        try:
            self._connection.settimeout(HELLO_TIME)
            self._send("STOPPING=1")
            while self._connection.recv(4096):
                pass  # its first message, which a daemon that has started it does not wait for
        except ConnectionError:
            pass
        except OSError:
            log.warning("the holder, process %d, does not end: it is killed", self.pid)
            if self.pid:  # 0 would be all of us
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """See Keeper."""
        self.keeps = False
        self._connection.close()

    async def watch(self, keep_again: Callable[[], None]) -> None:
        """See Keeper. One that ends soon again and again is started later and later."""
        pause = 0.0
        while self.keeps:
            begun = trio.current_time()
            await self._wait_end()
            with self._changing:
                if self._released.is_set() or self._connection.fileno() < 0:
                    return  # we end it, or have ended it
                self._connection.close()
                self.keeps = False
                self._kept = {}
                self.lost += 1
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
            ended, self.pid = self.pid, 0
            if trio.current_time() - begun >= CALM:
                pause = 0.0
            await trio.sleep(pause)
            pause = min(max(1.0, 2 * pause), CALM)
            with self._changing:
                if self._released.is_set():
                    return
                try:
                    self._connection, self.pid = _start(self._name, self._log_file)
                except OSError as error:
                    log.warning(
                        "the holder, process %d, has ended: a restart will interrupt the tunnel, "
                        "for no other one can be started: %s",
                        ended,
                        error,
                    )
                    return
                self.keeps = True
            log.warning(
                "the holder, process %d, has ended; process %d takes its place", ended, self.pid
            )
            self.set_commands(*self._commands)
            keep_again()
            self.ready()

    async def _wait_end(self) -> None:
        """Return when the connection has ended."""
        while True:
            await trio.lowlevel.wait_readable(self._connection)
            try:
                if not self._connection.recv(4096, socket.MSG_DONTWAIT):
                    return
            except BlockingIOError:
                continue
            except OSError:
                return

    def _send(self, *lines: str, descriptors: Sequence[int] = ()) -> None:
        message = os.fsencode("\n".join(lines))
        try:
            if descriptors:
                socket.send_fds(self._connection, [message], descriptors)
            else:
                self._connection.send(message)
        except OSError as error:
            log.debug("the holder cannot be reached: %s", error.strerror)


def _start(name: str, log_file: Path) -> tuple[socket.socket, int]:
    """Start a holder: the connection to it, and its process id. Raises OSError."""
    path = holder_path(name)
    path.unlink(missing_ok=True)
    log_fd = open_plain(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        try:
            previous = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(previous)
            listener.listen(BACKLOG)
            connection.settimeout(HELLO_TIME)
            connection.connect(str(path))
            words = [str(_PROGRAM), str(FIRST_DESCRIPTOR), str(log_file)]
            command = [sys.executable, "-I", "-S", *words]
            pid = os.posix_spawn(
                command[0],
                command,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    # Before the other, in whose place the log may be.
                    (os.POSIX_SPAWN_DUP2, log_fd, 2),
                    (os.POSIX_SPAWN_DUP2, listener.fileno(), FIRST_DESCRIPTOR),
                ],
                setsid=True,
            )
        except BaseException:
            connection.close()
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(log_fd)
    return connection, pid


def _file(descriptor: int) -> tuple[int, int]:
    """A descriptor and its inode: a later file may get the number of one that was closed."""
    return descriptor, os.fstat(descriptor).st_ino


def dismiss(name: str) -> bool:
    """End the holder of a tunnel whose daemon is gone, for a caller that has the lock; whether
    there was one. What it held is closed then. Raises DaemonError if it does not answer. Blocks.
    """
    path = holder_path(name)
    if not path.is_socket():
        return False
    keeper = HolderProcess.of(name)
    if keeper is not None:
        keeper.release()
    path.unlink(missing_ok=True)
    return True
