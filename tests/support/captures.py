"""Captures of a running tunnel, and what tshark reads in them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tunnel.lab import Host
from tunnel.lab.process import HostProcess


def begin_capture(host: Host, *options: str) -> HostProcess:
    """`tunnel capture wg0` with options, once it captures."""
    process = host.popen([sys.executable, "-m", "tunnel", "capture", "wg0", *options])
    process.wait_for_output("^C ends it")
    return process


def end_capture(process: HostProcess) -> None:
    """End it as ^C does, once what has been sent by now is read."""
    process.signal(signal.SIGINT)
    assert process.wait(10) == 0, process.log()


def fields(file: Path, wanted: str, *names: str, check: bool = True) -> list[list[str]]:
    """Fields of the packets that the display filter lets through, as tshark reads `file`."""
    command = ["tshark", "-r", str(file), "-Y", wanted, "-T", "fields"]
    for name in names:
        command += ["-e", name]
    ran = subprocess.run(command, capture_output=True, text=True, check=check)
    return [line.split("\t") for line in ran.stdout.splitlines()]
