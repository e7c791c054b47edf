"""Commands in processes that lack something: streams, folders of the PATH, a reader."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tunnel.cli import entry
from tunnel.cli.startup import with_admin_folders

PRIVATE = base64.b64encode(bytes(range(32))).decode()
TUNNEL = f"{sys.executable} -m tunnel"


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/usr/bin:/bin", "/usr/bin:/bin:/usr/sbin:/sbin"),
        ("/opt/x:/usr/bin", "/opt/x:/usr/bin:/usr/sbin"),
        ("/usr/sbin:/usr/bin", "/usr/sbin:/usr/bin"),
        ("/opt/robin", "/opt/robin"),
    ],
)
def test_folders_of_administrators_are_searched_too(path: str, found: str) -> None:
    assert with_admin_folders(path) == found


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams(streams: str) -> None:
    done = shell(f"{TUNNEL} show {streams}")
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 0


def test_reader_that_has_gone() -> None:
    # More than a pipe holds, so that it is noticed before the end.
    done = shell(f"for n in 1 2 3; do {TUNNEL} --help | head -c 1; {TUNNEL} --help | true; done")
    assert done.stderr == ""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "command",
    [
        *("tunnel show --json", "tunnel genkey", "tunnel pubkey < {key}", "tunnel strip {conf}"),
        *("tunnel --help", "tunnel up --help", "tunnel --version"),
        *("tunnel-wg --help", "tunnel-wg --version", "tunnel-wg-quick --version"),
    ],
)
def test_output_that_cannot_be_written(command: str, unbuffered: str, tmp_path: Path) -> None:
    """A full disk."""
    key, conf = tmp_path / "key", tmp_path / "wg0.conf"
    key.write_text(PRIVATE)
    conf.write_text(f"[Interface]\nPrivateKey = {PRIVATE}\n")
    conf.chmod(0o600)
    program = Path(sys.executable).parent / command.format(key=key, conf=conf)
    done = shell(f"PYTHONUNBUFFERED={unbuffered} {program} > /dev/full")
    name = command.split()[0]
    assert done.stderr == f"{name}: cannot write the output: No space left on device\n"
    assert done.returncode == 1


def test_a_converted_conf_that_cannot_be_written(tmp_path: Path) -> None:
    conf = tmp_path / "wg0.conf"
    conf.write_text(f"[Interface]\nPrivateKey = {PRIVATE}\n")
    conf.chmod(0o600)
    program = Path(sys.executable).parent / f"tunnel import {conf} -o -"
    done = shell(f"{program} > /dev/full")
    assert done.stderr.splitlines()[-1] == (
        "tunnel: cannot write the output: No space left on device"
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize(
    "interrupt",
    [
        KeyboardInterrupt(),
        BaseExceptionGroup("out of tasks", [BaseExceptionGroup("one", [KeyboardInterrupt()])]),
    ],
)
def test_interrupted_where_no_command_sees_to_it(
    interrupt: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(command: str = "") -> None:
        raise interrupt

    monkeypatch.setattr("tunnel.cli.main.make_app", interrupted)
    monkeypatch.setenv("PATH", os.environ["PATH"])  # what `prepared` adds goes again
    with pytest.raises(SystemExit) as ended:
        entry.run()
    assert ended.value.code == 130


INTERRUPTED = """
import os, signal, sys
_, at, run, *arguments = sys.argv
seen = 0
def interrupt(event, found):
    global seen
    seen += event == "import"
    if event == "import" and seen == int(at):
        os.kill(os.getpid(), signal.SIGINT)
from tunnel.cli import entry
sys.argv[1:] = arguments
sys.addaudithook(interrupt)
getattr(entry, run)()
"""
"""A command that is sent ^C as it begins to load its so manyth module."""


@pytest.mark.parametrize("at", [1, 10, 30, 60])
@pytest.mark.parametrize(
    "command", ["run genkey", "run_wg --version", "run_quick strip /nowhere.conf", "run_cni"]
)
def test_interrupted_at_the_import_of_a_module(command: str, at: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(at), *command.split()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (-signal.SIGINT, 128 + signal.SIGINT), done
    assert done.stderr == ""


def test_interrupts_that_are_ignored_stay_so() -> None:
    """As in the background of a shell without job control."""
    program = "trap '' INT; exec \"$@\""
    command = [sys.executable, "-c", INTERRUPTED, "60", "run", "genkey"]
    done = subprocess.run(["sh", "-c", program, "sh", *command], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


INIT = """
import os, signal, subprocess, sys, time
from unittest import mock
from tunnel.cli import startup
with mock.patch("os.getpid", return_value=1), startup.prepared():
    if sys.argv[1] == "exit":
        sys.exit(7)
    if sys.argv[1] == "kill":
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(60)
"""


@pytest.mark.parametrize(("way", "status"), [("exit", 7), ("kill", 128 + 15)])
def test_first_process_of_a_container_passes_status_and_signals_on(way: str, status: int) -> None:
    done = subprocess.run([sys.executable, "-c", INIT, way], check=False, timeout=60)
    assert done.returncode == status
