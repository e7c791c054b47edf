"""`tunnel up` without `--foreground`: a daemon of its own session, and word of when it is ready.

The parent starts `tunnel up --foreground` with a pipe; the child writes `ready` to it once packets
can flow. A child that ends before it does has put the reason into its log.
"""

from __future__ import annotations

import os
import subprocess
import sys
from types import TracebackType
from typing import Self

from tunnel.config import TunnelConfig
from tunnel.control.json_socket import RUN_FOLDER

READY = b"ready\n"


class StartError(Exception):
    """The daemon did not come up; the text is its own reason."""


class Readiness:
    """The child's end of the pipe; `fd` -1 means that nobody waits."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def ready(self) -> None:
        """Tell the parent that packets can flow, and let go of the folder it stands in."""
        if self._fd >= 0:
            os.chdir("/")
            os.write(self._fd, READY)
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()


def start(config: TunnelConfig, *, verbose: bool) -> int:
    """Start the daemon of `config` and wait until it is ready; its process id.

    Its log is /run/tunnel/NAME.log, begun anew each time. Raises StartError.
    """
    assert config.path is not None
    log_path = RUN_FOLDER / f"{config.name}.log"
    try:
        RUN_FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
        log = os.open(log_path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(
            f"cannot write the log {log_path}: {error.strerror}; run it as root (sudo)"
        ) from error
    began = os.fstat(log).st_size
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "tunnel", "up", "--foreground", f"--ready-fd={writing}"]
    try:
        child = subprocess.Popen(
            [*command, *(["--verbose"] if verbose else []), str(config.path.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            pass_fds=(writing,),
            start_new_session=True,
        )
        os.close(writing)
        with open(reading, "rb") as pipe:
            if pipe.read() == READY:
                return child.pid
        child.wait()
        os.lseek(log, began, os.SEEK_SET)
        reason = os.read(log, 65536).decode(errors="replace").strip()
        raise StartError(_last_words(reason) or f"the daemon ended with {child.returncode}")
    finally:
        os.close(log)


def _last_words(log: str) -> str:
    """What the child printed as its reason: everything from the last `tunnel: ` on."""
    marker = "tunnel: "
    place = log.rfind("\n" + marker) + 1 if "\n" + marker in log else 0
    return log[place:].removeprefix(marker)
