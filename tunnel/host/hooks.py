"""PreUp, PostUp, PreDown and PostDown: commands of the conf, run in a shell as wg-quick(8) does.

wg-quick is a bash script that begins with `set -e -o pipefail`, `shopt -s extglob` and
`LC_ALL=C`, and its hooks inherit all of that: a hook ends at the first of its commands that fails.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from io import FileIO
from pathlib import Path
from shlex import quote
from types import MappingProxyType

from tunnel.host.errors import HostError
from tunnel.host.hook_lock import held_by_hook
from tunnel.host.hook_watch import HookLimits, HookWatch
from tunnel.host.rtnetlink import inside

BACKGROUND_RATE = 16384
"""Bytes a second that are read of what a hook leaves in the background; a flood must not fill the
log, nor take the time that packets need. A hook that prints more has to wait.
"""

NOTHING: Mapping[str, str] = MappingProxyType({})
"""No environment besides ours."""

_CHUNK = 65536

_LAST_LINES = 5
_LAST_WIDTH = 300
"""Lines that the error of a hook shows of what it printed, and characters of each."""

_MAX_LINKS = 40
"""Symbolic links in a row, as many as the kernel follows."""


TRUSTED_USERS = "TUNNEL_TRUSTED_USERS"
"""The environment variable with the numbers of users whose confs may have hooks, for a container
whose files belong to a user of the machine. Whoever can set it can run commands as us anyway.
"""


def run_hooks(
    kind: str,
    commands: Iterable[str],
    interface: str,
    log: Callable[[str], None],
    *,
    hide: Callable[[str], str] = str,
    first: int = 1,
    output: int | None = None,
    limits: HookLimits | None = None,
    netns: Path | str | None = None,
    environment: Mapping[str, str] = NOTHING,
) -> None:
    """Run the commands one after the other, `%i` in them replaced by the interface's name.

    `kind` is the key in the conf ("PostUp"); every command, and every line they print, is given to
    `log` as `hide` makes it; any thread may call these two. A caller that ends soon gives a
    descriptor `output`, to which the commands, and what they leave in the background, print
    directly. `limits` hold for each command, and `environment` is beside that of this process; not
    with `output`. Raises HostError at the first that fails; those after it are not run. The error
    has the command's number, counted from `first`, and not its text, which may hold a key. The last
    lines that it printed are a note of the error and not in its text, which every user may read.
    """
    with inside(netns):
        for number, command in enumerate(commands, first):
            subject = f"{kind} number {number}"
            text = command.replace("%i", interface)
            lines = _Lines(log, hide)
            lines.log(f"{kind}: {text}")
            try:
                with held_by_hook(interface) as kept:
                    how, remedy = (
                        _run(text, lines, limits, kept, environment)
                        if output is None
                        else _run_into(text, output, kept)
                    )
            except OSError as error:
                raise HostError.from_errno("run", subject, error.errno or 0) from error
            if how:
                remedy = remedy or f"run it by hand, or fix {kind} in the conf"
                failure = HostError("run", subject, how, remedy)
                if lines.last:
                    failure.add_note("\n  ".join(["it printed last:", *lines.last]))
                raise failure


def check_hook_source(path: Path, status: os.stat_result | None = None) -> None:
    """Raise HostError unless only root or we ourselves can write the conf that holds the hooks.

    Otherwise any user who can write it can run commands as us. `status` is that of the file as it
    was read, since another file may have its name now; None looks at the one that is there. The
    folder of the file counts too, and that of every link on the way to it. A sticky one such as
    /tmp is no danger to a file or link that is ours. Users named in TRUSTED_USERS count as ours.
    """
    found = _check_way("run hooks of", path)
    _refuse_writable("run hooks of", path, path, found if status is None else status)


def check_save_target(path: Path) -> None:
    """Raise HostError if others can write the folder of a conf, or of a link on the way to it.

    They could put a link of theirs there while the conf is written, and so have us write any file.
    """
    _check_way("save", path)


def _check_way(step: str, path: Path) -> os.stat_result:
    """Refuse folders and links on the way to the file that are another user's; its status."""
    place = path.absolute()
    try:
        for _ in range(_MAX_LINKS):
            _refuse_writable(step, path, place.parent, place.parent.stat())
            found = place.lstat()
            if not stat.S_ISLNK(found.st_mode):
                return found
            _refuse_writable(step, path, place, found)
            place = place.parent / place.readlink()
    except OSError as error:
        raise HostError.from_errno(step, str(path), error.errno or 0) from error
    raise HostError.from_errno(step, str(path), errno.ELOOP)


def _refuse_writable(step: str, conf: Path, place: Path, status: os.stat_result) -> None:
    mode = status.st_mode
    open_to_others = mode & (stat.S_IWGRP | stat.S_IWOTH)
    is_link = stat.S_ISLNK(mode)  # and then its mode is of no meaning
    harmless = is_link or (stat.S_ISDIR(mode) and mode & stat.S_ISVTX)
    owners = {0, os.geteuid(), *_trusted_users()}
    if status.st_uid not in owners or (open_to_others and not harmless):
        # A folder may be a user's home, which must stay theirs.
        remedy = f"install -D -b -m 600 {quote(str(conf))} /etc/tunnel/{quote(conf.name)}"
        remedy += f", then use tunnel up {conf.stem}"
        if not is_link and not stat.S_ISDIR(mode):
            remedy = f"chmod go-w {quote(str(place))}; chown root {quote(str(place))}"
        raise HostError(step, str(conf), f"other users can write {place}", remedy)


