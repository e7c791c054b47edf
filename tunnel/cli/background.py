"""`tunnel up` without `--foreground`: a daemon of its own session, and word of when it is ready.

The parent forks once it has loaded all that the child needs. The child writes `ready` to a pipe
once packets can flow, or the reason why they never will. Until then its warnings come by the pipe
too, so that a user who waits knows what for. Its log is a file of bounded size: /run is memory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn, Self

from tunnel.errors import TunnelError
from tunnel.linux.files import RUN_FOLDER
from tunnel.log import output, redact

READY = b"ready\n"

NOTE = b"\x01"
"""How a line begins that comes before the outcome; no text of ours has it."""

MAX_NOTE = 2000
"""Bytes of one, so that it is written whole: a pipe promises that for 4096."""

MAX_REASON = 60_000
"""Bytes that surely fit the pipe, so that the child never waits."""


class StartError(TunnelError):
    """The daemon did not come up; the text is its own reason."""

    code = "start"


class Readiness:
    """The child's end of the pipe; `fd` -1 means that no parent waits."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._notes: _Notes | None = None
        if fd >= 0:
            self._notes = _Notes(fd)
            logging.getLogger("tunnel").addHandler(self._notes)

    def ready(self) -> None:
        """Report to the parent that packets can flow, and leave the folder of the caller."""
        if self._fd >= 0:
            os.chdir("/")
            self._send(READY)

    def failed(self, reason: str) -> bool:
        """Report to the parent that it will not come up; whether there was one to hear it."""
        return self._fd >= 0 and self._send(reason.encode(errors="replace")[:MAX_REASON])

    def _send(self, data: bytes) -> bool:
        # The parent may have been ended: the tunnel does not depend on it.
        try:
            os.write(self._fd, data)
        except BrokenPipeError:
            return False
        finally:
            self._close()
        return True

    def _close(self) -> None:
        if self._notes is not None:
            logging.getLogger("tunnel").removeHandler(self._notes)
            self._notes = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._close()


class _Notes(logging.Handler):
    """Warnings of the log for the parent, one a line."""

    def __init__(self, fd: int) -> None:
        super().__init__(logging.WARNING)
        self._fd = fd
        self._form = output.LineFormatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one to the pipe. A parent that is gone needs none."""
        text = redact.printable(self._form.text(record)).encode(errors="replace")
        with contextlib.suppress(OSError):
            os.write(self._fd, NOTE + text[:MAX_NOTE] + b"\n")


def log_path(name: str) -> Path:
    """Where a daemon in the background logs to."""
    return RUN_FOLDER / f"{name}.log"


def start(
    name: str,
    serve: Callable[[Readiness, Path], int],
    *,
    note: Callable[[str], None] = print,
    is_stoppable: bool = True,
) -> int:
    """Run `serve` in a daemon and wait until it is ready; the daemon's process id.

    The daemon is a fork of this process: all that is imported is there already. `serve` gets what
    it has to report to and the path of its log, /run/tunnel/NAME.log, and gives back the exit
    status; `note` is called with each warning while it comes up. With `is_stoppable`, ^C has it
    undo what it has done so far. To be called while there is one thread. Raises StartError.
    """
    path = log_path(name)
    reading, writing = os.pipe()
    # What is still in their buffers must not be written twice.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    try:
        child = os.fork()
    except OSError as error:
        os.close(reading)
        raise StartError(f"cannot start the daemon: {error.strerror}") from error
    else:
        if not child:
            _be_daemon(writing, path, serve)
    finally:
        os.close(writing)
    with open(reading, "rb") as pipe:
        said = _read_and_stop(child, pipe, note) if is_stoppable else _read(pipe, note)
    if said == READY:
        return child
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    reason = said.decode(errors="replace").strip()
    if not reason and status == -signal.SIGTERM:
        reason = f"{name} was stopped while starting"
    raise StartError(reason or f"the daemon ended with status {status}; see {path}")


def _read_and_stop(child: int, pipe: IO[bytes], note: Callable[[str], None]) -> bytes:
    """`_read`, and on ^C ask the daemon to undo what it has done so far; a second ^C is raised."""
    try:
        return _read(pipe, note)
    except KeyboardInterrupt:
        note("stopping; undoing what was set up so far")
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
        return _read(pipe, note)


def _read(pipe: IO[bytes], note: Callable[[str], None]) -> bytes:
    """The outcome; the notes on the way go to `note` as they come."""
    outcome = b""
    for line in pipe:
        if line.startswith(NOTE):
            note(line[len(NOTE) :].decode(errors="replace").rstrip("\n"))
        else:
            outcome += line
    return outcome


def _be_daemon(writing: int, path: Path, serve: Callable[[Readiness, Path], int]) -> NoReturn:
    """The child's whole life: own session, no terminal, none of the caller's descriptors.

    But standard error, which becomes the log once that is opened.
    """
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.closerange(3, writing)
        os.closerange(writing + 1, os.sysconf("SC_OPEN_MAX"))
        status = serve(Readiness(writing), path)
    except BaseException:
        traceback.print_exc()
    finally:
        # Nothing of the caller's is tidied up here: the parent does that.
        os._exit(status)
