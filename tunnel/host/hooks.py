"""PreUp, PostUp, PreDown and PostDown: commands of the conf, run in a shell as wg-quick(8) does."""

import os
import selectors
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from tunnel.host.errors import HostError
from tunnel.host.namespaces import inside

_CHUNK = 65536


def run_hooks(
    kind: str,
    commands: Iterable[str],
    interface: str,
    log: Callable[[str], None],
    *,
    first: int = 1,
    netns: Path | str | None = None,
) -> None:
    """Run the commands one after the other, `%i` in them replaced by the interface's name.

    `kind` is the key in the conf ("PostUp"); every command, and every line they print, is given to
    `log`. Raises HostError at the first that fails; those after it are not run. The error has the
    command's number, counted from `first`, and not its text, which may hold a key.
    """
    with inside(netns):
        for number, command in enumerate(commands, first):
            subject = f"{kind} number {number}"
            text = command.replace("%i", interface)
            log(f"{kind}: {text}")
            try:
                code = _run(text, log)
            except OSError as error:
                raise HostError.from_errno("run", subject, error.errno or 0) from error
            if code != 0:
                how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
                raise HostError("run", subject, how, f"run it by hand, or mend {kind}")


def check_hook_source(path: Path) -> None:
    """Raise HostError unless only root or we ourselves can write the conf that holds the hooks.

    Else whoever can write it can run commands as us. A sticky folder such as /tmp is no danger to
    a file that is ours.
    """
    real = path.resolve()
    try:
        for place in (real, real.parent):
            status = place.stat()
            open_to_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
            if status.st_uid not in (0, os.geteuid()) or (open_to_others and not sticky):
                raise HostError(
                    "run hooks of",
                    str(path),
                    f"others can write {place}",
                    f"chmod go-w {place}; chown root {place}",
                )
    except OSError as error:
        raise HostError.from_errno("run hooks of", str(path), error.errno or 0) from error


def _run(command: str, log: Callable[[str], None]) -> int:
    shell = shutil.which("bash") or "/bin/sh"
    with subprocess.Popen(
        [shell, "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        if process.stdout is not None:
            _follow(process.pid, process.stdout.fileno(), log)
        return process.wait()


def _follow(pid: int, output: int, log: Callable[[str], None]) -> None:
    """Log the output until the process is gone.

    Not until the end of file: what a hook leaves running in the background keeps it open.
    """
    os.set_blocking(output, False)
    rest = b""
    ended = os.pidfd_open(pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                chunk = _read(output)
                if chunk:
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        log(line.decode(errors="replace"))
                elif ended in ready:
                    break
                elif chunk == b"":
                    selector.unregister(output)  # it closed its output, and may run on
                    selector.select()
                    break
    finally:
        os.close(ended)
    if rest:
        log(rest.decode(errors="replace"))


def _read(fd: int) -> bytes | None:
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return None
