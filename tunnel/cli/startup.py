"""What every command needs of its process, whatever started it: cron, a container, a shell."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn, Self

_FORWARDED = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)

_given_path: str | None = os.environ.get("PATH")


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Make up for what the process lacks, and let a reader that has gone be no defect."""
    global _given_path
    _open_standard_streams()
    _given_path = os.environ.get("PATH")
    os.environ["PATH"] = with_admin_folders(os.environ.get("PATH", os.defpath))
    if os.getpid() == 1:
        _become_init()
    if type(sys.stdout) is io.TextIOWrapper:
        sys.stdout = _Output.taking_over(sys.stdout)
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        _flush()
    except SystemExit:
        _flush()
        raise
    except BrokenPipeError:
        _discard_output()
        sys.exit(1)
    except OutputError as error:
        _end_without(error)
    except KeyboardInterrupt:  # while modules are loaded: a command sees to its own
        sys.exit(128 + signal.SIGINT)
    except BaseExceptionGroup as group:  # the same out of tasks
        if group.split(KeyboardInterrupt)[1] is not None:
            raise
        sys.exit(128 + signal.SIGINT)


class OutputError(OSError):
    """Standard output could not be written: a full disk, for instance."""


class _Output(io.TextIOWrapper):
    """Standard output whose failures can be told from those of other files.

    `lost` is the last of them: some libraries pass over what they could not print.
    """

    lost: OutputError | None = None

    @classmethod
    def taking_over(cls, other: io.TextIOWrapper) -> Self:
        form = (other.encoding, other.errors, None, other.line_buffering, other.write_through)
        return cls(other.detach(), *form)

    def write(self, text: str) -> int:
        with self._failures_named():
            return super().write(text)

    def flush(self) -> None:
        with self._failures_named():
            super().flush()

    @contextlib.contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            self.lost = OutputError(error.errno, error.strerror)
            raise self.lost from error


def _flush() -> None:
    """Write what still waits. A command that has closed standard output has written everything."""
    try:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    except OutputError:
        pass
    if isinstance(sys.stdout, _Output) and sys.stdout.lost is not None:
        _end_without(sys.stdout.lost)


def _end_without(error: OutputError) -> NoReturn:
    _discard_output()
    program = Path(sys.argv[0]).name.replace("__main__.py", "tunnel")
    sys.stderr.write(f"{program}: cannot write the output: {error.strerror}\n")
    sys.exit(1)


def given_environment() -> dict[str, str]:
    """The environment that we were started with, for a command that is to have no other."""
    environment = dict(os.environ)
    if _given_path is None:
        environment.pop("PATH", None)
    else:
        environment["PATH"] = _given_path
    return environment


def with_admin_folders(path: str) -> str:
    """A PATH with the `sbin` beside each `bin` of it: cron leaves out where nft and ip may be."""
    folders = path.split(os.pathsep)
    beside = [folder.removesuffix("bin") + "sbin" for folder in folders if folder.endswith("/bin")]
    return os.pathsep.join(dict.fromkeys([*folders, *beside]))


def _open_standard_streams() -> None:
    """Without them, the next file that is opened would be standard output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free: this one.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
    # sys.stdout stays None: a command whose result is lost has to say so.
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _discard_output() -> None:
    """What is still to be written has no reader; Python would complain of it at the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _become_init() -> None:
    """As PID 1 of a container: go on in a child, while this process waits for orphans.

    Else what hooks leave behind would be zombies, and the kernel gives PID 1 no default actions of
    signals. Returns in the child.
    """
    # Held back until there is somewhere to send them.
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_FORWARDED, signal.SIGINT))
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_FORWARDED, signal.SIGINT))
        return

    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    # A terminal sends ^C to the child as well.
    signal.signal(signal.SIGINT, signal.SIG_IGN if os.isatty(0) else forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_FORWARDED, signal.SIGINT))
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            # As a shell reports a signal.
            os._exit(128 - code if code < 0 else code)
