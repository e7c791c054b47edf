"""Tunnels without encryption: for the benchmark alone, and loud."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from tunnel import datapath
from tunnel.device.features import load_datapath

needs_native = pytest.mark.skipif(
    "native" not in datapath.available(), reason="the compiled datapath is not installed"
)

# In a process of its own: there is no way back.
SEALED = """
import sys
from tunnel import datapath
if sys.argv[1:] == ["unencrypted"]:
    datapath.disable_encryption()
keys = bytes(range(32)), bytes(range(32, 64))
make = datapath.load("native").session
one, other = make(*keys, 1, 2), make(*reversed(keys), 2, 1)
ipv4 = bytes.fromhex("4500001c000000004011000001020304050607080102030400080000")
out, frames = bytearray(datapath.SEAL_OUT_SIZE), bytearray(datapath.OPEN_OUT_SIZE)
(batch,) = one.seal(bytes(10) + ipv4, [(0, 10 + len(ipv4))], 1420, out).batches
sealed = bytes(out[batch.start:batch.end])
opened = other.open(out, batch.start, batch.end, batch.stride, frames)
print(ipv4 in sealed, opened.packets)
"""


def run(*arguments: str, host: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "TUNNEL_LAB_HOST"}
    if host is not None:
        environment["TUNNEL_LAB_HOST"] = host
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )


@needs_native
@pytest.mark.parametrize(("how", "printed"), [("", "False 1\n"), ("unencrypted", "True 1\n")])
def test_sessions_made_after_it_show_their_packets(how: str, printed: str) -> None:
    ran = run("-c", SEALED, how)
    assert ran.stdout == printed, ran.stderr


def test_it_is_refused_outside_of_a_lab() -> None:
    refused = run("-m", "tunnel.cli.unencrypted", "up", "/nonexistent/wg0.conf")
    assert refused.returncode == 1
    assert "only in the hosts of a lab of `tunnel bench`" in refused.stderr


@needs_native
def test_it_is_the_command_line_in_a_host_of_a_lab() -> None:
    ran = run("-m", "tunnel.cli.unencrypted", "up", "/nonexistent/wg0.conf", host="a")
    assert ran.returncode == 2
    assert "/nonexistent/wg0.conf" in ran.stderr


def test_the_log_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    load_datapath("python")
    assert "ENCRYPTED" not in caplog.text
    monkeypatch.setattr(datapath, "_unencrypted", True)
    load_datapath("python")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("NOTHING IS ENCRYPTED")
