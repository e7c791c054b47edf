"""The command: started in the namespaces of the process inside, and followed as a shell would.

It is forked as our own child before there is a thread, waits for the tunnel, enters the namespaces
and becomes the command. Terminal, process group, environment, folder and descriptors are ours, so
what the terminal sends (^C, ^Z, a hang-up) reaches it by itself. Signals that another process sends
to us are passed on. When it stops, we stop, so that the shell that started us takes the terminal
back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import socket
import stat
import struct
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

import trio

from tunnel.containers import messages
from tunnel.linux import kernel
from tunnel.linux.namespaces import end_with_parent, signal_descriptor
from tunnel.linux.netns import enter

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes of a shell for a command that is not there, or cannot be run."""

SIGNALLED = 128
"""Exit codes above name, as a shell's do, the signal that ended a command."""

_OWN_FAULTS: Final = {
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGSYS,
}
_FOLLOWED: Final = (
    signal.valid_signals() - _OWN_FAULTS - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}
)
_SIGINFO: Final = struct.Struct("=Iii116x")  # signal, error number, code of struct signalfd_siginfo
_SI_KERNEL: Final = 0x80  # asm-generic/siginfo.h: of the terminal, for one

# Python ignores these, and a command expects them as they are by default.
_RESTORED: Final = (signal.SIGPIPE, signal.SIGXFSZ)


class Namespaces:
    """Namespaces that a process is in, by its `pid`: those of `kinds` (CLONE_NEW… flags)."""

    def __init__(self, pid: int, *, as_user: bool) -> None:
        self._pid = pid
        self._kinds = kernel.CLONE_NEWNS | kernel.CLONE_NEWNET
        if as_user:
            self._kinds |= kernel.CLONE_NEWUSER

    def enter(self) -> None:
        """Move the calling process there; its folder is the same by name. Raises OSError."""
        folder = os.open(".", os.O_PATH | os.O_CLOEXEC)
        name = None
        with contextlib.suppress(OSError):
            name = os.getcwd()
        descriptor = os.pidfd_open(self._pid)
        try:
            enter(descriptor, self._kinds)
            try:
                if name is None:
                    raise FileNotFoundError
                os.chdir(name)
            except OSError:
                # One that we are in, and could not go into again.
                os.fchdir(folder)
        finally:
            os.close(descriptor)
            os.close(folder)


def find(words: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str] | None:
    """Why the command cannot be run, as exit code and text; None if it is there."""
    name = words[0]
    path = environment.get("PATH", os.defpath)
    if "/" in name:
        try:
            is_file = stat.S_ISREG(os.stat(name).st_mode)
        except OSError as error:
            code = NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE
            return code, f"{name}: {error.strerror}"
        if not is_file or not os.access(name, os.X_OK):
            return NOT_EXECUTABLE, f"{name}: not an executable file"
        return None
    if shutil.which(name, path=path) is None:
        if shutil.which(name, mode=os.F_OK, path=path) is not None:
            return NOT_EXECUTABLE, f"{name}: found in PATH, but not executable"
        return NOT_FOUND, f"{name}: command not found"
    return None


def become(words: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Replace this process by the command; where that fails, say why and exit as a shell does."""
    for number in _RESTORED:
        signal.signal(number, signal.SIG_DFL)
    code = NOT_EXECUTABLE
    try:
        os.execvpe(words[0], list(words), environment)
    except OSError as error:
        if error.errno == errno.ENOEXEC:
            # A script without #! line is for sh.
            path = shutil.which(words[0], path=environment.get("PATH", os.defpath)) or words[0]
            with contextlib.suppress(OSError):
                os.execve("/bin/sh", ["sh", path, *words[1:]], environment)
        elif error.errno in (errno.ENOENT, errno.ENOTDIR):
            code = NOT_FOUND
        _say(f"{words[0]}: {error.strerror}")
    os._exit(code)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"tunnel: {text}\n".encode(errors="surrogateescape"))


def end_by(number: int) -> int:
    """End this process by the signal that ended the command, as whoever waits for it expects.

    Where that cannot be, the exit code of a shell.
    """
    # That of the command is the one to look at.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # of SIGKILL
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return SIGNALLED + number


class Command:
    """The command as our child. Make it before there are threads; `run` follows it."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self._inherited = _inheritable()
        # From here on they wait for `run`, and those of the child for the command.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _FOLLOWED)
        is_ignored = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._channel, theirs = messages.pair()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            if is_ignored:
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            self._channel.close()
            _wait_and_become(words, environment, theirs, parent, mask)
        theirs.close()
        self._status: int | None = None

    def start(self, pid: int, *, as_user: bool) -> None:
        """Let it go, in the namespaces of process `pid`, and keep none of its files open."""
        with contextlib.suppress(OSError):  # it has ended already
            messages.send(self._channel, {"pid": pid, "as_user": as_user})
        self._channel.close()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in (0, 1):
            os.dup2(null, descriptor)
        os.close(null)
        for descriptor in self._inherited:
            os.close(descriptor)

    async def run(self) -> int:
        """Follow it to its end; its exit code, or below 0 the signal that ended it."""
        descriptor = signal_descriptor(_FOLLOWED)
        try:
            while self._status is None:
                await trio.lowlevel.wait_readable(descriptor)
                with contextlib.suppress(BlockingIOError):
                    while data := os.read(descriptor, _SIGINFO.size):
                        number, _, code = _SIGINFO.unpack(data)
                        self._take(number, from_kernel=code == _SI_KERNEL)
        finally:
            os.close(descriptor)
        return os.waitstatus_to_exitcode(self._status)

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            _, self._status = os.waitpid(self.pid, 0)

    def _take(self, number: int, *, from_kernel: bool) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif self._status is None and not from_kernel:
            # What the terminal sends goes to the whole process group: the command has it.
            os.kill(self.pid, number)

    def _reap(self) -> None:
        if self._status is not None:
            return
        pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return
        if os.WIFSTOPPED(status):
            _stop(os.WSTOPSIG(status))
        else:
            self._status = status


def _stop(number: int) -> None:
    """Stop as the command did, until we are continued."""
    if number == signal.SIGSTOP or signal.getsignal(number) is not signal.SIG_DFL:
        os.kill(os.getpid(), signal.SIGSTOP)
        return
    # Of the terminal's own, which waits, and this one becomes: it is sent before both are let in.
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})


def _wait_and_become(
    words: Sequence[str],
    environment: Mapping[str, str],
    channel: socket.socket,
    parent: int,
    mask: set[int | signal.Signals],
) -> NoReturn:
    """The child: nothing of ours may run in it once this raises or returns."""
    try:
        for number in _FOLLOWED - {signal.SIGCHLD}:
            # One that was ignored when we were started stays so.
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        message = messages.receive(channel)
        if message is None:
            os._exit(SIGNALLED + signal.SIGTERM)
        channel.close()
        Namespaces(message.body["pid"], as_user=message.body["as_user"]).enter()
        end_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(SIGNALLED + signal.SIGKILL)
        become(words, environment)
    except OSError as error:
        _say(f"the namespaces cannot be entered: {error.strerror}")
    finally:
        os._exit(NOT_EXECUTABLE)


def _inheritable() -> list[int]:
    """Descriptors beside the standard ones that the caller passed on, for the command."""
    found = []
    for entry in os.listdir("/proc/self/fd"):
        number = int(entry)
        with contextlib.suppress(OSError):
            if number > 2 and os.get_inheritable(number):
                found.append(number)
    return found