def _trusted_users() -> Iterator[int]:
    for text in os.environ.get(TRUSTED_USERS, "").replace(",", " ").split():
        with suppress(ValueError):
            yield int(text)


def _in_shell(command: str) -> list[str]:
    bash = shutil.which("bash")
    if bash:
        return [bash, "-e", "-o", "pipefail", "-O", "extglob", "-c", command]
    # Not every sh knows pipefail, and those that do not would end here.
    strict = "if (set -o pipefail) 2>/dev/null; then set -o pipefail; fi"
    return ["/bin/sh", "-e", "-c", f"{strict}\n{command}"]


def _environment(more: Mapping[str, str] = NOTHING) -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", **more}


def _run_into(command: str, output: int, kept: tuple[int, ...]) -> tuple[str, str]:
    done = subprocess.run(
        _in_shell(command),
        check=False,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=kept,
    )
    return _in_words(done.returncode), ""


def _in_words(code: int) -> str:
    """How a process failed; empty if it did not."""
    if code == 0:
        return ""
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


def _run(
    command: str,
    lines: _Lines,
    limits: HookLimits | None,
    kept: tuple[int, ...],
    environment: Mapping[str, str],
) -> tuple[str, str]:
    """How the command failed (empty: it did not), and the remedy if there is a special one.

    What it leaves in the background is read on.
    """
    with ExitStack() as stack:
        reader, theirs = _pipe()
        stack.enter_context(reader)
        try:
            process = subprocess.Popen(
                _in_shell(command),
                env=_environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=subprocess.STDOUT,
                start_new_session=limits is not None,
                pass_fds=kept,
            )
        finally:
            os.close(theirs)
        with process, HookWatch(process.pid, limits) as watch:
            was_all = _follow(watch, reader, lines)
        lines.end()
        lines.keep_last()
        if not was_all:
            reading = threading.Thread(
                target=_read_on, args=(reader, lines), name="hook", daemon=True
            )
            reading.start()
            stack.pop_all()
        return watch.why or _in_words(process.returncode), watch.remedy


def _pipe() -> tuple[FileIO, int]:
    """Our end, and the descriptor that a hook prints to."""
    reading, writing = os.pipe()
    reader = FileIO(reading)
    try:
        # For reading too: as long as a pipe has a reader, writing to it is no SIGPIPE. So what
        # stays in the background lives on without us, and blocks only when the pipe is full.
        return reader, os.open(f"/proc/self/fd/{writing}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        reader.close()
        raise
    finally:
        os.close(writing)


def _follow(watch: HookWatch, reader: FileIO, lines: _Lines) -> bool:
    """Log what is printed until the process has ended; whether no process can print more.

    Not until the end of file: what a hook leaves running in the background keeps it open.
    """
    os.set_blocking(reader.fileno(), False)
    watch.watch_output(reader.fileno())
    is_open = True
    while not watch.wait():
        chunk = reader.read(_CHUNK) if is_open else None
        if chunk:
            lines.feed(chunk)
        elif chunk == b"":
            watch.forget_output(reader.fileno())  # it closed its output, and may run on
            is_open = False
    # What it printed itself is in the pipe now; what others add meanwhile is not waited for.
    left = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)
    while left > 0:
        chunk = reader.read(min(left, _CHUNK))
        if not chunk:
            return chunk == b""
        lines.feed(chunk)
        left -= len(chunk)
    return False


def _read_on(reader: FileIO, lines: _Lines) -> None:
    """Log what is printed in the background, until no process can print. Runs in a thread."""
    with reader:
        os.set_blocking(reader.fileno(), True)
        while chunk := reader.read(BACKGROUND_RATE // 4):
            lines.feed(chunk)
            time.sleep(len(chunk) / BACKGROUND_RATE)
        lines.end()


class _Lines:
    """Makes lines of chunks, and logs them hidden. `last` are the last of what was printed."""

    def __init__(self, log: Callable[[str], None], hide: Callable[[str], str]) -> None:
        self._log = log
        self._hide = hide
        self._rest = b""
        self._latest: deque[str] = deque(maxlen=_LAST_LINES)
        self.last: tuple[str, ...] = ()

    def log(self, line: str) -> str:
        """Log a line, hidden, and return it."""
        hidden = self._hide(line)
        self._log(hidden)
        return hidden

    def keep_last(self) -> None:
        """What is printed from now on, in the background, is not among the last."""
        self.last = tuple(self._latest)

    def feed(self, chunk: bytes) -> None:
        """Log the lines that are complete; one that gets too long in pieces."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._log_printed(line)
        if len(self._rest) > _CHUNK:
            self.end()

    def end(self) -> None:
        """Log what stands there without an end of line."""
        rest, self._rest = self._rest, b""
        if rest:
            self._log_printed(rest)

    def _log_printed(self, line: bytes) -> None:
        text = self.log(line.decode(errors="replace"))
        if text and not text.isspace():
            self._latest.append(text if len(text) <= _LAST_WIDTH else f"{text[:_LAST_WIDTH]}…")
