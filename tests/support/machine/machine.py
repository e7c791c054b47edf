"""A systemd booted as PID 1 of namespaces inside a lab host, for one test."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.machine import units
from tunnel.lab import Host
from tunnel.lab.process import HostProcess

HERE = Path(__file__).parent
SOURCE = HERE.parents[2]
UNSHARE = ["unshare", "--pid", "--mount", "--cgroup", "--ipc", "--fork", "--kill-child"]
BOOT_SECONDS = 30.0
PROGRAM = ("/mnt/python/bin/python3", "-m", "tunnel")
"""Not the virtual environment: it may lean on a Python in a home folder, which the unit hides."""

_ENTER = 'echo $$ >"$0/cgroup.procs" && exec "$@"'


class Machine:
    """The booted systemd; `run` runs a program beside it, `systemctl` speaks to it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def run(
        self, arguments: Sequence[str], *, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in its namespaces to its end."""
        kinds = ("mount", "pid", "net", "ipc", "uts")
        enter = ["nsenter", *(f"--{kind}=/proc/{self.pid}/ns/{_FILES[kind]}" for kind in kinds)]
        # No cgroup: nsenter would not move the program into one of the machine's, and need not.
        done = subprocess.run(
            [*enter, "env", "--chdir=/", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert done.returncode == 0, (arguments, done.stdout, done.stderr, self.journal())
        return done

    def tunnel(self, *arguments: str) -> str:
        """Run our command in there; what it prints."""
        return self.run(["env", *units.ENVIRONMENT, *PROGRAM, *arguments]).stdout

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        """Run systemctl; what it prints."""
        done = self.run(["systemctl", "--no-pager", *arguments], check=check)
        return done.stdout if check else done.stdout + done.stderr

    def property(self, unit: str, name: str) -> str:
        """One property of a unit, as `systemctl show` has it."""
        return self.systemctl("show", "--value", "--property", name, unit).strip()

    def journal(self, *arguments: str) -> str:
        """What the journal holds."""
        return self.run(["journalctl", "--no-pager", *arguments], check=False).stdout


_FILES = {"mount": "mnt", "pid": "pid", "net": "net", "ipc": "ipc", "uts": "uts"}


@contextlib.contextmanager
def boot(
    host: Host, confs: Path, folder: Path, lines: str = "", names: Sequence[str] = ()
) -> Iterator[Machine]:
    """Boot systemd in `host`, with our unit as it is installed and `confs` as /etc/tunnel.

    `lines` are more of the unit's section [Service], `names` are drop-ins. Skips the test, and
    says why, where that cannot be.
    """
    units.write(folder, PROGRAM, lines, names)
    places = (folder, sys.base_prefix, sysconfig.get_path("purelib"), SOURCE, confs)
    with _booted(host, "lab.target", "boot.sh", *map(str, places)) as machine:
        yield machine


@contextlib.contextmanager
def boot_root(host: Host, root: Path) -> Iterator[Machine]:
    """Boot the Debian with systemd in the folder `root`, in `host`; as `boot` otherwise."""
    with _booted(host, "multi-user.target", "boot_root.sh", str(root)) as machine:
        yield machine


@contextlib.contextmanager
def _booted(host: Host, target: str, script: str, *arguments: str) -> Iterator[Machine]:
    with _cgroup() as cgroup:
        enter = ["sh", "-c", _ENTER, f"/proc/{os.getpid()}/root{cgroup}", *UNSHARE]
        process = host.popen([*enter, "sh", str(HERE / script), *arguments])
        try:
            yield _wait_until_booted(process, target)
        finally:
            process.signal(signal.SIGKILL)
            process.wait(10)


def _wait_until_booted(process: HostProcess, target: str) -> Machine:
    deadline = time.monotonic() + BOOT_SECONDS
    said = "nothing"
    while time.monotonic() < deadline:
        if not process.running:
            break
        pid = _child(process.pid)
        if pid is not None and Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
            machine = Machine(pid)
            done = machine.run(["systemctl", "is-active", target], check=False)
            said = (done.stdout + done.stderr).strip()
            if said == "active":
                return machine
        time.sleep(0.1)
    pytest.skip(f"systemd cannot be booted here: it said {said!r}, {process.log()!r}")


def _child(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else None
    return None


@contextlib.contextmanager
def _cgroup() -> Iterator[Path]:
    """A cgroup (version 2) of our own, for systemd to make its tree in."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            break
    else:
        pytest.skip("systemd cannot be booted here: no cgroup2 is mounted")
    path = Path(place, f"tunnel-test-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"systemd cannot be booted here: {path}: {error.strerror}")
    try:
        yield path
    finally:
        _remove_cgroup(path)


def _remove_cgroup(path: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        for folder, _, _ in sorted(os.walk(path), key=lambda found: -len(found[0])):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if not path.exists() or time.monotonic() >= deadline:
            return
        time.sleep(0.05)
